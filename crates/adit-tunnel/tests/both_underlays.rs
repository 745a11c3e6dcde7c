//! Sites with an underlay address of each family: which path a peer takes, and what is accepted.

mod common;

use std::hash::RandomState;
use std::net::IpAddr;
use std::time::Duration;

use adit_tunnel::{
    Decapsulated, DropReason, Encapsulated, Path, PathOptions, Peer, PeerSet, ProbeOptions, Prober, Reply,
    Traffic, TunnelConfig, UnderlayAddresses, UnderlayIcmp,
};
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::ipv6::is_ipv6;
use common::*;

/// Addresses of the gateways of IPv6. Those of IPv4 are A, B and C.
const AT_A: &str = "2001:db8:ffff::1";
const AT_B: &str = "2001:db8:ffff::2";
const AT_C: &str = "2001:db8:ffff::3";

fn addresses(list: &[IpAddr]) -> UnderlayAddresses {
    UnderlayAddresses::new(list.iter().copied()).expect("of different families")
}

fn peer(name: &str, underlay: &[IpAddr], networks: [&str; 2]) -> Peer {
    Peer {
        name: name.parse().expect("a name"),
        underlay: addresses(underlay),
        networks: networks.map(|network| network.parse().expect("a network")).into(),
        path: PathOptions::default(),
    }
}

/// A site with these peers.
fn site(underlay: &[IpAddr], networks: [&str; 2], peers: &[Peer]) -> TunnelConfig {
    let underlay = addresses(underlay);
    let networks = networks.map(|network| network.parse().expect("a network"));
    let mut set = PeerSet::new(Some(underlay), networks).expect("no conflict");
    for peer in peers {
        set.insert(peer.clone()).expect("no conflict");
    }
    TunnelConfig { underlay, peers: set, local_addresses: Vec::new(), ..config() }
}

const IN_A: [&str; 2] = ["172.16.17.0/24", "2001:db8:a::/48"];
const IN_B: [&str; 2] = ["192.168.199.0/24", "2001:db8:b::/48"];
const IN_C: [&str; 2] = ["192.168.200.0/24", "2001:db8:c::/48"];

/// A, which sends to B over IPv6 and to C over IPv4.
fn a() -> TunnelConfig {
    let b = peer("b", &[v6(AT_B).into(), B.into()], IN_B);
    let c = peer("c", &[C.into(), v6(AT_C).into()], IN_C);
    site(&[A.into(), v6(AT_A).into()], IN_A, &[b, c])
}

/// B, which has its addresses in the other order, and sends to A over IPv4.
fn b() -> TunnelConfig {
    let a = peer("a", &[A.into(), v6(AT_A).into()], IN_A);
    site(&[B.into(), v6(AT_B).into()], IN_B, &[a])
}

/// An inner packet of each family from A's hosts to those of B, and to those of C.
fn to_b(len: usize) -> [Vec<u8>; 2] {
    [a_to_b().df(true).len(len).build(), packet_v6(A6, B6, len)]
}

fn to_c(len: usize) -> [Vec<u8>; 2] {
    [datagram(HOST_A, HOST_C).df(true).len(len).build(), packet_v6(A6, "2001:db8:c::9", len)]
}

#[test]
fn each_peer_is_sent_to_at_its_first_address_whose_family_is_ours() {
    let gateway = Gateway::new(a());
    let to_b = Path { source: v6(AT_A).into(), destination: v6(AT_B).into() };
    let to_c = Path { source: A.into(), destination: C.into() };
    assert_eq!(gateway.tunnel.paths().collect::<Vec<_>>(), [(PEER_B, to_b), (PEER_C, to_c)]);
    for inner in self::to_b(100) {
        assert!(is_ipv6(&gateway.outer(&inner)), "to B over IPv6");
    }
    for inner in self::to_c(100) {
        assert!(!is_ipv6(&gateway.outer(&inner)), "to C over IPv4");
    }
    let only_v4 = site(&[A.into()], IN_A, &[peer("b", &[v6(AT_B).into(), B.into()], IN_B)]);
    let only_v4 = Gateway::new(only_v4);
    for inner in self::to_b(100) {
        assert!(!is_ipv6(&only_v4.outer(&inner)), "a site without IPv6");
    }
}

