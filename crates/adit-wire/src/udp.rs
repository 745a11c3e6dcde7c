//! The UDP header, RFC 768.

use core::fmt;
use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Protocol, checksum};

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;
/// Offset in bytes of the length in the header.
pub const LENGTH_OFFSET: usize = 4;
/// Offset in bytes of the checksum in the header.
pub const CHECKSUM_OFFSET: usize = 6;

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fields {
    source_port: U16,
    destination_port: U16,
    length: U16,
    checksum: U16,
}

/// Why bytes are not a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UdpError {
    /// Fewer bytes than the header or its length field need.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A length field below the header's own 8 bytes.
    Length {
        /// What the field holds.
        found: u16,
    },
}

impl fmt::Display for UdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            UdpError::Truncated { expected, found } => {
                write!(f, "UDP datagram cut short: {expected} bytes expected, {found} found")
            }
            UdpError::Length { found } => {
                write!(f, "UDP length of at least 8 bytes expected, the field says {found}")
            }
        }
    }
}

impl core::error::Error for UdpError {}

/// A checked view of one UDP datagram.
#[derive(Debug, Clone, Copy)]
pub struct UdpHeader<'a> {
    fields: &'a Fields,
    /// INVARIANT: as long as the length field says.
    bytes: &'a [u8],
}

impl<'a> UdpHeader<'a> {
    /// Checks lengths; the checksum is looked at by [`Self::checksum_ok`]. Bytes after the length are cut
    /// off.
    ///
    /// # Errors
    ///
    /// [`UdpError`], when the header or the datagram does not fit in the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<UdpHeader<'a>, UdpError> {
        let found = bytes.len();
        let Ok((fields, _)) = Fields::ref_from_prefix(bytes) else {
            return Err(UdpError::Truncated { expected: HEADER_LEN, found });
        };
        let length = fields.length.get();
        if usize::from(length) < HEADER_LEN {
            return Err(UdpError::Length { found: length });
        }
        match bytes.get(..usize::from(length)) {
            Some(bytes) => Ok(UdpHeader { fields, bytes }),
            None => Err(UdpError::Truncated { expected: usize::from(length), found }),
        }
    }

    /// The source port.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        self.fields.source_port.get()
    }

    /// The destination port.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        self.fields.destination_port.get()
    }

    /// The length field: bytes of header and payload.
    #[must_use]
    pub fn length(&self) -> u16 {
        self.fields.length.get()
    }

    /// The checksum field, in host order; 0 means there is none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.fields.checksum.get()
    }

    /// Whether the checksum is right, or absent, for these addresses.
    #[must_use]
    pub fn checksum_ok(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let sum = checksum::pseudo_header_v4(source, destination, Protocol::UDP, self.length());
        self.checksum() == 0 || sum.add_bytes(self.bytes).checksum() == 0
    }

    /// What follows the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}
