//! A tunnel over IPv6: RFC 2473, with RFC 6040, RFC 6438 and RFC 8201.

mod common;

use std::collections::HashSet;
use std::hash::RandomState;
use std::time::Duration;

use adit_tunnel::{
    Claim, Decapsulated, DropReason, Encapsulated, LearnedBy, PathOptions, Peer, PeerIndex, PeerSet,
    ProbeOptions, Prober, Reachability, Reply, Traffic, TunnelConfig, UnderlayIcmp, UnreachableCause,
};
use adit_wire::ecn::Ecn;
use adit_wire::icmpv4::{EchoKind, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error, Icmpv6Message};
use adit_wire::ipv6::{self, Ipv6Packet, Ipv6Repr};
use adit_wire::{Protocol, Validation};
use common::*;
use proptest::prelude::*;

const US: &str = "2001:db8:ffff::1";
const PEER: &str = "2001:db8:ffff::2";
const FAR_ROUTER: &str = "2001:db8:ffff:9::1";

/// The sites of `ipv6.rs`, over an underlay of IPv6.
fn over_v6() -> TunnelConfig {
    let parse = |network: &str| network.parse().expect("a network");
    let mut peers = PeerSet::new(Some(v6(US).into()), ["172.16.17.0/24", "2001:db8:a::/48"].map(parse))
        .expect("no conflict");
    for (name, underlay, networks) in [
        ("b", PEER, ["192.168.199.0/24", "2001:db8:b::/48"]),
        ("c", "2001:db8:ffff::3", ["192.168.200.0/24", "2001:db8:c::/48"]),
    ] {
        let (name, networks) = (name.parse().expect("a name"), networks.map(parse).into());
        let peer = Peer { name, underlay: v6(underlay).into(), networks, path: PathOptions::default() };
        peers.insert(peer).expect("no conflict");
    }
    TunnelConfig { underlay: v6(US).into(), peers, ..config() }
}

fn gateway() -> Gateway {
    Gateway::new(over_v6())
}

/// What follows an outer header from B to us; `between`: extension headers.
fn from_b_with(protocol: Protocol, between: &[u8], inner: &[u8], class: u8) -> Vec<u8> {
    let repr = Ipv6Repr {
        source: v6(PEER),
        destination: v6(US),
        next_header: protocol,
        hop_limit: 60,
        traffic_class: class,
        flow_label: 5,
        payload_len: (between.len() + inner.len()) as u16,
    };
    [&repr.emit()[..], between, inner].concat()
}

fn from_b(inner: &[u8]) -> Vec<u8> {
    from_b_with(if inner[0] >> 4 == 6 { Protocol::IPV6 } else { Protocol::IPIP }, &[], inner, 0)
}

#[test]
fn rfc2473_s3_1_the_outer_header_says_what_is_inside() {
    for (inner, protocol) in
        [(a_to_b().tos(0xb9).build(), 4), (packet_v6_with(A6, B6, 100, |repr| repr.traffic_class = 0xb9), 41)]
    {
        let outer = gateway().outer(&inner);
        let header = Ipv6Packet::parse(&outer, Validation::Strict).expect("a packet");
        assert_eq!((header.source(), header.destination()), (v6(US), v6(PEER)));
        assert_eq!((header.next_header(), header.hop_limit()), (Protocol(protocol), 64));
        assert_eq!((header.traffic_class(), header.payload()), (0xb9, &inner[..]));
        assert_ne!(header.flow_label(), 0);
    }
}

#[test]
fn rfc6438_s3_a_flow_has_one_label_and_others_have_others() {
    let gateway = gateway();
    let label = |inner: &[u8]| {
        let outer = gateway.outer(inner);
        Ipv6Packet::parse(&outer, Validation::Strict).expect("a packet").flow_label()
    };
    let to_port = |port: u8, len| {
        let mut inner = packet_v6(A6, B6, len);
        inner[40..44].copy_from_slice(&[9, 9, 0, port]);
        inner
    };
    assert_eq!(label(&to_port(1, 100)), label(&to_port(1, 900)));
    let labels: HashSet<u32> = (0..200).map(|port| label(&to_port(port, 100))).collect();
    assert!(labels.len() > 195, "only {} labels for 200 flows", labels.len());
    // The pieces of a datagram stay together: only the first one has ports.
    let piece = |at: &[u8]| rewrite(a_to_b().build(), 6, at);
    assert_eq!(label(&piece(&[0x20, 0])), label(&piece(&[0, 9])));
    assert_ne!(label(&a_to_b().build()), label(&datagram(HOST_A, [192, 168, 199, 77].into()).build()));
}

