//! Targets for fuzzing: ordinary functions over bytes. None may panic, and each asserts that what
//! went in was counted exactly once: as passed, as dropped, or (ICMP) as taken in.
//!
//! The first byte of the input says how to call; the rest is the datagram. Its header checksums are
//! made right where the first byte says so, because no mutation finds them by chance.

use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_wire::checksum;
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{self, Ipv6Packet, is_ipv6};
use adit_wire::{Protocol, Validation, fragment};

use crate::icmp_reply::{MAX_REPLY_LEN, Reply};
use crate::{
    Counters, Decapsulated, Encapsulated, Inner, Instant, Origin, Outer, Peer, PeerSet, ProbeOptions, Totals,
    Tunnel, TunnelConfig, UnderlayIcmp,
};

const FIX_CHECKSUMS: u8 = 1;
const NO_DF: u8 = 2;
const SUPERPACKET: u8 = 4;
const FORWARDED: u8 = 8;
const OVER_IPV6: u8 = 16;

/// The two-site network seen from A, with a third site, over either underlay.
fn tunnel(how: u8) -> Option<Tunnel> {
    let underlay = |last: u8| -> IpAddr {
        if how & OVER_IPV6 == 0 {
            Ipv4Addr::new(10, 1, 1, last).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last.into()).into()
        }
    };
    let peer = |name: &str, last: u8, networks: [&str; 2]| {
        let [v4, v6] = networks;
        Some(Peer {
            name: name.parse().ok()?,
            underlay: underlay(last).into(),
            networks: vec![v4.parse().ok()?, v6.parse().ok()?],
            path: adit_peers::PathOptions::default(),
        })
    };
    let inside: IpAddr = if how & OVER_IPV6 == 0 {
        Ipv4Addr::new(172, 16, 17, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1).into()
    };
    let underlay = underlay(1);
    let mut peers = PeerSet::new(
        Some(underlay.into()),
        ["172.16.17.0/24".parse().ok()?, "2001:db8:a::/48".parse().ok()?],
    )
    .ok()?;
    peers.insert(peer("b", 2, ["192.168.199.0/24", "2001:db8:b::/48"])?).ok()?;
    peers.insert(peer("c", 3, ["192.168.200.0/24", "2001:db8:c::/48"])?).ok()?;
    let ttl = if how & NO_DF == 0 { TtlPolicy::Fixed(64) } else { TtlPolicy::Inherit };
    Tunnel::new(TunnelConfig {
        underlay: underlay.into(),
        peers,
        outer: OuterPolicy { ttl, df: how & NO_DF == 0, ..OuterPolicy::default() },
        mss_clamp: true,
        relay: adit_peers::Relay::default(),
        mtu_floor: crate::DEFAULT_MTU_FLOOR,
        underlay_mtu: 1500,
        local_addresses: vec![inside],
        reachable_addresses: Vec::new(),
        probe: Some(ProbeOptions { sources: vec![inside], secret: RandomState::new(), keepalive: None }),
    })
    .ok()
}

/// Makes the header checksum of the datagram at `at` right, and of the one inside it. A header of
/// IPv6 has none.
fn fix_headers(bytes: &mut [u8], at: usize, depth: u8) {
    if bytes.get(at..).is_some_and(is_ipv6) {
        if depth > 0 {
            fix_headers(bytes, at + ipv6::HEADER_LEN, depth - 1);
        }
        return;
    }
    let Some(header_len) = bytes.get(at).map(|first| usize::from(first & 0xf) * 4) else { return };
    fix_checksum(bytes, at, at + header_len, 10);
    if depth > 0 {
        fix_headers(bytes, at + header_len, depth - 1);
    }
}

fn fix_checksum(bytes: &mut [u8], from: usize, to: usize, field: usize) {
    let Some(covered) = bytes.get_mut(from..to) else { return };
    let Some(old) = covered.get_mut(field..field + 2) else { return };
    old.fill(0);
    let right = checksum::checksum(covered).to_be_bytes();
    if let Some(field) = covered.get_mut(field..field + 2) {
        field.copy_from_slice(&right);
    }
}

fn input(bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (how, datagram) = bytes.split_first()?;
    Some((*how, datagram.to_vec()))
}

fn passed(totals: &Totals) -> (u64, u64) {
    totals.peers.iter().fold((0, 0), |(tx, rx), peer| (tx + peer.tx_packets, rx + peer.rx_packets))
}

