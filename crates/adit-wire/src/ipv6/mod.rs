//! The IPv6 header, RFC 8200 section 3.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-----------+---+---------------------------------------+
//! |Version|   DSCP    |ECN|              Flow label               |
//! +-------+-----------+---+-------+---------------+---------------+
//! |        Payload length         |  Next header  |   Hop limit   |
//! +-------------------------------+---------------+---------------+
//! |                                                               |
//! +                                                               +
//! |                            Source                             |
//! +                                                               +
//! |                                                               |
//! +                                                               +
//! |                                                               |
//! +---------------------------------------------------------------+
//! |                                                               |
//! +                                                               +
//! |                          Destination                          |
//! +                                                               +
//! |                                                               |
//! +                                                               +
//! |                                                               |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`Ipv6Packet`] is the checked view of a packet, [`Ipv6Header`] that of the 40 bytes alone.
//! [`Ipv6Repr`] is the owned form. [`extension`] walks what lies between the header and the
//! payload. There is no header checksum, so the lengths are all that a parser can check.
//!
//! # Panics
//!
//! Nothing here panics.

mod edit;
pub mod extension;
mod fragments;
mod repr;

use core::fmt;
use core::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use edit::{set_ecn, set_hop_limit, set_payload_len, set_traffic_class};
pub use fragments::{FRAGMENT_HEADERS_LEN, FragmentV6, FragmentsV6};
pub use repr::Ipv6Repr;

use crate::dscp::Dscp;
use crate::ecn::Ecn;
use crate::{Protocol, Validation};

/// Bytes of the header.
pub const HEADER_LEN: usize = 40;
/// Bytes of the longest payload without a jumbo payload option (RFC 2675), which Adit does not
/// support.
pub const MAX_PAYLOAD_LEN: usize = 65_535;
/// Bytes that every link must carry in one piece (RFC 8200 section 5).
pub const MIN_MTU: u16 = 1280;

const FLOW_LABEL_MASK: u32 = 0x000f_ffff;

/// Whether the first byte of a packet says IPv6. The rest of it may be anything.
#[inline]
#[must_use]
pub fn is_ipv6(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 6)
}

/// The 40 bytes of a header, as they are on the wire. No field has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    version_class_flow: U32,
    payload_len: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

impl Ipv6Header {
    /// The version field; 6 in a header that was checked.
    #[inline]
    #[must_use]
    pub fn version(&self) -> u8 {
        (self.version_class_flow.get() >> 28) as u8
    }

    /// The traffic class: DSCP and ECN, as in the TOS octet of IPv4.
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_flow.get() >> 20) as u8
    }

    /// The flow label, 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & FLOW_LABEL_MASK
    }

    /// Bytes after the header, extension headers included, by the payload length field.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> u16 {
        self.payload_len.get()
    }

    /// What follows the header: a protocol or an extension header.
    #[inline]
    #[must_use]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// The hop limit, in hops.
    #[inline]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.destination)
    }
}

/// The first check that an IPv6 packet fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ipv6Error {
    /// There are fewer bytes than the header, or the packet, needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The version is not 6.
    Version {
        /// The version field.
        found: u8,
    },
    /// The payload length is not the number of bytes after the header (strict).
    PayloadLength {
        /// Bytes after the header.
        expected: usize,
        /// Bytes, by the payload length field.
        found: usize,
    },
}

impl fmt::Display for Ipv6Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ipv6Error::Truncated { expected, found } => {
                write!(f, "IPv6 packet cut short: {expected} bytes expected, {found} found")
            }
            Ipv6Error::Version { found } => write!(f, "IP version 6 expected, {found} found"),
            Ipv6Error::PayloadLength { expected, found } => {
                write!(f, "IPv6 payload length of {expected} bytes expected, the field says {found}")
            }
        }
    }
}

impl core::error::Error for Ipv6Error {}

/// A checked view of one IPv6 packet.
#[derive(Debug, Clone, Copy)]
pub struct Ipv6Packet<'a> {
    header: &'a Ipv6Header,
    /// INVARIANT: begins with `header` and ends at the payload length. Only under `Lenient` it may
    /// end before, or after if the payload length is 0.
    bytes: &'a [u8],
}

impl<'a> Ipv6Packet<'a> {
    /// Checks a packet as far as `validation` requires: version and lengths.
    ///
    /// Bytes after the payload length are cut off. Under [`Validation::Lenient`] a payload length
    /// of 0 means all bytes: captures show GSO packets that way whose sender leaves segmentation to
    /// the hardware.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants of [`Ipv6Error`].
    #[inline]
    pub fn parse(bytes: &'a [u8], validation: Validation) -> Result<Ipv6Packet<'a>, Ipv6Error> {
        let found = bytes.len();
        let Ok((header, after)) = Ipv6Header::ref_from_prefix(bytes) else {
            return Err(Ipv6Error::Truncated { expected: HEADER_LEN, found });
        };
        if header.version() != 6 {
            return Err(Ipv6Error::Version { found: header.version() });
        }
        let payload_len = usize::from(header.payload_len());
        if validation == Validation::Lenient && payload_len == 0 {
            return Ok(Ipv6Packet { header, bytes });
        }
        let Some(packet) = bytes.get(..HEADER_LEN + payload_len) else {
            return match validation {
                Validation::Lenient => Ok(Ipv6Packet { header, bytes }),
                _ => Err(Ipv6Error::Truncated { expected: HEADER_LEN + payload_len, found }),
            };
        };
        if validation == Validation::Strict && packet.len() != found {
            return Err(Ipv6Error::PayloadLength { expected: after.len(), found: payload_len });
        }
        Ok(Ipv6Packet { header, bytes: packet })
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        self.header.source()
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        self.header.destination()
    }

    /// The hop limit, in hops.
    #[inline]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.header.hop_limit()
    }

    /// What follows the header: a protocol or an extension header.
    #[inline]
    #[must_use]
    pub fn next_header(&self) -> Protocol {
        self.header.next_header()
    }

    /// The traffic class: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        self.header.traffic_class()
    }

    /// The differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> Dscp {
        Dscp::from_tos(self.traffic_class())
    }

    /// The ECN field.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_tos(self.traffic_class())
    }

    /// The flow label, 20 bits.
    #[inline]
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.header.flow_label()
    }

    /// Bytes of the packet, header included, by its payload length field. Under
    /// [`Validation::Lenient`] [`Self::as_bytes`] may be shorter, or longer if the field is 0.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        HEADER_LEN + usize::from(self.header.payload_len())
    }

    /// The header.
    #[inline]
    #[must_use]
    pub fn fixed_header(&self) -> &'a Ipv6Header {
        self.header
    }

    /// The bytes after the header: extension headers, if there are any, and the payload.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The packet, without bytes after it. Under [`Validation::Lenient`] it may be cut short.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