#[test]
fn rfc2473_s4_1_1_a_packet_with_a_limit_is_encapsulated_that_often() {
    // Destination options with this limit, behind hop-by-hop options or not.
    let with_limit = |limit: u8, is_behind: bool| {
        let next = if is_behind { Protocol::HOP_BY_HOP } else { Protocol::DESTINATION_OPTIONS };
        let mut inner = packet_v6_with(A6, B6, 100, |repr| repr.next_header = next);
        let at = if is_behind { 48 } else { 40 };
        if is_behind {
            inner[40..48].copy_from_slice(&[Protocol::DESTINATION_OPTIONS.0, 0, 1, 4, 0, 0, 0, 0]);
        }
        inner[at..at + 8].copy_from_slice(&[Protocol::UDP.0, 0, 4, 1, limit, 1, 1, 0]);
        inner
    };
    for (is_behind, pointer) in [(false, 44), (true, 52)] {
        let refused = gateway().encapsulate(&with_limit(0, is_behind));
        let Encapsulated::Reply { reply: Reply::V6 { error, .. }, reason } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(error, Icmpv6Error::ParameterProblem { code: 0, pointer });
        assert_eq!(reason, DropReason::EncapsulationLimit);
        for limit in [1, 4, 255] {
            let inner = with_limit(limit, is_behind);
            let outer = gateway().outer(&inner);
            let header = Ipv6Packet::parse(&outer, Validation::Strict).expect("a packet");
            assert_eq!(header.next_header(), Protocol::DESTINATION_OPTIONS);
            assert_eq!(outer[40..48], [41, 0, 4, 1, limit - 1, 1, 1, 0]);
            assert_eq!(outer[48..], inner);
            let delivered = far_gateway().decapsulate(&outer);
            assert!(matches!(delivered, Decapsulated::Deliver { inner: range, .. } if range == (48..148)));
        }
    }
    // The options take 8 bytes of the path.
    let mut large = packet_v6_with(A6, B6, 1453, |repr| repr.next_header = Protocol::DESTINATION_OPTIONS);
    large[40..48].copy_from_slice(&[Protocol::UDP.0, 0, 4, 1, 9, 1, 1, 0]);
    let refused = gateway().encapsulate(&large);
    let told = Icmpv6Error::TooBig { mtu: 1452 };
    assert!(matches!(refused, Encapsulated::Reply { reply: Reply::V6 { error, .. }, .. } if error == told));
    // On an underlay of IPv4 the option says nothing.
    let over_v4 = Gateway::new(TunnelConfig { underlay: A.into(), peers: both_over_v4(), ..config() });
    assert!(matches!(over_v4.encapsulate(&with_limit(0, false)), Encapsulated::Forward { .. }));
}

/// The sites of `ipv6.rs`.
fn both_over_v4() -> PeerSet {
    let parse = |network: &str| network.parse().expect("a network");
    let mut peers = PeerSet::new(Some(A.into()), ["2001:db8:a::/48"].map(parse)).expect("no conflict");
    let (name, networks) = ("b".parse().expect("a name"), vec![parse("2001:db8:b::/48")]);
    let peer = Peer { name, underlay: B.into(), networks, path: PathOptions::default() };
    peers.insert(peer).expect("no conflict");
    peers
}