/// [`Tunnel::encapsulate`]: passed or dropped, the outer header fits, and an answer is a valid
/// datagram.
pub fn encapsulate(bytes: &[u8]) {
    let Some((how, mut datagram)) = input(bytes) else { return };
    let Some(tunnel) = tunnel(how) else { return };
    if how & FIX_CHECKSUMS != 0 {
        fix_headers(&mut datagram, 0, 0);
    }
    let counters = tunnel.counters();
    let superpacket = how & SUPERPACKET != 0 && datagram.len() > 1000;
    let segments = if superpacket { 3 } else { 1 };
    let largest_datagram = if superpacket { 1000 } else { datagram.len() };
    let origin = if how & FORWARDED == 0 { Origin::Unknown } else { Origin::Forwarded };
    let inner = Inner { bytes: &datagram, largest_datagram, segments, origin };
    let verdict = tunnel.encapsulate(&inner, Instant::ZERO, &counters);
    let totals = Totals::sum([&counters]);
    let dropped = totals.dropped();
    match verdict {
        Encapsulated::Forward { outer, .. } => {
            assert_eq!((passed(&totals), dropped), ((u64::from(segments), 0), 0), "counted as passed, once");
            assert_outer(outer.as_bytes(), largest_datagram);
        }
        Encapsulated::Fragment { max_datagram, outer, .. } => {
            assert_eq!((passed(&totals), dropped), ((u64::from(segments), 0), 0), "counted as passed, once");
            assert!(max_datagram < largest_datagram, "it fits and needs no fragments");
            assert_outer(outer.as_bytes(), max_datagram);
            if let Ok(packet) = Ipv4Packet::parse(&datagram, Validation::Strict) {
                let pieces = fragment::fragments(&packet, max_datagram);
                assert!(pieces.into_iter().flatten().all(|piece| piece.len() <= max_datagram));
            }
        }
        Encapsulated::ForwardInFragments { max_datagram, outer, .. } => {
            assert_eq!((passed(&totals), dropped), ((u64::from(segments), 0), 0), "counted as passed, once");
            let len = outer.len() + largest_datagram;
            assert!(max_datagram < len && largest_datagram <= 1280, "it fits, or may be refused");
            assert!(!outer.dont_fragment() || how & OVER_IPV6 != 0);
            assert_outer(outer.as_bytes(), largest_datagram);
        }
        Encapsulated::Reply { reply, reason } => {
            assert!(totals.drops_of(reason) == dropped && dropped > 0, "counted for its reason alone");
            assert_eq!((passed(&totals), totals.icmp.sent), ((0, 0), 1));
            assert_reply(&reply, &datagram);
        }
        Encapsulated::Drop(reason) => {
            assert!(totals.drops_of(reason) == dropped && dropped > 0, "counted for its reason alone");
            assert_eq!((passed(&totals), totals.icmp.sent), ((0, 0), 0));
        }
    }
}

/// [`Tunnel::decapsulate`]: delivered (a valid datagram in range) or dropped.
pub fn decapsulate(bytes: &[u8]) {
    let Some((how, mut datagram)) = input(bytes) else { return };
    let Some(tunnel) = tunnel(how) else { return };
    if how & FIX_CHECKSUMS != 0 {
        fix_headers(&mut datagram, 0, 1);
    }
    let counters = tunnel.counters();
    let verdict = tunnel.decapsulate(&Outer::datagram(&datagram), Instant::ZERO, &counters);
    assert_ne!(verdict, Decapsulated::LeftToStack, "no policy covers a peer");
    let totals = Totals::sum([&counters]);
    match verdict {
        Decapsulated::LeftToStack => {}
        Decapsulated::Deliver { inner, .. } => {
            assert_eq!((passed(&totals), totals.dropped()), ((0, 1), 0), "counted as passed, once");
            let inner = datagram.get(inner).unwrap_or_default();
            let v4 = Ipv4Packet::parse(inner, Validation::Datapath);
            let v6 = Ipv6Packet::parse(inner, Validation::Datapath);
            assert!(
                v4.is_ok_and(|p| p.total_len() == inner.len() && p.ttl() > 0)
                    || v6.is_ok_and(|p| p.total_len() == inner.len() && p.hop_limit() > 0),
                "delivered what is none"
            );
        }
        // The rest of an answer in fragments; nobody guesses a token.
        Decapsulated::Answer { .. } => {
            assert_eq!((passed(&totals), totals.dropped(), totals.probes.answered), ((0, 0), 0, 0));
        }
        Decapsulated::Unanswerable { .. } => {
            assert_eq!((passed(&totals), totals.dropped(), totals.probes.received), ((0, 0), 0, 1));
        }
        Decapsulated::Drop(reason) => {
            assert_eq!((totals.drops_of(reason), totals.dropped()), (1, 1), "counted for its reason, once");
            assert_eq!(passed(&totals), (0, 0), "dropped and passed");
        }
        Decapsulated::NotOurs => {
            assert!(is_ipv6(&datagram), "there is no other overlay");
            assert_eq!((totals.dropped(), passed(&totals)), (0, (0, 0)));
        }
    }
}

