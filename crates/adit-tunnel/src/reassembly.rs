//! Reassembly of outer fragments of IPv6 (RFC 8200 section 4.5). The kernel reassembles those of
//! IPv4 for a packet socket, and not these.
//!
//! A peer sends a packet of IPv6 of at most 1280 bytes in fragments if its path takes less (RFC
//! 2473 section 7.1). Fragments that overlap end their packet (RFC 5722), and so does one that does
//! not fit the others.

use std::net::Ipv6Addr;
use std::time::Duration;

use adit_wire::Protocol;
use adit_wire::Validation;
use adit_wire::ecn::Ecn;
use adit_wire::ipv6::{self, HEADER_LEN, Ipv6Packet, MAX_PAYLOAD_LEN, extension};

use crate::time::Instant;

/// Packets that wait for fragments at once; the oldest goes when one more begins.
const MAX_PACKETS: usize = 32;
/// Fragments of one packet.
const MAX_FRAGMENTS: usize = 64;
/// How long a packet waits for its fragments.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(60);

/// Outer packets of IPv6 whose fragments have arrived in part.
///
/// It allocates while it grows to what a peer sends, at most the largest packet for each of 32, and
/// then no more.
#[derive(Debug, Default)]
pub struct Reassembler {
    packets: Vec<Pending>,
}

/// What a fragment did.
#[derive(Debug, PartialEq, Eq)]
pub enum Reassembly<'a> {
    /// The packet is complete.
    Whole(&'a mut [u8]),
    /// Others are missing.
    Waiting,
    /// It is malformed, or does not fit the others of its packet, all of which are dropped.
    Refused,
}

/// One packet.
#[derive(Debug)]
struct Pending {
    /// Source, destination, identification; `None`: the place is free.
    key: Option<(Ipv6Addr, Ipv6Addr, u32)>,
    since: Instant,
    /// Ends of the received parts of the payload, sorted, which do not touch each other.
    parts: Vec<(u16, u16)>,
    /// Bytes of the payload, from the last fragment.
    len: Option<u16>,
    /// Whether the first fragment has come, whose header is that of the packet.
    has_first: bool,
    /// Fragments have overlapped: those that come later are dropped too.
    is_refused: bool,
    fragments: usize,
    /// A fragment has met congestion, and one whose sender does not react to it.
    has_ce: bool,
    has_not_ect: bool,
    bytes: Vec<u8>,
}

/// Whether an outer packet is a fragment of IPv6. Linux puts the fragment header behind the
/// destination options with an encapsulation limit.
#[inline]
#[must_use]
pub fn is_fragment_v6(outer: &[u8]) -> bool {
    const FRAGMENT: Option<&u8> = Some(&Protocol::FRAGMENT.0);
    let next_header = outer.get(6).filter(|_| ipv6::is_ipv6(outer));
    let is_behind_options = next_header == Some(&Protocol::DESTINATION_OPTIONS.0);
    next_header == FRAGMENT || is_behind_options && outer.get(HEADER_LEN) == FRAGMENT
}

impl Reassembler {
    /// Takes a fragment, from the outer header on.
    pub fn take(&mut self, fragment: &[u8], now: Instant) -> Reassembly<'_> {
        let Some(found) = Fragment::read(fragment) else { return Reassembly::Refused };
        let place = self.place_of(found.key, now);
        let Some(pending) = self.packets.get_mut(place) else { return Reassembly::Refused };
        if pending.is_refused {
            return Reassembly::Refused;
        }
        if pending.add(&found).is_none() {
            pending.is_refused = true;
            return Reassembly::Refused;
        }
        match pending.finish() {
            Finish::Waiting => Reassembly::Waiting,
            Finish::Refused => Reassembly::Refused,
            Finish::Whole => Reassembly::Whole(&mut pending.bytes),
        }
    }

    /// The place of a packet: its own, a free one, or that of the oldest.
    fn place_of(&mut self, key: (Ipv6Addr, Ipv6Addr, u32), now: Instant) -> usize {
        for pending in &mut self.packets {
            if now.since(pending.since) >= REASSEMBLY_TIMEOUT {
                pending.key = None;
            }
        }
        if let Some(own) = self.packets.iter().position(|pending| pending.key == Some(key)) {
            return own;
        }
        let free = self.packets.iter().position(|pending| pending.key.is_none());
        let place = free.unwrap_or_else(|| {
            if self.packets.len() < MAX_PACKETS {
                self.packets.push(Pending::FREE);
                return self.packets.len() - 1;
            }
            let ages = self.packets.iter().enumerate();
            ages.min_by_key(|(_, pending)| pending.since).map_or(0, |(place, _)| place)
        });
        if let Some(pending) = self.packets.get_mut(place) {
            pending.begin(key, now);
        }
        place
    }
}

