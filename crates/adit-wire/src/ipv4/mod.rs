//! The IPv4 header, RFC 791 section 3.1.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+-----------+---+-------------------------------+
//! |Version|  IHL  |   DSCP    |ECN|         Total length          |
//! +-------+-------+-----------+---+-----+-------------------------+
//! |        Identification         |0|D|M|     Fragment offset     |
//! +---------------+---------------+-----+-------------------------+
//! |  Time to live |   Protocol    |        Header checksum        |
//! +---------------+---------------+-------------------------------+
//! |                            Source                             |
//! +---------------------------------------------------------------+
//! |                          Destination                          |
//! +---------------------------------------------------------------+
//! |                    Options, 0 to 40 bytes                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! [`Ipv4Packet`] is the checked view of a datagram, [`Ipv4Header`] that of the first 20 bytes
//! alone, which the eBPF programs use. [`Ipv4Repr`] is the owned form that Adit writes.
//! [`set_tos`], [`set_ecn`] and [`set_ttl`] change a header in place.
//!
//! # Panics
//!
//! Nothing here panics. An [`Ipv4Packet`] exists only for bytes that hold its whole fixed header,
//! and accessors return what there is of a datagram that was cut short.

mod edit;
mod options;
mod repr;

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use edit::{allow_fragments, set_ecn, set_tos, set_ttl};
pub(crate) use edit::{set_length_and_id, write_fragment_fields};
pub(crate) use options::Ipv4Options;
pub use repr::Ipv4Repr;

use crate::checksum;
use crate::dscp::Dscp;
use crate::ecn::Ecn;
use crate::{Protocol, Validation};

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of the longest header: 15 words.
pub const MAX_HEADER_LEN: usize = 60;
/// Bytes of the longest datagram, header included.
pub const MAX_TOTAL_LEN: usize = 65_535;

const RESERVED: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// The fixed 20 bytes of a header, as they are on the wire. No field has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    identification: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4Header {
    /// The version field; 4 in a header that was checked.
    #[inline]
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header, options included, by the IHL field: 0 to 60.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0x0f) as usize * 4
    }

    /// The whole TOS octet: DSCP and ECN.
    #[inline]
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.tos
    }

    /// Bytes of the datagram, header included, by the total length field.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// The identification that the fragments of a datagram share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// The flag that RFC 791 reserves; it must be zero.
    #[inline]
    #[must_use]
    pub fn reserved_flag(&self) -> bool {
        self.flags_offset.get() & RESERVED != 0
    }

    /// The flag DF, "don't fragment".
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DONT_FRAGMENT != 0
    }

    /// The flag MF, "more fragments".
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.flags_offset.get() & MORE_FRAGMENTS != 0
    }

    /// The offset of this fragment's payload in the whole payload, in bytes. The field itself
    /// counts units of eight.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        (self.flags_offset.get() & OFFSET_MASK) << 3
    }

    /// Returns true for one of several fragments, the first included.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.more_fragments() || self.fragment_offset() != 0
    }

    /// Time to live, in hops.
    #[inline]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The protocol of the payload.
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// The header checksum field, in host order.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.checksum.get()
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }
}

/// The first check that an IPv4 datagram fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ipv4Error {
    /// There are fewer bytes than the header, or the datagram, needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The version is not 4.
    Version {
        /// The version field.
        found: u8,
    },
    /// The header length is below 20 bytes.
    HeaderLength {
        /// Bytes, by the IHL field.
        found: usize,
    },
    /// The total length is shorter than the header, or (strict) not the number of bytes given.
    TotalLength {
        /// Bytes needed: the header's length, or the number of bytes given.
        expected: usize,
        /// Bytes, by the total length field.
        found: usize,
    },
    /// The header checksum does not match the header.
    Checksum {
        /// The checksum of this header.
        expected: u16,
        /// The field's value.
        found: u16,
    },
    /// The flag that RFC 791 reserves is set.
    ReservedFlag,
    /// An option's length does not fit in the header.
    Options,
}

impl fmt::Display for Ipv4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ipv4Error::Truncated { expected, found } => {
                write!(f, "IPv4 datagram cut short: {expected} bytes expected, {found} found")
            }
            Ipv4Error::Version { found } => write!(f, "IP version 4 expected, {found} found"),
            Ipv4Error::HeaderLength { found } => {
                write!(f, "IPv4 header of at least 20 bytes expected, its length field says {found}")
            }
            Ipv4Error::TotalLength { expected, found } => {
                write!(f, "IPv4 total length of {expected} bytes expected, the field says {found}")
            }
            Ipv4Error::Checksum { expected, found } => {
                write!(f, "IPv4 header checksum {expected:#06x} expected, {found:#06x} found")
            }
            Ipv4Error::ReservedFlag => f.write_str("the reserved IPv4 flag is set; RFC 791 wants it zero"),
            Ipv4Error::Options => f.write_str("an IPv4 option's length does not fit in the header"),
        }
    }
}

impl core::error::Error for Ipv4Error {}

