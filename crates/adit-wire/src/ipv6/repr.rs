//! The owned form of an IPv6 header, and writing it.

use core::net::Ipv6Addr;

use zerocopy::byteorder::network_endian::{U16, U32};

use super::{FLOW_LABEL_MASK, HEADER_LEN, Ipv6Header, Ipv6Packet};
use crate::Protocol;

/// The fields of a header that Adit writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ipv6Repr {
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address.
    pub destination: Ipv6Addr,
    /// What follows the header.
    pub next_header: Protocol,
    /// The hop limit, in hops.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The flow label; only its lower 20 bits are written.
    pub flow_label: u32,
    /// Bytes after the header.
    pub payload_len: u16,
}

impl Ipv6Repr {
    /// Takes the fields from a parsed packet.
    #[must_use]
    pub fn of(packet: &Ipv6Packet<'_>) -> Ipv6Repr {
        Ipv6Repr {
            source: packet.source(),
            destination: packet.destination(),
            next_header: packet.next_header(),
            hop_limit: packet.hop_limit(),
            traffic_class: packet.traffic_class(),
            flow_label: packet.flow_label(),
            payload_len: packet.header.payload_len(),
        }
    }

    /// Returns the 40 bytes of the header.
    #[inline]
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let class = u32::from(self.traffic_class) << 20;
        zerocopy::transmute!(Ipv6Header {
            version_class_flow: U32::new(6 << 28 | class | self.flow_label & FLOW_LABEL_MASK),
            payload_len: U16::new(self.payload_len),
            next_header: self.next_header.0,
            hop_limit: self.hop_limit,
            source: self.source.octets(),
            destination: self.destination.octets(),
        })
    }
}