#[test]
fn two_sites_hear_each_other_whatever_each_sends_over() {
    let (a, b) = (Gateway::new(a()), Gateway::new(b()));
    for inner in to_b(100) {
        let outer = a.outer(&inner);
        let arrived = b.decapsulate(&outer);
        let Decapsulated::Deliver { inner: range, .. } = arrived else { panic!("{arrived:?}") };
        assert!(is_ipv6(&outer) && outer[range] == inner);
    }
    for inner in [datagram(HOST_B, HOST_A).build(), packet_v6(B6, A6, 100)] {
        let outer = b.outer(&inner);
        let arrived = a.decapsulate(&outer);
        let Decapsulated::Deliver { peer, inner: range, .. } = arrived else { panic!("{arrived:?}") };
        assert!(!is_ipv6(&outer) && outer[range] == inner);
        assert_eq!(peer, PEER_B);
    }
    assert_eq!((a.drops(), b.drops()), (vec![], vec![]));
}

#[test]
fn the_other_address_of_a_peer_does_not_open_the_networks_of_another() {
    let a = Gateway::new(a());
    let forged = wrap(C, A, datagram(HOST_B, HOST_A).build()).build();
    assert_eq!(a.decapsulate(&forged), Decapsulated::Drop(DropReason::InnerSourceNotFromPeer));
    // Nor may the exit of the tunnel be the source of what enters it, at whichever address.
    for source in [B, C] {
        let entering = datagram(source, if source == B { HOST_B } else { HOST_C }).build();
        let refused = a.encapsulate(&entering);
        assert_eq!(refused, Encapsulated::Drop(DropReason::InnerSourceIsTunnelExit), "{source}");
    }
}

#[test]
fn each_path_has_the_room_that_its_own_header_leaves() {
    let gateway = Gateway::new(a());
    for (inner, fits, to) in
        [(to_b(1460), true, "B"), (to_b(1461), false, "B"), (to_c(1480), true, "C"), (to_c(1481), false, "C")]
    {
        for inner in inner {
            let passes = matches!(gateway.encapsulate(&inner), Encapsulated::Forward { .. });
            assert_eq!(passes, fits, "{} bytes to {to}", inner.len());
        }
    }
    // A SYN from B came over IPv4, and the answers go over IPv6: 1500 - 40 - 20 - 20.
    let outer = wrap(B, A, syn(HOST_B, HOST_A).build()).build();
    let arrived = gateway.decapsulate(&outer);
    let Decapsulated::Deliver { max_mss, .. } = arrived else { panic!("{arrived:?}") };
    assert_eq!(max_mss, Some(1420));
}

#[test]
fn a_router_s_error_concerns_the_path_in_use_only() {
    let gateway = Gateway::new(a());
    let [_, inner] = to_b(1460);
    let outer = gateway.outer(&inner);
    let mut out = [0; icmpv6::MAX_ERROR_LEN];
    let error = Icmpv6Error::TooBig { mtu: 1400 };
    let len = icmpv6::build_error(&mut out, v6("2001:db8:ffff:9::1"), v6(AT_A), error, &outer);
    let outcome = gateway.icmp(&out[..len]);
    let UnderlayIcmp::Relay { peer: PEER_B, reply: Reply::V6 { error, .. }, .. } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error, Icmpv6Error::TooBig { mtu: 1360 });
    assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, 1400);
    assert_eq!(gateway.tunnel.path_mtu(PEER_C).mtu, 1500);
    // Over IPv4 this site sends nothing to B.
    let unsent = wrap(A, B, a_to_b().df(true).len(1300).build()).build();
    let forged = icmp(Icmpv4Error::TooBig { mtu: 600 }, &unsent, 48);
    assert_eq!(gateway.icmp(&forged), UnderlayIcmp::Ignored(DropReason::IcmpUnbelievable));
    assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, 1400);
}