/// The table of RFC 2473 section 7: what leaves in one piece, what leaves in outer fragments, and
/// what its sender is told.
#[test]
fn rfc2473_s7_1_a_packet_of_up_to_1280_bytes_is_carried_whatever_the_path_leaves() {
    for (underlay_mtu, len, expected) in [
        (1500, 1460, Ok(true)),
        (1500, 1461, Err(1460)),
        (1320, 1280, Ok(true)),
        (1320, 1281, Err(1280)),
        (1319, 1279, Ok(true)),
        (1319, 1280, Ok(false)),
        (1319, 1281, Err(1280)),
        (1280, 1240, Ok(true)),
        (1280, 1241, Ok(false)),
        (1280, 1280, Ok(false)),
        (1280, 1281, Err(1280)),
    ] {
        let gateway = Gateway::new(TunnelConfig { underlay_mtu, ..over_v6() });
        let what = format!("{len} bytes over an MTU of {underlay_mtu}");
        match (gateway.encapsulate(&packet_v6(A6, B6, len)), expected) {
            (Encapsulated::Forward { .. }, Ok(true)) => {}
            (Encapsulated::ForwardInFragments { max_datagram, .. }, Ok(false)) => {
                assert_eq!(max_datagram, usize::from(underlay_mtu), "{what}");
            }
            (Encapsulated::Reply { reply: Reply::V6 { error, .. }, reason }, Err(mtu)) => {
                assert_eq!((error, reason), (Icmpv6Error::TooBig { mtu }, DropReason::InnerTooBig), "{what}");
            }
            (found, _) => panic!("{what}: {found:?}"),
        }
    }
}

#[test]
fn rfc2473_s7_2_an_ipv4_datagram_is_cut_inside_or_its_sender_is_told() {
    for (underlay_mtu, max) in [(1500, 1460), (1280, 1240)] {
        let gateway = Gateway::new(TunnelConfig { underlay_mtu, ..over_v6() });
        let fits = gateway.encapsulate(&a_to_b().df(true).len(max).build());
        assert!(matches!(fits, Encapsulated::Forward { .. }), "{fits:?}");
        let told = gateway.encapsulate(&a_to_b().df(true).len(max + 1).build());
        let Encapsulated::Reply { reply, .. } = told else { panic!("{told:?}") };
        assert_eq!(of_v4(&reply), (HOST_A, Icmpv4Error::TooBig { mtu: max as u16 }));
        let cut = gateway.encapsulate(&a_to_b().len(max + 1).build());
        let Encapsulated::Fragment { max_datagram, outer, .. } = cut else { panic!("{cut:?}") };
        assert_eq!((max_datagram, outer.len()), (max, 40));
    }
}

#[test]
fn rfc2473_s3_2_a_packet_from_a_peer_is_delivered_unchanged() {
    // A limit of 4 and one padding option, as Linux's ip6tnl writes them.
    let limit = [0, 0, 4, 1, 4, 1, 1, 0];
    for inner in [datagram(HOST_B, HOST_A).build(), packet_v6(B6, A6, 900)] {
        let protocol = if inner[0] >> 4 == 6 { 41 } else { 4 };
        let mut options = limit;
        options[0] = protocol;
        let gateway = gateway();
        for outer in [from_b(&inner), from_b_with(Protocol::DESTINATION_OPTIONS, &options, &inner, 0)] {
            let Decapsulated::Deliver { peer, inner: range, .. } = gateway.decapsulate(&outer) else {
                panic!("{:?}", gateway.decapsulate(&outer))
            };
            assert_eq!((peer, &outer[range]), (PEER_B, &inner[..]));
        }
        let totals = gateway.totals();
        assert_eq!((totals.peers[0].rx_packets, totals.peers[0].rx_bytes), (2, 2 * inner.len() as u64));
    }
}

