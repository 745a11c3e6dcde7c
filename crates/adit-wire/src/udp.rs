//! The UDP header, RFC 768.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source port          |       Destination port        |
//! +-------------------------------+-------------------------------+
//! |            Length             |           Checksum            |
//! +-------------------------------+-------------------------------+
//! ```
//!
//! # Panics
//!
//! Nothing here panics. A [`UdpHeader`] exists only for bytes as long as the length field says.

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

/// The first check that a UDP datagram fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UdpError {
    /// There are fewer bytes than the header or the length field needs.
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The length field is below 8 bytes.
    Length {
        /// The field's value.
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
    /// The datagram. INVARIANT: as long as the length field says.
    bytes: &'a [u8],
}

impl<'a> UdpHeader<'a> {
    /// Checks the lengths of a datagram. Bytes after its length are cut off. [`Self::checksum_ok`]
    /// verifies its checksum.
    ///
    /// # Errors
    ///
    /// The header or the datagram does not fit in the bytes, or the length is below 8 bytes.
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

    /// The length field: bytes of the header and the payload.
    #[must_use]
    pub fn length(&self) -> u16 {
        self.fields.length.get()
    }

    /// The checksum field, in host byte order; 0 means that there is none.
    #[must_use]
    pub fn checksum(&self) -> u16 {
        self.fields.checksum.get()
    }

    /// Returns true if the checksum is right for these addresses, or absent.
    #[must_use]
    pub fn checksum_ok(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let sum = checksum::pseudo_header_v4(source, destination, Protocol::UDP, self.length());
        self.checksum() == 0 || sum.add_bytes(self.bytes).checksum() == 0
    }

    /// The bytes after the header.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}