/// A checked view of one IPv4 datagram.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Packet<'a> {
    header: &'a Ipv4Header,
    /// INVARIANT: begins with `header` and ends at the total length. Only under `Lenient` it may
    /// end before, or after if the total length is 0.
    bytes: &'a [u8],
}

impl<'a> Ipv4Packet<'a> {
    /// Checks a datagram as far as `validation` requires. Costs one pass over the header.
    ///
    /// Bytes after the total length are cut off. Under [`Validation::Lenient`] a total length of 0
    /// means all bytes: captures show GSO packets that way whose sender leaves segmentation to the
    /// hardware.
    ///
    /// # Errors
    ///
    /// The first check that fails, in the order of the variants of [`Ipv4Error`].
    #[inline]
    pub fn parse(bytes: &'a [u8], validation: Validation) -> Result<Ipv4Packet<'a>, Ipv4Error> {
        let found = bytes.len();
        let Ok((header, _)) = Ipv4Header::ref_from_prefix(bytes) else {
            return Err(Ipv4Error::Truncated { expected: HEADER_LEN, found });
        };
        if header.version() != 4 {
            return Err(Ipv4Error::Version { found: header.version() });
        }
        let header_len = header.header_len();
        if header_len < HEADER_LEN {
            return Err(Ipv4Error::HeaderLength { found: header_len });
        }
        let total_len = usize::from(header.total_len());
        if validation == Validation::Lenient && total_len == 0 {
            return Ok(Ipv4Packet { header, bytes });
        }
        if total_len < header_len {
            return Err(Ipv4Error::TotalLength { expected: header_len, found: total_len });
        }
        let Some(datagram) = bytes.get(..total_len) else {
            return match validation {
                Validation::Lenient => Ok(Ipv4Packet { header, bytes }),
                _ => Err(Ipv4Error::Truncated { expected: total_len, found }),
            };
        };
        let packet = Ipv4Packet { header, bytes: datagram };
        if validation == Validation::Lenient {
            return Ok(packet);
        }
        if validation == Validation::Strict && total_len != found {
            return Err(Ipv4Error::TotalLength { expected: found, found: total_len });
        }
        let remainder = checksum::checksum(packet.header());
        if remainder != 0 {
            let found = header.checksum();
            let expected = checksum::sum(packet.header()).add_word(!found).checksum();
            return Err(Ipv4Error::Checksum { expected, found });
        }
        if validation == Validation::Strict {
            if header.reserved_flag() {
                return Err(Ipv4Error::ReservedFlag);
            }
            for option in Ipv4Options::new(packet.options()) {
                option.map_err(|_| Ipv4Error::Options)?;
            }
        }
        Ok(packet)
    }

    /// The source address.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        self.header.source()
    }

    /// The destination address.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination()
    }

    /// Time to live, in hops.
    #[inline]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.header.ttl()
    }

    /// The protocol of the payload.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.header.protocol()
    }

    /// The whole TOS octet: DSCP and ECN.
    #[inline]
    #[must_use]
    pub fn tos(&self) -> u8 {
        self.header.tos()
    }

    /// The differentiated services code point.
    #[inline]
    #[must_use]
    pub fn dscp(&self) -> Dscp {
        Dscp::from_tos(self.header.tos())
    }

    /// The ECN field.
    #[inline]
    #[must_use]
    pub fn ecn(&self) -> Ecn {
        Ecn::from_tos(self.header.tos())
    }

    /// The identification that the fragments of a datagram share.
    #[inline]
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.header.identification()
    }

    /// The flag DF, "don't fragment".
    #[inline]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.header.dont_fragment()
    }

    /// The flag MF, "more fragments".
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.header.more_fragments()
    }

    /// The offset of this fragment's payload in the whole payload, in bytes.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        self.header.fragment_offset()
    }

    /// Returns true for one of several fragments, the first included.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.header.is_fragment()
    }

    /// Returns true for a first fragment or a whole datagram: its payload begins with the transport
    /// header.
    #[inline]
    #[must_use]
    pub fn is_first_fragment_or_whole(&self) -> bool {
        self.fragment_offset() == 0
    }

    /// Bytes of the header by its IHL field, 20 to 60.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header.header_len()
    }

    /// Bytes of the datagram by its total length field. Under [`Validation::Lenient`]
    /// [`Self::as_bytes`] may be shorter, or longer if the field is 0.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(self.header.total_len())
    }

    /// The fixed part of the header.
    #[inline]
    #[must_use]
    pub fn fixed_header(&self) -> &'a Ipv4Header {
        self.header
    }

    /// The options with their padding. Empty in most datagrams.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.header().get(HEADER_LEN..).unwrap_or_default()
    }

    /// The bytes after the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len()..).unwrap_or_default()
    }

    /// The header, options included. Under [`Validation::Lenient`] it may be cut short.
    #[inline]
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_len()).unwrap_or(self.bytes)
    }

    /// The datagram, without bytes after it. Under [`Validation::Lenient`] it may be cut short.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