/// A fragment that is well formed.
struct Fragment<'a> {
    key: (Ipv6Addr, Ipv6Addr, u32),
    /// The header, and what the payload begins with.
    header: &'a [u8],
    next_header: Protocol,
    ecn: Ecn,
    offset: u16,
    payload: &'a [u8],
    is_last: bool,
}

impl<'a> Fragment<'a> {
    fn read(bytes: &'a [u8]) -> Option<Fragment<'a>> {
        let packet = Ipv6Packet::parse(bytes, Validation::Datapath).ok()?;
        // Options before the fragment header say nothing to the exit of a tunnel, and go.
        let upper = extension::walk_options(packet.as_bytes(), packet.next_header())?;
        let (fragment, payload) = (upper.fragment?, packet.as_bytes().get(upper.offset..)?);
        let is_last = !fragment.more_fragments();
        let is_whole_words = payload.len() % 8 == 0 && !payload.is_empty();
        let end = usize::from(fragment.offset()) + payload.len();
        let is_good = (is_last || is_whole_words) && end <= MAX_PAYLOAD_LEN;
        is_good.then_some(Fragment {
            key: (packet.source(), packet.destination(), fragment.identification()),
            header: packet.as_bytes().get(..HEADER_LEN)?,
            next_header: fragment.next_header(),
            ecn: packet.ecn(),
            offset: fragment.offset(),
            payload,
            is_last,
        })
    }
}

enum Finish {
    Waiting,
    Refused,
    Whole,
}

impl Pending {
    const FREE: Pending = Pending {
        key: None,
        since: Instant::ZERO,
        parts: Vec::new(),
        len: None,
        has_first: false,
        is_refused: false,
        fragments: 0,
        has_ce: false,
        has_not_ect: false,
        bytes: Vec::new(),
    };

    fn begin(&mut self, key: (Ipv6Addr, Ipv6Addr, u32), now: Instant) {
        self.parts.clear();
        self.bytes.clear();
        self.bytes.resize(HEADER_LEN, 0);
        *self = Pending {
            key: Some(key),
            since: now,
            parts: std::mem::take(&mut self.parts),
            bytes: std::mem::take(&mut self.bytes),
            ..Pending::FREE
        };
    }

    /// Adds a fragment; `None`: it does not fit the others.
    fn add(&mut self, fragment: &Fragment<'_>) -> Option<()> {
        let (start, end) = (fragment.offset, fragment.offset + fragment.payload.len() as u16);
        self.fragments += 1;
        let overlaps = self.parts.iter().any(|&(from, to)| start < to && from < end);
        let is_beyond = self.len.is_some_and(|len| end > len);
        let is_short = fragment.is_last && self.parts.iter().any(|&(_, to)| to > end);
        let is_second_last = fragment.is_last && self.len.is_some();
        if overlaps || is_beyond || is_short || is_second_last || self.fragments > MAX_FRAGMENTS {
            return None;
        }
        if fragment.is_last {
            self.len = Some(end);
        }
        let range = HEADER_LEN + usize::from(start)..HEADER_LEN + usize::from(end);
        if self.bytes.len() < range.end {
            self.bytes.resize(range.end, 0);
        }
        self.bytes.get_mut(range)?.copy_from_slice(fragment.payload);
        if start == 0 {
            self.has_first = true;
            let header = self.bytes.get_mut(..HEADER_LEN)?;
            header.copy_from_slice(fragment.header);
            *header.get_mut(6)? = fragment.next_header.0;
        }
        self.has_ce |= fragment.ecn == Ecn::Ce;
        self.has_not_ect |= fragment.ecn == Ecn::NotEct;
        if start < end {
            self.parts.push((start, end));
        }
        Some(())
    }