#[test]
fn what_is_not_from_a_peer_or_not_a_tunnel_s_is_refused() {
    let gateway = gateway();
    let inner = packet_v6(B6, A6, 100);
    let with = |at: usize, bytes: &[u8]| {
        let mut outer = from_b(&inner);
        outer[at..at + bytes.len()].copy_from_slice(bytes);
        outer
    };
    let drop = Decapsulated::Drop;
    // Options that a node must know, one that is cut short, and a header that no tunnel writes.
    let unknown = from_b_with(Protocol::DESTINATION_OPTIONS, &[41, 0, 0x45, 4, 0, 0, 0, 0], &inner, 0);
    let cut = from_b_with(Protocol::DESTINATION_OPTIONS, &[41, 0, 4, 9, 0, 0, 0, 0], &inner, 0);
    let routing = from_b_with(Protocol::ROUTING, &[41, 0, 0, 0, 0, 0, 0, 0], &inner, 0);
    for (outer, expected) in [
        (with(23, &[7]), drop(DropReason::OuterSourceUnknown)),
        (with(39, &[7]), drop(DropReason::OuterDestinationNotOurs)),
        (with(6, &[17]), Decapsulated::NotOurs),
        (with(6, &[58]), Decapsulated::NotOurs),
        (from_b(&inner)[..139].to_vec(), drop(DropReason::OuterMalformed)),
        (from_b(&inner)[..39].to_vec(), drop(DropReason::OuterMalformed)),
        (unknown, drop(DropReason::OuterMalformed)),
        (cut, drop(DropReason::OuterMalformed)),
        (routing, drop(DropReason::OuterMalformed)),
        (
            from_b_with(Protocol::FRAGMENT, &[41, 0, 0, 1, 0, 0, 0, 7], &inner, 0),
            drop(DropReason::OuterFragment),
        ),
        (from_b_with(Protocol::FRAGMENT, &[17, 0, 0, 1, 0, 0, 0, 7], &inner, 0), Decapsulated::NotOurs),
        (from_b_with(Protocol::IPIP, &[], &packet_v6(B6, A6, 100), 0), drop(DropReason::DecapInnerNotIpv4)),
        (
            from_b_with(Protocol::IPV6, &[], &datagram(HOST_B, HOST_A).build(), 0),
            drop(DropReason::DecapInnerMalformed),
        ),
        // A tunnel over IPv4 would take it.
        (datagram(B, A).protocol(Protocol::IPV6).payload(inner.clone()).build(), {
            drop(DropReason::OuterDestinationNotOurs)
        }),
    ] {
        assert_eq!(gateway.decapsulate(&outer), expected, "{outer:02x?}");
    }
}

/// ICMPv6 between gateways, by their underlay addresses.
#[test]
fn gateways_send_each_other_echoes_and_errors_and_nothing_else() {
    let gateway = gateway();
    let icmp = |source, destination, kind: u8| {
        let mut packet = packet_v6_with(source, destination, 100, |repr| repr.next_header = Protocol::ICMPV6);
        packet[40] = kind;
        packet
    };
    let delivers = |inner: &[u8]| matches!(gateway.decapsulate(&from_b(inner)), Decapsulated::Deliver { .. });
    for (kind, from_gateway, to_gateway) in [
        (1, true, true),
        (2, true, true),
        (128, false, true),
        (129, false, true),
        (135, false, false),
        (134, false, false),
    ] {
        assert_eq!(delivers(&icmp(PEER, A6, kind)), from_gateway, "type {kind} from the peer's gateway");
        assert_eq!(delivers(&icmp(B6, US, kind)), to_gateway, "type {kind} to our gateway");
    }
    assert!(!delivers(&packet_v6(B6, US, 100)), "no UDP");
    let answers = |kind| matches!(gateway.encapsulate(&icmp(US, B6, kind)), Encapsulated::Forward { .. });
    assert_eq!([1, 129, 128, 135].map(answers), [true, true, false, false]);
}

#[test]
fn rfc2473_s4_1_the_tunnel_does_not_encapsulate_itself() {
    let gateway = gateway();
    let nested = |source, destination| {
        packet_v6_with(source, destination, 100, |repr| repr.next_header = Protocol::IPV6)
    };
    let dropped = Encapsulated::Drop(DropReason::NestedEncapsulation);
    assert_eq!(gateway.encapsulate(&nested(US, B6)), dropped);
    assert_eq!(gateway.encapsulate(&nested(A6, PEER)), dropped);
    let from_exit = gateway.encapsulate(&packet_v6(PEER, B6, 100));
    assert_eq!(from_exit, Encapsulated::Drop(DropReason::InnerSourceIsTunnelExit));
    let inside = from_b(&nested(B6, US));
    assert_eq!(gateway.decapsulate(&inside), Decapsulated::Drop(DropReason::NestedToOurselves));
}