#[test]
fn the_floor_of_the_path_mtu_is_that_of_the_path_s_family() {
    let gateway = Gateway::new(a());
    for (inner, mtu, learned) in [(to_c(1480), 600, 600), (to_c(580), 300, 552)] {
        let outer = gateway.outer(&inner[0]);
        gateway.icmp(&icmp(Icmpv4Error::TooBig { mtu }, &outer, 48));
        assert_eq!(gateway.tunnel.path_mtu(PEER_C).mtu, learned, "told {mtu}");
    }
    assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, 1500);
}

#[test]
fn a_path_is_probed_from_an_address_of_its_family_or_not_at_all() {
    let inside: IpAddr = v6("2001:db8:a::1").into();
    for (sources, probed) in [
        (vec![GATEWAY_A.into(), inside], vec![v6(AT_B).into(), IpAddr::from(C)]),
        (vec![inside], vec![v6(AT_B).into()]),
        (vec![GATEWAY_A.into()], vec![C.into()]),
    ] {
        let probe = ProbeOptions { sources, secret: RandomState::new(), keepalive: None };
        let mut gateway = Gateway::new(TunnelConfig { probe: Some(probe), ..a() });
        let mut prober = Prober::new(&gateway.tunnel);
        let mut found = Vec::new();
        for sent in 0..200 {
            gateway.now = gateway.now.saturating_add(Duration::from_millis(20));
            let Gateway { tunnel, counters, now } = &gateway;
            prober.handle_timeout(tunnel, *now, counters, |_| Traffic { sent, last_rx: None });
            let mut out = vec![0; 65_535];
            while let Some(len) = prober.poll_transmit(tunnel, counters, &mut out) {
                let outer = destination_of(&out[..len]);
                if !found.contains(&outer) {
                    found.push(outer);
                }
            }
        }
        found.sort_by_key(|address: &IpAddr| !address.is_ipv6());
        assert_eq!(found, probed);
        // An error about a path that is not probed cannot be tested, so it is believed.
        let [inner, _] = to_c(1480);
        let outcome = gateway.icmp(&icmp(Icmpv4Error::TooBig { mtu: 1400 }, &gateway.outer(&inner), 48));
        let is_doubted = matches!(outcome, UnderlayIcmp::Doubtful { .. });
        assert_eq!(is_doubted, probed.contains(&C.into()), "{outcome:?}");
    }
}

/// The destination of an outer packet.
fn destination_of(outer: &[u8]) -> IpAddr {
    if is_ipv6(outer) {
        let octets: [u8; 16] = outer[24..40].try_into().expect("16 bytes");
        octets.into()
    } else {
        let octets: [u8; 4] = outer[16..20].try_into().expect("4 bytes");
        octets.into()
    }
}

#[test]
fn another_order_of_addresses_switches_the_path_and_forgets_nothing_of_the_others() {
    let gateway = Gateway::new(a());
    let [inner, _] = to_c(1480);
    gateway.icmp(&icmp(Icmpv4Error::TooBig { mtu: 1400 }, &gateway.outer(&inner), 48));
    let mut peers = gateway.tunnel.config().peers.clone();
    peers.remove(&"b".parse().expect("a name"));
    peers.insert(peer("b", &[B.into(), v6(AT_B).into()], IN_B)).expect("no conflict");
    let delta = gateway.tunnel.config().peers.delta_to(&peers);
    let (tunnel, steps) = gateway.tunnel.with_peers(&delta).expect("no conflict");
    let [(new, path)] = steps.added[..] else { panic!("{steps:?}") };
    assert_eq!(path, Path { source: A.into(), destination: B.into() });
    assert_eq!(steps.removed, [PEER_B]);
    // Both addresses lead to the new number from now on, and none is withdrawn.
    assert_eq!(steps.sources_assigned.iter().map(|(_, peer)| *peer).collect::<Vec<_>>(), [new; 2]);
    assert!(steps.sources_withdrawn.is_empty(), "{steps:?}");
    assert_eq!(tunnel.path_mtu(new).mtu, 1500);
    assert_eq!(tunnel.path_mtu(PEER_C).mtu, 1400);
    assert_eq!(tunnel.lookup_outer(v6(AT_B).into()), Some(new));
}
