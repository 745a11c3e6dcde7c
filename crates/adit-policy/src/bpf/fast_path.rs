//! The packets that the programs carry themselves: plain datagrams of both families, and GSO
//! packets. They leave everything else to userspace.

use adit_wire::Protocol;
use adit_wire::checksum;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};
use adit_wire::ipv6::{self, Ipv6Header};
use zerocopy::IntoBytes;

/// How the kernel will segment a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsoInfo {
    /// Payload bytes of each segment but the last; 0 if the packet is a single datagram.
    pub gso_size: u32,
    /// Bytes of the transport header, which every segment gets. Unused where `gso_size` is 0.
    pub transport_header: u32,
}

/// The size of a packet before and after segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsoShape {
    /// Bytes of the whole packet, IP header included.
    pub len: u32,
    /// Bytes of the largest datagram that it becomes on the wire.
    pub largest: u32,
    /// Number of datagrams that it becomes.
    pub segments: u32,
}

/// The shape of a packet that a program can carry, given its IPv4 header and the `available` bytes
/// from that header on. The header must have no options and a correct checksum, and its length must
/// fit.
///
/// `None` is not a drop: userspace takes the packet.
#[inline(always)]
pub fn gso_shape(header: &Ipv4Header, available: u32, gso: GsoInfo) -> Option<GsoShape> {
    let len = u32::from(header.total_len());
    let plain = header.version() == 4 && header.header_len() == HEADER_LEN;
    if !plain || len < HEADER_LEN as u32 || len > available {
        return None;
    }
    if checksum::checksum(header.as_bytes()) != 0 {
        return None;
    }
    shape(len, HEADER_LEN as u32, gso)
}

/// As [`gso_shape`], of IPv6. The header must be followed by no extension header, and its length
/// must fit.
#[inline(always)]
pub fn gso_shape_v6(header: &Ipv6Header, available: u32, gso: GsoInfo) -> Option<GsoShape> {
    let len = ipv6::HEADER_LEN as u32 + u32::from(header.payload_len());
    let has_extension = matches!(
        header.next_header(),
        Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION_OPTIONS | Protocol::FRAGMENT
    );
    if header.version() != 6 || has_extension || len > available {
        return None;
    }
    shape(len, ipv6::HEADER_LEN as u32, gso)
}

#[inline(always)]
fn shape(len: u32, header_len: u32, gso: GsoInfo) -> Option<GsoShape> {
    if gso.gso_size == 0 {
        return Some(GsoShape { len, largest: len, segments: 1 });
    }
    let headers = header_len + gso.transport_header;
    let payload = len.checked_sub(headers)?;
    let largest = (headers + gso.gso_size).min(len);
    let segments = payload.div_ceil(gso.gso_size).max(1);
    Some(GsoShape { len, largest, segments })
}

/// Bytes of the transport header that every segment of a GSO packet gets; `None` for a kind that
/// the programs do not carry.
#[inline(always)]
#[must_use]
pub const fn transport_header(protocol: Protocol, tcp_data_offset: u8) -> Option<u32> {
    match protocol {
        Protocol::TCP => Some((tcp_data_offset >> 4) as u32 * 4),
        Protocol::UDP => Some(8),
        _ => None,
    }
}