#[test]
fn rfc6040_s4_2_the_ecn_field_after_the_tunnel() {
    let ect0 = 2;
    for (outer, inner, expected) in
        [(3, ect0, Some(Some(Ecn::Ce))), (0, ect0, Some(None)), (3, 0, None), (3, 3, Some(None))]
    {
        for is_v6 in [false, true] {
            let packet = if is_v6 {
                packet_v6_with(B6, A6, 100, |repr| repr.traffic_class = inner)
            } else {
                datagram(HOST_B, HOST_A).tos(inner).build()
            };
            let protocol = if is_v6 { Protocol::IPV6 } else { Protocol::IPIP };
            let found = match gateway().decapsulate(&from_b_with(protocol, &[], &packet, outer)) {
                Decapsulated::Deliver { set_ecn, .. } => Some(set_ecn),
                Decapsulated::Drop(DropReason::EcnViolation) => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, expected, "{inner} in {outer}");
        }
    }
}

/// An error from a router about what the tunnel has sent.
fn told(error: Icmpv6Error, offending: &[u8]) -> Vec<u8> {
    let mut out = [0; icmpv6::MAX_ERROR_LEN];
    let len = icmpv6::build_error(&mut out, v6(FAR_ROUTER), v6(US), error, offending);
    out[..len].to_vec()
}

#[test]
fn rfc8201_s4_a_router_tells_the_path_mtu_down_to_1280() {
    for (mtu, learned) in [(1400, Some(1400)), (1280, Some(1280)), (1279, None), (0, None), (1500, None)] {
        for inner in [packet_v6(A6, B6, 1460), a_to_b().df(true).len(1460).build()] {
            let gateway = gateway();
            let message = told(Icmpv6Error::TooBig { mtu }, &gateway.outer(&inner));
            let outcome = gateway.icmp(&message);
            let path_mtu = gateway.tunnel.path_mtu(PEER_B);
            assert_eq!(path_mtu.learned.map(|_| path_mtu.mtu), learned, "{mtu}: {outcome:?}");
            let Some(learned) = learned else { continue };
            let UnderlayIcmp::Relay { reply, offending, .. } = outcome else { panic!("{outcome:?}") };
            assert!(inner.starts_with(&message[offending]));
            match reply {
                Reply::V4 { .. } => {
                    assert_eq!(of_v4(&reply), (HOST_A, Icmpv4Error::TooBig { mtu: learned - 40 }));
                }
                Reply::V6 { destination, error } => {
                    let mtu = u32::from(learned - 40).max(1280);
                    assert_eq!((destination, error), (v6(A6), Icmpv6Error::TooBig { mtu }));
                }
            }
        }
    }
}

#[test]
fn rfc2473_s8_what_an_error_says_of_the_peer() {
    use UnreachableCause::{Host, Network, Prohibited, Protocol, TimeExceeded};
    let unreachable = |code| Icmpv6Error::DestinationUnreachable { code };
    for (error, cause) in [
        (unreachable(0), Some(Network)),
        (unreachable(1), Some(Prohibited)),
        (unreachable(3), Some(Host)),
        (unreachable(4), None),
        (unreachable(6), Some(Prohibited)),
        (Icmpv6Error::TimeExceeded { code: 0 }, Some(TimeExceeded)),
        (Icmpv6Error::ParameterProblem { code: 1, pointer: 6 }, Some(Protocol)),
        (Icmpv6Error::ParameterProblem { code: 0, pointer: 4 }, None),
    ] {
        for inner in [packet_v6(A6, B6, 200), a_to_b().build()] {
            let gateway = gateway();
            let outcome = gateway.icmp(&told(error, &gateway.outer(&inner)));
            let found = match gateway.tunnel.reachability(PEER_B) {
                Reachability::Unreachable { error, router, .. } => {
                    assert_eq!(router, v6(FAR_ROUTER));
                    Some(error.cause())
                }
                Reachability::Assumed => None,
            };
            assert_eq!(found, cause, "{error:?}: {outcome:?}");
            match outcome {
                UnderlayIcmp::Relay { reply: Reply::V6 { error, .. }, .. } => {
                    assert_eq!((error, cause.is_some()), (unreachable(3), true));
                }
                UnderlayIcmp::Relay { reply: Reply::V4 { error, .. }, .. } => {
                    let is_unreachable = matches!(error, Icmpv4Error::DestinationUnreachable { .. });
                    assert!(is_unreachable && cause.is_some(), "{error:?}");
                }
                other => assert!(cause.is_none(), "{other:?}"),
            }
        }
    }
}

