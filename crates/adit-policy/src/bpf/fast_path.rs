//! What the kernel's programs carry themselves: datagrams with nothing unusual about them. Everything
//! else is left to userspace.

use adit_wire::Protocol;
use adit_wire::checksum;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};
use zerocopy::IntoBytes;

/// How a packet of the kernel stands for several datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsoInfo {
    /// Bytes of payload of each but the last; 0: it is one datagram.
    pub gso_size: u32,
    /// Bytes of the transport header, which each gets. Not looked at where `gso_size` is 0.
    pub transport_header: u32,
}

/// What goes through the tunnel in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsoShape {
    /// Bytes of all of it, the IPv4 header included.
    pub len: u32,
    /// Bytes of the largest datagram that it becomes on the wire.
    pub largest: u32,
    /// How many datagrams it becomes.
    pub segments: u32,
}

/// Whether a program can carry this packet, whose IPv4 header is `header` and which has `available` bytes
/// from that header on: a header without options and with a right checksum, a length that fits.
/// `None` is not a drop, but a matter for userspace.
#[inline(always)]
pub fn gso_shape(header: &Ipv4Header, available: u32, gso_packet: GsoInfo) -> Option<GsoShape> {
    let len = u32::from(header.total_len());
    let plain = header.version() == 4 && header.header_len() == HEADER_LEN;
    if !plain || len < HEADER_LEN as u32 || len > available {
        return None;
    }
    if checksum::checksum(header.as_bytes()) != 0 {
        return None;
    }
    if gso_packet.gso_size == 0 {
        return Some(GsoShape { len, largest: len, segments: 1 });
    }
    let headers = HEADER_LEN as u32 + gso_packet.transport_header;
    let payload = len.checked_sub(headers)?;
    let largest = (headers + gso_packet.gso_size).min(len);
    let segments = payload.div_ceil(gso_packet.gso_size).max(1);
    Some(GsoShape { len, largest, segments })
}

/// Bytes of transport header that every datagram of a GSO packet has; `None`: not a kind we carry.
#[inline(always)]
#[must_use]
pub const fn transport_header(protocol: Protocol, tcp_data_offset: u8) -> Option<u32> {
    match protocol {
        Protocol::TCP => Some((tcp_data_offset >> 4) as u32 * 4),
        Protocol::UDP => Some(8),
        _ => None,
    }
}
