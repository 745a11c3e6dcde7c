//! Fragmentation by the source, RFC 8200 section 4.5.
//!
//! A tunnel sends a packet in fragments only if the inner packet is one of IPv6 of at most 1280
//! bytes, which every path must carry (RFC 2473 section 7.1).
//!
//! ```text
//!  packet     | header | payload                                      |
//!
//!  first      | header | fragment header | payload, a multiple of 8 |
//!  last       | header | fragment header | rest of the payload |
//! ```

use core::ops::Range;

use zerocopy::byteorder::network_endian::{U16, U32};

use super::extension::FragmentHeader;
use super::{HEADER_LEN, Ipv6Header, Ipv6Packet, set_payload_len};
use crate::Protocol;

/// Bytes of a header and a fragment header.
pub const FRAGMENT_HEADERS_LEN: usize = HEADER_LEN + size_of::<FragmentHeader>();

/// One fragment: headers of its own, and a range of the original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentV6 {
    /// The header and the fragment header.
    pub header: [u8; FRAGMENT_HEADERS_LEN],
    /// The range of this fragment's payload in the bytes of the original packet.
    pub payload: Range<usize>,
}

/// An iterator over the fragments of a packet, in order.
#[derive(Debug, Clone)]
pub struct FragmentsV6 {
    header: Ipv6Header,
    identification: u32,
    /// Bytes of payload in every fragment but the last, a multiple of 8.
    room: usize,
    at: usize,
    end: usize,
}

impl FragmentsV6 {
    /// Fragments a packet so that no fragment is longer than `max_len` bytes, headers included.
    /// The packet must have no extension headers. `identification` must differ from those of
    /// other packets between the same hosts that may be on their way, and be hard to guess
    /// (RFC 7739).
    ///
    /// `None` if fewer than 8 bytes of payload fit behind the headers, or the packet was parsed
    /// leniently and is cut short.
    #[must_use]
    pub fn new(packet: &Ipv6Packet<'_>, max_len: usize, identification: u32) -> Option<FragmentsV6> {
        let room = max_len.checked_sub(FRAGMENT_HEADERS_LEN)? & !7;
        let end = packet.as_bytes().len();
        let is_possible = room > 0 && end == packet.total_len();
        let header = *packet.fixed_header();
        is_possible.then_some(FragmentsV6 { header, identification, room, at: HEADER_LEN, end })
    }
}

impl Iterator for FragmentsV6 {
    type Item = FragmentV6;

    fn next(&mut self) -> Option<FragmentV6> {
        if self.at >= self.end {
            return None;
        }
        let taken = self.room.min(self.end - self.at);
        let payload = self.at..self.at + taken;
        let offset = (self.at - HEADER_LEN) as u16;
        self.at += taken;
        let more_fragments = u16::from(self.at < self.end);
        let fragment = FragmentHeader {
            next_header: self.header.next_header,
            reserved: 0,
            offset_flags: U16::new(offset | more_fragments),
            identification: U32::new(self.identification),
        };
        let fixed = Ipv6Header { next_header: Protocol::FRAGMENT.0, ..self.header };
        let fixed: [u8; HEADER_LEN] = zerocopy::transmute!(fixed);
        let fragment: [u8; size_of::<FragmentHeader>()] = zerocopy::transmute!(fragment);
        let mut header = [0; FRAGMENT_HEADERS_LEN];
        header.iter_mut().zip(fixed.iter().chain(&fragment)).for_each(|(to, from)| *to = *from);
        set_payload_len(&mut header, (size_of::<FragmentHeader>() + taken) as u16)?;
        Some(FragmentV6 { header, payload })
    }
}