#[test]
fn an_error_that_cannot_be_about_the_tunnel_is_not_believed() {
    let gateway = gateway();
    let error = Icmpv6Error::DestinationUnreachable { code: 0 };
    let sent = gateway.outer(&packet_v6(A6, B6, 200));
    let with = |at: usize, byte: u8| {
        let mut sent = sent.clone();
        sent[at] = byte;
        told(error, &sent)
    };
    let mut bad_checksum = told(error, &sent);
    bad_checksum[42] ^= 1;
    let unbelievable = UnderlayIcmp::Ignored(DropReason::IcmpUnbelievable);
    for (message, expected) in [
        (with(23, 9), unbelievable.clone()),
        (with(39, 9), unbelievable.clone()),
        // The inner source is nobody's of ours, the inner destination another peer's.
        (with(40 + 13, 0xee), unbelievable.clone()),
        (with(40 + 29, 0x0c), unbelievable),
        (with(6, 17), UnderlayIcmp::NotOurs),
        (bad_checksum, UnderlayIcmp::Ignored(DropReason::IcmpMalformed)),
    ] {
        assert_eq!(gateway.icmp(&message), expected);
    }
    assert_eq!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
}

/// The gateway of site B, as `over_v6` is that of site A.
fn far_gateway() -> Gateway {
    let parse = |network: &str| network.parse().expect("a network");
    let networks = ["192.168.199.0/24", "2001:db8:b::/48"].map(parse);
    let mut peers = PeerSet::new(Some(v6(PEER).into()), networks).expect("no conflict");
    let networks = ["172.16.17.0/24", "2001:db8:a::/48"].map(parse).into();
    let name = "a".parse().expect("a name");
    let peer = Peer { name, underlay: v6(US).into(), networks, path: PathOptions::default() };
    peers.insert(peer).expect("no conflict");
    Gateway::new(TunnelConfig { underlay: v6(PEER).into(), peers, local_addresses: Vec::new(), ..config() })
}

/// What a gateway's stack answers to an echo request that comes out of the tunnel.
fn answer_of_stack(request: &[u8]) -> Vec<u8> {
    let request = Ipv6Packet::parse(request, Validation::Strict).expect("a packet");
    let message = Icmpv6Message::parse(request.payload()).expect("a message");
    let (identifier, sequence) = message.echo().expect("an echo");
    let mut answer = vec![0; request.as_bytes().len()];
    let (header, room) = answer.split_at_mut(ipv6::HEADER_LEN);
    let ends = (request.destination(), request.source());
    let reply = EchoKind::Reply;
    icmpv6::build_echo(room, ends, identifier, sequence, message.payload(), reply).expect("room");
    let repr = Ipv6Repr { source: ends.0, destination: ends.1, ..Ipv6Repr::of(&request) };
    header.copy_from_slice(&repr.emit());
    answer
}

/// Traffic to B alone.
fn to_b(sent: u64) -> impl Fn(PeerIndex) -> Traffic {
    move |peer| if peer == PEER_B { Traffic { sent, last_rx: None } } else { Traffic::default() }
}

/// A path that takes so many bytes, both ways, and two gateways, of which A probes. Time is
/// virtual.
struct ProbedPath {
    near: Gateway,
    far: Gateway,
    prober: Prober,
    takes: usize,
    /// Whether a router says so.
    says: bool,
    sent: u64,
}

impl ProbedPath {
    fn new(takes: usize, says: bool) -> ProbedPath {
        let source = v6("2001:db8:a::1").into();
        let probe = Some(ProbeOptions { sources: vec![source], secret: RandomState::new(), keepalive: None });
        let near = Gateway::new(TunnelConfig { probe, local_addresses: vec![source], ..over_v6() });
        let prober = Prober::new(&near.tunnel);
        ProbedPath { near, far: far_gateway(), prober, takes, says, sent: 0 }
    }

    fn run(&mut self, seconds: u64) {
        for step in 0..seconds * 100 {
            self.near.now = self.near.now.saturating_add(Duration::from_millis(10));
            self.sent += u64::from(step % 10 == 0);
            let sent = self.sent;
            let traffic = to_b(sent);
            let Gateway { tunnel, counters, now } = &self.near;
            if self.prober.poll_timeout().is_some_and(|deadline| deadline <= *now) {
                self.prober.handle_timeout(tunnel, *now, counters, traffic);
            }
            let mut out = vec![0; 65_535];
            while let Some(len) = self.prober.poll_transmit(&self.near.tunnel, &self.near.counters, &mut out)
            {
                self.carry(&out[..len]);
            }
        }
    }

