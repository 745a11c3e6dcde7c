//! IPv6 packets of the table, written field by field like those of IPv4.

use std::net::Ipv6Addr;

use adit_wire::ipv6::{HEADER_LEN, Ipv6Repr};
use adit_wire::{Protocol, checksum};

use crate::packet::{Packet, tcp_segment, udp_segment, with_checksum};
use crate::site::{HOST_A6, HOST_B6};

/// A builder of one packet.
#[derive(Debug, Clone)]
pub struct PacketV6 {
    repr: Ipv6Repr,
    payload: Vec<u8>,
}

impl From<PacketV6> for Packet {
    fn from(packet: PacketV6) -> Packet {
        packet.build().into()
    }
}

/// UDP from host A to host B, 100 bytes with headers, hop limit 63.
#[must_use]
pub fn a_to_b_v6() -> PacketV6 {
    udp_v6(HOST_A6, HOST_B6, 100)
}

/// UDP of `len` bytes with headers and a correct checksum.
#[must_use]
pub fn udp_v6(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> PacketV6 {
    upper_layer(source, destination, Protocol::UDP, udp_segment(len - HEADER_LEN))
}

/// A TCP segment with this sequence number, these flags, options (a multiple of four bytes) and
/// payload, and a correct checksum.
#[must_use]
pub fn tcp_v6(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    sequence: u32,
    flags: u8,
    options: &[u8],
    payload: &[u8],
) -> PacketV6 {
    upper_layer(source, destination, Protocol::TCP, tcp_segment(sequence, flags, options, payload))
}

/// An ICMPv6 message of this type and code with a correct checksum. `rest` is between that and the
/// payload.
#[must_use]
pub fn icmp_v6(
    (source, destination): (Ipv6Addr, Ipv6Addr),
    kind: [u8; 2],
    rest: u32,
    payload: &[u8],
) -> PacketV6 {
    let message = [&kind[..], &[0; 2], &rest.to_be_bytes(), payload].concat();
    upper_layer(source, destination, Protocol::ICMPV6, message)
}

/// A packet of a protocol, with its checksum (RFC 8200 section 8.1).
fn upper_layer(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol, segment: Vec<u8>) -> PacketV6 {
    let pseudo = checksum::pseudo_header_v6(source, destination, protocol, segment.len() as u32);
    bare_v6(source, destination, protocol, with_checksum(protocol, segment, pseudo))
}

/// A packet with any next header: hop limit 63.
#[must_use]
pub fn bare_v6(source: Ipv6Addr, destination: Ipv6Addr, next_header: Protocol, payload: Vec<u8>) -> PacketV6 {
    let repr = Ipv6Repr {
        source,
        destination,
        next_header,
        hop_limit: 63,
        traffic_class: 0,
        flow_label: 0x54321,
        payload_len: 0,
    };
    PacketV6 { repr, payload }
}

impl PacketV6 {
    /// Sets the hop limit.
    #[must_use]
    pub fn hop_limit(mut self, hop_limit: u8) -> PacketV6 {
        self.repr.hop_limit = hop_limit;
        self
    }

    /// Sets the traffic class: DSCP and ECN.
    #[must_use]
    pub fn traffic_class(mut self, traffic_class: u8) -> PacketV6 {
        self.repr.traffic_class = traffic_class;
        self
    }

    /// Sets the flow label.
    #[must_use]
    pub fn flow_label(mut self, flow_label: u32) -> PacketV6 {
        self.repr.flow_label = flow_label;
        self
    }

    /// Puts an extension header of eight bytes before the payload. `body` follows its next header.
    #[must_use]
    pub fn extension(mut self, kind: Protocol, body: [u8; 7]) -> PacketV6 {
        let header = [&[self.repr.next_header.0][..], &body].concat();
        self.repr.next_header = kind;
        self.payload.splice(..0, header);
        self
    }

    /// The fragment with `len` bytes of the payload, starting `offset` bytes into it (RFC 8200
    /// section 4.5).
    #[must_use]
    pub fn piece(mut self, offset: usize, len: usize) -> PacketV6 {
        let more = u16::from(offset + len < self.payload.len());
        self.payload = self.payload[offset..offset + len].to_vec();
        let [high, low] = (offset as u16 | more).to_be_bytes();
        self.extension(Protocol::FRAGMENT, [0, high, low, 0, 0, 0x12, 0x34])
    }

    /// The finished bytes.
    #[must_use]
    pub fn build(mut self) -> Vec<u8> {
        self.repr.payload_len = self.payload.len() as u16;
        [&self.repr.emit()[..], &self.payload].concat()
    }

    /// The same as a GSO packet for segments of `size` bytes of payload each.
    #[must_use]
    pub fn cut_at(self, size: u16) -> Packet {
        Packet { bytes: self.build(), gso_size: Some(size) }
    }
}