/// [`Tunnel::on_underlay_icmp`]: relayed, taken in, not ours, or dropped; the path MTU stays within
/// bounds.
pub fn on_underlay_icmp(bytes: &[u8]) {
    let Some((how, mut datagram)) = input(bytes) else { return };
    let Some(tunnel) = tunnel(how) else { return };
    if how & FIX_CHECKSUMS != 0 {
        fix_headers(&mut datagram, 0, 0);
        fix_icmp(&mut datagram);
    }
    let counters = tunnel.counters();
    let verdict = tunnel.on_underlay_icmp(&datagram, Instant::ZERO, &counters);
    let totals = Totals::sum([&counters]);
    let icmp = (totals.icmp.relayed, totals.icmp.state_changed, totals.icmp.not_ours, totals.dropped());
    match verdict {
        UnderlayIcmp::Relay { reply, offending, .. } => {
            assert_eq!(icmp, (1, 0, 0, 0));
            let quoted = datagram.get(offending).unwrap_or_default();
            assert!(quoted.len() >= 20, "relayed without a header to quote");
            assert_reply(&reply, quoted);
        }
        UnderlayIcmp::StateChanged { .. } => assert_eq!(icmp, (0, 1, 0, 0)),
        UnderlayIcmp::Doubtful { .. } => assert_eq!(icmp, (0, 0, 0, 0)),
        UnderlayIcmp::AboutProbe { .. } => {
            assert_eq!(icmp, (0, 0, 0, 1), "no probe was sent");
        }
        UnderlayIcmp::NotOurs => assert_eq!(icmp, (0, 0, 1, 0)),
        UnderlayIcmp::Ignored(reason) => {
            assert_eq!(icmp, (0, 0, 0, 1));
            assert_eq!(totals.drops_of(reason), 1, "counted for its reason");
        }
    }
    for (peer, _) in tunnel.peers() {
        let mtu = tunnel.path_mtu(peer).mtu;
        assert!((crate::PATH_MTU_FLOOR..=1500).contains(&mtu), "path MTU {mtu}");
    }
    assert_eq!(passed(&Totals::sum([&counters] as [&Counters; 1])), (0, 0));
}

/// Makes the checksum of an ICMP message right.
fn fix_icmp(packet: &mut [u8]) {
    let len = packet.len();
    let header = Ipv6Packet::parse(packet, Validation::Lenient).ok();
    let Some((source, destination)) = header.map(|header| (header.source(), header.destination())) else {
        let header_len = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
        fix_checksum(packet, header_len, len, 2);
        return;
    };
    let Some(message) = packet.get_mut(ipv6::HEADER_LEN..) else { return };
    let Some(field) = message.get_mut(2..4) else { return };
    field.fill(0);
    let pseudo = checksum::pseudo_header_v6(source, destination, Protocol::ICMPV6, message.len() as u32);
    let right = pseudo.add_bytes(message).checksum().to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&right);
    }
}

fn assert_outer(header: &[u8], inner_len: usize) {
    let found = if is_ipv6(header) {
        Ipv6Packet::parse(header, Validation::Lenient).ok().map(|outer| outer.total_len())
    } else {
        Ipv4Packet::parse(header, Validation::Lenient).ok().map(|outer| outer.total_len())
    };
    assert!(
        found.is_some_and(|len| len == inner_len + header.len() && len <= 1500),
        "an outer header that does not fit: {header:02x?}"
    );
}

fn assert_reply(reply: &Reply, offending: &[u8]) {
    let mut out = [0; MAX_REPLY_LEN];
    let len = reply.write(offending, &mut out);
    let written = out.get(..len).unwrap_or_default();
    let destination = match reply {
        Reply::V4 { .. } => {
            Ipv4Packet::parse(written, Validation::Strict).ok().map(|packet| packet.destination().into())
        }
        Reply::V6 { .. } => {
            Ipv6Packet::parse(written, Validation::Strict).ok().map(|packet| packet.destination().into())
        }
    };
    assert_eq!(destination, Some(reply.destination()), "a reply that is no datagram");
}