    fn carry(&mut self, outer: &[u8]) {
        if outer.len() > self.takes {
            if self.says {
                let message = told(Icmpv6Error::TooBig { mtu: self.takes as u32 }, outer);
                let sent = self.sent;
                let traffic = to_b(sent);
                let Gateway { tunnel, counters, now } = &self.near;
                let outcome = self.prober.handle_icmp(tunnel, &message, *now, counters, traffic);
                assert!(matches!(outcome, UnderlayIcmp::AboutProbe { .. }), "{outcome:?}");
            }
            return;
        }
        let Decapsulated::Deliver { inner, .. } = self.far.decapsulate(outer) else {
            panic!("a probe passes")
        };
        let answer = self.far.outer(&answer_of_stack(&outer[inner]));
        let found = self.near.decapsulate(&answer);
        assert!(matches!(found, Decapsulated::Answer { peer: PEER_B }), "{found:?}");
    }

    fn learned(&self) -> Option<(u16, LearnedBy)> {
        let known = self.near.tunnel.path_mtu(PEER_B);
        known.learned.map(|by| (known.mtu, by))
    }
}

#[test]
fn rfc8899_a_black_hole_on_an_underlay_of_ipv6_is_found_by_probes() {
    for takes in [1499, 1400, 1281, 1280] {
        let mut path = ProbedPath::new(takes, false);
        path.run(12);
        assert_eq!(path.learned(), Some((takes as u16, LearnedBy::Probe)), "{takes} bytes");
        let totals = path.near.totals();
        assert!(totals.probes.answered > 0 && totals.dropped() == 0, "{totals:?}");
        assert_eq!(path.far.totals().probes.received, path.far.totals().probes.replied);
        assert_eq!(path.far.totals().peers[0].rx_packets, 0, "a probe is no traffic");
        // And the path heals.
        path.takes = 1500;
        path.run(60);
        assert_eq!(path.learned(), None, "{takes} bytes");
    }
}

#[test]
fn rfc8201_s4_a_router_s_error_about_a_probe_is_believed_at_once() {
    let mut path = ProbedPath::new(1400, true);
    path.run(3);
    assert_eq!(path.learned(), Some((1400, LearnedBy::Router)));
}

/// Without probes every quote is believed (`rfc8201_s4_a_router_tells_the_path_mtu_down_to_1280`).
#[test]
fn rfc5927_s7_an_error_about_traffic_is_not_believed_before_a_probe_proves_it() {
    let mut path = ProbedPath::new(1500, false);
    path.run(3);
    let sent = path.near.outer(&packet_v6(A6, B6, 1460));
    let message = told(Icmpv6Error::TooBig { mtu: 1300 }, &sent);
    let outcome = path.near.icmp(&message);
    assert!(
        matches!(outcome, UnderlayIcmp::Doubtful { claim: Claim::TooBig, refuted_by: 1301, .. }),
        "{outcome:?}"
    );
    path.run(5);
    assert_eq!(path.learned(), None);
}

proptest! {
    /// What a gateway sends, the other delivers as it was.
    #[test]
    fn the_far_gateway_delivers_what_was_sent(
        is_v6 in any::<bool>(),
        len in 60usize..1460,
        class in any::<u8>(),
    ) {
        // The inner packet as B would send it; the outer addresses are exchanged for A's.
        let inner = if is_v6 {
            packet_v6_with(A6, B6, len, |repr| repr.traffic_class = class)
        } else {
            a_to_b().len(len).tos(class).build()
        };
        let far = far_gateway();
        let outer = gateway().outer(&inner);
        prop_assert_eq!(outer.len(), len + ipv6::HEADER_LEN);
        let delivered = far.decapsulate(&outer);
        let is_whole = matches!(&delivered, Decapsulated::Deliver { inner: range, set_ecn: None, .. }
            if outer[range.clone()] == inner);
        prop_assert!(is_whole, "{:?}", delivered);
    }
}
