//! The owned form of an IPv4 header, and writing it.

use core::net::Ipv4Addr;

use zerocopy::byteorder::network_endian::U16;

use super::{DONT_FRAGMENT, HEADER_LEN, Ipv4Header, Ipv4Packet};
use crate::{Protocol, checksum};

/// The fields of a header that Adit writes: without options, of a whole datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv4Repr {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The protocol of the payload.
    pub protocol: Protocol,
    /// Time to live, in hops.
    pub ttl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// The identification that the fragments of a datagram share.
    pub identification: u16,
    /// The flag DF, "don't fragment".
    pub dont_fragment: bool,
    /// Bytes after the header, at most 65,515.
    pub payload_len: u16,
}

impl Ipv4Repr {
    /// Takes the fields from a parsed datagram. Options and fragmentation are left out.
    #[must_use]
    pub fn of(packet: &Ipv4Packet<'_>) -> Ipv4Repr {
        Ipv4Repr {
            source: packet.source(),
            destination: packet.destination(),
            protocol: packet.protocol(),
            ttl: packet.ttl(),
            tos: packet.tos(),
            identification: packet.identification(),
            dont_fragment: packet.dont_fragment(),
            payload_len: packet.header.total_len().saturating_sub(packet.header_len() as u16),
        }
    }

    /// Returns the 20 bytes of the header with their checksum. With a `payload_len` above 65,515
    /// the total length is 65,535.
    #[inline]
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut header = Ipv4Header {
            version_ihl: 0x45,
            tos: self.tos,
            total_len: U16::new(self.payload_len.saturating_add(HEADER_LEN as u16)),
            identification: U16::new(self.identification),
            flags_offset: U16::new(if self.dont_fragment { DONT_FRAGMENT } else { 0 }),
            ttl: self.ttl,
            protocol: self.protocol.0,
            checksum: U16::ZERO,
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        let bytes: [u8; HEADER_LEN] = zerocopy::transmute!(header);
        header.checksum = U16::new(checksum_of_fixed(&bytes));
        zerocopy::transmute!(header)
    }
}

/// Returns the checksum of 20 bytes, by ten additions without a loop: that suits the eBPF verifier
/// and the register allocator better than the general function.
#[inline]
fn checksum_of_fixed(bytes: &[u8; HEADER_LEN]) -> u16 {
    let mut sum = checksum::Sum::ZERO;
    let (words, _) = bytes.as_chunks::<2>();
    for word in words {
        sum = sum.add_word(u16::from_be_bytes(*word));
    }
    sum.checksum()
}