    /// Completes the headers once no part is missing. Parts do not overlap, so their lengths say
    /// so.
    fn finish(&mut self) -> Finish {
        let Some(len) = self.len.filter(|_| self.has_first) else { return Finish::Waiting };
        let received: usize = self.parts.iter().map(|(from, to)| usize::from(to - from)).sum();
        if received < usize::from(len) {
            return Finish::Waiting;
        }
        self.key = None;
        // RFC 3168 section 5.3.
        if self.has_ce && self.has_not_ect {
            return Finish::Refused;
        }
        if self.has_ce {
            let _ = ipv6::set_ecn(&mut self.bytes, Ecn::Ce);
        }
        let _ = ipv6::set_payload_len(&mut self.bytes, len);
        Finish::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_wire::ipv6::{FragmentsV6, Ipv6Repr};
    use proptest::prelude::*;

    fn packet(len: u16) -> Vec<u8> {
        let repr = Ipv6Repr {
            source: "2001:db8::2".parse().expect("an address"),
            destination: "2001:db8::1".parse().expect("an address"),
            next_header: Protocol::IPV6,
            hop_limit: 64,
            traffic_class: 2,
            flow_label: 77,
            payload_len: len,
        };
        let payload = (0..len).map(|n| (n * 7 + 3) as u8);
        repr.emit().into_iter().chain(payload).collect()
    }

    fn pieces(packet: &[u8], max_len: usize, identification: u32) -> Vec<Vec<u8>> {
        let view = Ipv6Packet::parse(packet, Validation::Strict).expect("valid");
        let fragments = FragmentsV6::new(&view, max_len, identification).expect("room");
        fragments.map(|piece| [&piece.header[..], &packet[piece.payload]].concat()).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    proptest! {
        /// Fragments of several packets, in any order, give exactly those packets.
        #[test]
        fn fragments_in_any_order_give_the_packets(
            lens in proptest::collection::vec(1u16..3000, 1..6),
            max_len in 64usize..1500,
            seed in any::<u64>(),
        ) {
            let packets: Vec<Vec<u8>> = lens.iter().map(|len| packet(*len)).collect();
            let mut all: Vec<(usize, Vec<u8>)> = Vec::new();
            for (number, packet) in packets.iter().enumerate() {
                let pieces = pieces(packet, max_len, number as u32);
                prop_assert!(pieces.iter().all(|piece| piece.len() <= max_len));
                if pieces.len() <= MAX_FRAGMENTS {
                    all.extend(pieces.into_iter().map(|piece| (number, piece)));
                }
            }
            // A fixed shuffle by the seed.
            let mut state = seed | 1;
            for at in (1..all.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                all.swap(at, (state >> 33) as usize % (at + 1));
            }
            let mut left: Vec<usize> = packets.iter().enumerate()
                .map(|(number, _)| all.iter().filter(|(of, _)| *of == number).count()).collect();
            let mut reassembler = Reassembler::default();
            for (number, piece) in &all {
                left[*number] -= 1;
                match reassembler.take(piece, at(0)) {
                    Reassembly::Whole(whole) => {
                        prop_assert_eq!(&*whole, &packets[*number][..]);
                        prop_assert_eq!(left[*number], 0);
                    }
                    other => prop_assert!(other == Reassembly::Waiting && left[*number] > 0, "{:?}", other),
                }
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reassembler = Reassembler::default();
            let mut fragment = pieces(&packet(100), 96, 1).remove(0);
            let len = fragment.len();
            for (place, byte) in bytes.iter().enumerate() {
                fragment[(place * 13 + usize::from(*byte)) % len] = *byte;
                let _ = reassembler.take(&fragment, at(place as u64));
            }
        }
    }

    #[test]
    fn rfc5722_fragments_that_overlap_end_their_packet() {
        let packet = packet(200);
        let mut reassembler = Reassembler::default();
        let first = pieces(&packet, 96 + 8, 5);
        let other = pieces(&packet, 96, 5);
        assert_eq!(reassembler.take(&first[0], at(0)), Reassembly::Waiting);
        assert_eq!(reassembler.take(&other[1], at(0)), Reassembly::Refused);
        for piece in &first[1..] {
            assert_eq!(reassembler.take(piece, at(1)), Reassembly::Refused, "the packet is lost");
        }
        assert_eq!(reassembler.take(&first[0], at(61)), Reassembly::Waiting, "forgotten after a minute");
    }

    #[test]
    fn a_repeated_or_a_second_last_fragment_ends_its_packet() {
        let packet = packet(200);
        let pieces = pieces(&packet, 96, 5);
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.take(&pieces[1], at(0)), Reassembly::Waiting);
        assert_eq!(reassembler.take(&pieces[1], at(0)), Reassembly::Refused);
        let mut early_end = pieces[1].clone();
        early_end[HEADER_LEN + 3] &= !1;
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.take(&pieces[3], at(0)), Reassembly::Waiting);
        assert_eq!(reassembler.take(&early_end, at(0)), Reassembly::Refused, "others are beyond it");
    }

    #[test]
    fn rfc6946_a_packet_in_one_fragment_is_whole_at_once() {
        let packet = packet(200);
        let pieces = pieces(&packet, 1500, 5);
        assert_eq!(pieces.len(), 1);
        assert_eq!(Reassembler::default().take(&pieces[0], at(0)), Reassembly::Whole(&mut packet.clone()));
    }

    /// As Linux's ip6tnl sends it.
    #[test]
    fn options_before_the_fragment_header_are_removed() {
        let packet = packet(200);
        let mut reassembler = Reassembler::default();
        let mut pieces = pieces(&packet, 150, 5).into_iter().map(|mut piece| {
            piece.splice(HEADER_LEN..HEADER_LEN, [Protocol::FRAGMENT.0, 0, 4, 1, 4, 1, 1, 0]);
            piece[6] = Protocol::DESTINATION_OPTIONS.0;
            let len = piece.len() - HEADER_LEN;
            ipv6::set_payload_len(&mut piece, len as u16).expect("a header");
            assert!(is_fragment_v6(&piece));
            piece
        });
        let last = pieces.next_back().expect("several");
        for piece in pieces {
            assert_eq!(reassembler.take(&piece, at(0)), Reassembly::Waiting);
        }
        assert_eq!(reassembler.take(&last, at(0)), Reassembly::Whole(&mut packet.clone()));
        assert!(!is_fragment_v6(&packet));
    }

    #[test]
    fn rfc3168_s5_3_congestion_in_one_fragment_is_that_of_the_packet() {
        let packet = packet(200);
        let mut pieces = pieces(&packet, 150, 5);
        ipv6::set_ecn(&mut pieces[1], Ecn::Ce).expect("a header");
        let mut reassembler = Reassembler::default();
        for piece in &pieces[..pieces.len() - 1] {
            assert_eq!(reassembler.take(piece, at(0)), Reassembly::Waiting);
        }
        let mut expected = packet.clone();
        ipv6::set_ecn(&mut expected, Ecn::Ce).expect("a header");
        let last = pieces.len() - 1;
        assert_eq!(reassembler.take(&pieces[last], at(0)), Reassembly::Whole(&mut expected));
        ipv6::set_ecn(&mut pieces[0], Ecn::NotEct).expect("a header");
        for piece in &pieces[..last] {
            assert_eq!(reassembler.take(piece, at(0)), Reassembly::Waiting);
        }
        assert_eq!(reassembler.take(&pieces[last], at(0)), Reassembly::Refused);
    }

    #[test]
    fn the_oldest_packet_makes_room_and_a_minute_ends_the_others() {
        let packet = packet(200);
        let mut reassembler = Reassembler::default();
        let of = |identification| pieces(&packet, 150, identification);
        for identification in 0..=MAX_PACKETS as u32 {
            let now = at(u64::from(identification));
            assert_eq!(reassembler.take(&of(identification)[0], now), Reassembly::Waiting);
        }
        assert_eq!(reassembler.packets.len(), MAX_PACKETS);
        assert_eq!(reassembler.take(&of(0)[1], at(40)), Reassembly::Waiting, "its first fragment is gone");
        assert_eq!(reassembler.take(&of(2)[1], at(61)), Reassembly::Waiting, "not whole: three are needed");
        let last = of(2).len() - 1;
        assert_eq!(reassembler.take(&of(2)[last], at(70)), Reassembly::Waiting, "timed out");
    }
}
