//! An underlay of IPv6 (RFC 2473), with private networks of both families: what passes, what is
//! refused, and which error the sender gets.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_control::OnExit;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A, INSIDE_A6, INSIDE_B, INSIDE_B6, Tunnels,
    TwoSites, UNDERLAY_A6, UNDERLAY_B6, bring_up, over_ipv6, with_ipv6_networks,
};
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_testbed::test_planes::with_plane;
use adit_tunnel::{DropReason, LearnedBy, PeerIndex};
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::icmpv6::Icmpv6Error;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{Ipv6Packet, Ipv6Repr, extension};
use adit_wire::{Protocol, Validation};

use crate::planes::on_every_plane;
use crate::support::stream::send_both_families_both_ways;
use crate::support::{
    ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, ask, assert_dropped, assert_no_drops, drops_since, udp, wait_until,
};

const PEER: PeerIndex = PeerIndex::new(0);
const MEGABYTE: usize = 1 << 20;

on_every_plane!(
    pings_of_every_size_pass_and_the_first_that_does_not_fit_is_refused,
    streams_of_both_families_arrive_both_ways_at_once,
    datagrams_of_every_size_arrive_unchanged,
    a_packet_of_1280_bytes_passes_the_narrowest_underlay_in_outer_fragments,
    the_path_mtu_is_learned_from_a_router,
    the_path_mtu_of_a_black_hole_is_found_by_probes,
    what_a_peer_may_not_send_is_dropped_by_name,
    a_stranger_is_refused_by_name_and_gets_no_answer,
    a_sender_learns_that_the_peer_cannot_be_reached,
    nothing_is_left_after_the_overlay_is_closed,
);

fn config(plane: DataplaneChoice, text: &str) -> String {
    with_plane(&over_ipv6(&with_ipv6_networks(text)), plane)
}

fn bring_up_both(network: &TwoSites, plane: DataplaneChoice) -> Tunnels {
    let a = bring_up(&network.gateway_a, &config(plane, CONFIG_A)).unwrap();
    Tunnels { a, b: bring_up(&network.gateway_b, &config(plane, CONFIG_B)).unwrap() }
}

/// The outer packets of a tunnel, or fragments of them, in a capture.
fn outer_packets(frames: &[Frame]) -> Vec<Vec<u8>> {
    let packets = frames.iter().filter_map(Frame::ipv6);
    let is_outer = |bytes: &&[u8]| matches!(bytes.get(6), Some(4 | 41 | 44));
    packets.filter(is_outer).map(<[u8]>::to_vec).collect()
}

fn pings_of_every_size_pass_and_the_first_that_does_not_fit_is_refused(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for size in [48, 49, 88, 576, 1280, 1281, 1459, 1460] {
        for (host, to) in [(&network.host_a, HOST_B6), (&network.host_b, HOST_A6)] {
            assert!(ask(host, to, size).is_reply(), "{size}");
        }
        for (host, to) in [(&network.host_a, HOST_B), (&network.host_b, HOST_A)] {
            assert!(ask(host, to, size).is_reply(), "{size}");
        }
    }
    assert!(ask(&network.gateway_a, INSIDE_B6, 88).is_reply(), "from gateway to gateway");
    assert!(ask(&network.gateway_a, INSIDE_B, 88).is_reply(), "from gateway to gateway");
    assert_no_drops(&tunnels);
    let mut carried = [0, 0];
    for bytes in outer_packets(&tap.finish()) {
        let outer = Ipv6Packet::parse(&bytes, Validation::Strict).expect("a valid packet");
        assert!(outer.flow_label() != 0 && outer.hop_limit() <= 64, "{outer:?}");
        if outer.next_header() == Protocol::IPV6 {
            let inner = Ipv6Packet::parse(outer.payload(), Validation::Strict).expect("a valid packet");
            carried[1] += u32::from(inner.source().segments()[2] != 1);
        } else {
            Ipv4Packet::parse(outer.payload(), Validation::Strict).expect("a valid datagram");
            carried[0] += 1;
        }
    }
    assert_eq!(carried, [4 * 8 + 2; 2], "requests and replies of each family");

    let error = Icmpv6Error::TooBig { mtu: 1460 };
    assert_eq!(ask(&network.host_a, HOST_B6, 1461), Answer::RefusedV6 { by: INSIDE_A6, error });
    let error = Icmpv4Error::TooBig { mtu: 1460 };
    assert_eq!(ask(&network.host_a, HOST_B, 1461), Answer::Refused { by: INSIDE_A, error });
}

fn streams_of_both_families_arrive_both_ways_at_once(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    send_both_families_both_ways(&network, 64 * MEGABYTE);
    assert_no_drops(&tunnels);
}

/// UDP of many sizes, also in fragments that the sender makes.
fn datagrams_of_every_size_arrive_unchanged(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let mut buffer = vec![0; 65_536];
    for (from, to) in [(IpAddr::from(HOST_A6), IpAddr::from(HOST_B6)), (HOST_A.into(), HOST_B.into())] {
        let bind = |host: &Host, address| {
            let socket = host.ns().run(|| UdpSocket::bind(SocketAddr::new(address, 0))).unwrap();
            socket.expect("a port is free")
        };
        let receiver = bind(&network.host_b, to);
        receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
        let to = receiver.local_addr().expect("it is bound");
        let sender = bind(&network.host_a, from);
        // Host A learns what fits, and fragments what does not.
        assert!(!ask(&network.host_a, to.ip(), 1461).is_reply());
        for len in (0..200).chain([1211, 1212, 1412, 1413, 1432, 1433, 3000, 9000, 65_000]) {
            let payload: Vec<u8> = (0..len).map(|at| (at % 253) as u8 ^ len as u8).collect();
            sender.send_to(&payload, to).expect("it is sent");
            let received = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
            assert!(buffer[..received] == payload, "{len} bytes to {to}");
        }
    }
    let refused = |end: &adit_control::Overlay| drops_since(&Default::default(), &end.plane().totals());
    let too_big = refused(&tunnels.a);
    assert!(too_big.iter().all(|(reason, _)| *reason == DropReason::InnerTooBig), "{too_big:?}");
    assert_eq!(refused(&tunnels.b), []);
}

/// RFC 2473 section 7.1: an underlay of 1280 bytes leaves 1240, and no path is narrower than 1280
/// bytes to IPv6.
fn a_packet_of_1280_bytes_passes_the_narrowest_underlay_in_outer_fragments(plane: DataplaneChoice) {
    const UNDERLAY_MTU: u32 = 1280;
    let network = TwoSites::build_over_ipv6().unwrap();
    network.set_underlay_mtus(UNDERLAY_MTU).unwrap();
    let tunnels = bring_up_both(&network, plane);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for size in [1240, 1241, 1279, 1280] {
        assert!(ask(&network.host_a, HOST_B6, size).is_reply(), "{size}");
    }
    let error = Icmpv6Error::TooBig { mtu: 1280 };
    assert_eq!(ask(&network.host_a, HOST_B6, 1281), Answer::RefusedV6 { by: INSIDE_A6, error });
    assert!(ask(&network.host_a, HOST_B, 1240).is_reply());
    // The kernel's own MTU of the interface is 1280, so the tunnel answers.
    let error = Icmpv4Error::TooBig { mtu: 1240 };
    assert_eq!(ask(&network.host_a, HOST_B, 1241), Answer::Refused { by: INSIDE_A, error });
    let outer = outer_packets(&tap.finish());
    assert!(outer.iter().all(|packet| packet.len() <= UNDERLAY_MTU as usize));
    let fragments = outer.iter().filter_map(|packet| {
        let header = Ipv6Packet::parse(packet, Validation::Strict).expect("a valid packet");
        extension::walk(packet, header.next_header()).expect("valid headers").fragment
    });
    let mut identifications: Vec<u32> = fragments.map(extension::FragmentHeader::identification).collect();
    // Both directions of three sizes, each in two fragments.
    assert_eq!(identifications.len(), 12);
    identifications.sort_unstable();
    identifications.dedup();
    assert_eq!(identifications.len(), 6, "each packet has its own");
    let dropped = drops_since(&Default::default(), &tunnels.a.plane().totals());
    assert_eq!(dropped, [(DropReason::InnerTooBig, 1)]);
    assert_eq!(tunnels.b.plane().totals().dropped(), 0);
}

fn the_path_mtu_is_learned_from_a_router(plane: DataplaneChoice) {
    const PATH_MTU: u16 = 1400;
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let _narrow = network.router.limit_mtu("toB", PATH_MTU.into()).unwrap();
    let error = Icmpv6Error::TooBig { mtu: u32::from(PATH_MTU) - 40 };
    wait_until("the sender of IPv6 learns the MTU", || {
        let answer = network.host_a.run(|| ping(HOST_B6, 1460, 64, ATTEMPT_TIMEOUT)).unwrap();
        answer == Answer::RefusedV6 { by: INSIDE_A6, error }
    });
    let error = Icmpv4Error::TooBig { mtu: PATH_MTU - 40 };
    assert_eq!(ask(&network.host_a, HOST_B, 1460), Answer::Refused { by: INSIDE_A, error });
    assert_eq!(tunnels.a.plane().tunnel().path_mtu(PEER).mtu, PATH_MTU);
    for to in [IpAddr::from(HOST_B6), HOST_B.into()] {
        assert!(ask(&network.host_a, to, usize::from(PATH_MTU) - 40).is_reply());
    }
}

/// The router drops what is too big and says nothing.
fn the_path_mtu_of_a_black_hole_is_found_by_probes(plane: DataplaneChoice) {
    const PATH_MTU: u16 = 1300;
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    network
        .router
        .load_nftables(
            "table ip6 silence { chain output { type filter hook output priority 0; \
             icmpv6 type packet-too-big drop; }; }",
        )
        .unwrap();
    let _narrow = network.router.limit_mtu("toB", PATH_MTU.into()).unwrap();
    // Packets that are lost keep the path in use.
    wait_until("the probes find the path MTU", || {
        let _ = network.host_a.run(|| ping(HOST_B6, 1460, 64, Duration::from_millis(100))).unwrap();
        let known = tunnels.a.plane().tunnel().path_mtu(PEER);
        (known.mtu, known.learned) == (PATH_MTU, Some(LearnedBy::Probe))
    });
    assert!(ask(&network.host_a, HOST_B6, usize::from(PATH_MTU) - 40).is_reply());
    let error = Icmpv6Error::TooBig { mtu: 1280 };
    assert_eq!(ask(&network.host_a, HOST_B6, 1281), Answer::RefusedV6 { by: INSIDE_A6, error });
}

/// Sends packets to gateway A as gateway B would, around the tunnel.
struct Forger(RawFrameSender);

impl Forger {
    fn new(network: &TwoSites) -> Forger {
        let open = || RawFrameSender::open_from(UNDERLAY_B6.into(), 2000, 1);
        Forger(network.gateway_b.run(open).unwrap())
    }

    /// An outer packet of this next header.
    fn send(&mut self, next_header: Protocol, payload: &[u8]) {
        let outer = Ipv6Repr {
            source: UNDERLAY_B6,
            destination: UNDERLAY_A6,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 7,
            payload_len: payload.len() as u16,
        };
        let packet = [&outer.emit()[..], payload].concat();
        self.0.frame()[LINK_HEADER..][..packet.len()].copy_from_slice(&packet);
        self.0.commit(packet.len(), None);
        self.0.flush();
        assert_eq!(self.0.take_sent().refused, 0);
    }
}

fn packet_v6(source: &str, destination: &str, next_header: Protocol) -> Vec<u8> {
    let address = |text: &str| text.parse().expect("an address");
    let repr = Ipv6Repr {
        source: address(source),
        destination: address(destination),
        next_header,
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        payload_len: 8,
    };
    [&repr.emit()[..], &[0; 8]].concat()
}

/// The rules of an underlay of IPv4 hold: a peer sends only from its networks, and nothing nested
/// or local.
fn what_a_peer_may_not_send_is_dropped_by_name(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply());
    let before = tunnels.a.plane().totals();
    let mut forger = Forger::new(&network);
    let inside = Tap::start(&network.host_a, "eth0").unwrap();
    let (host_a, host_b) = (HOST_A6.to_string(), HOST_B6.to_string());
    let us = UNDERLAY_A6.to_string();
    let not_theirs = DropReason::InnerSourceNotFromPeer;
    let udp_v6 = |source: &str, destination: &str| packet_v6(source, destination, Protocol::UDP);
    let cases = [
        (Protocol::IPV6, udp_v6("2001:db8:ffff::1", &host_a), not_theirs),
        (Protocol::IPV6, udp_v6(&host_a, &host_a), DropReason::InnerSourceIsOwn),
        (Protocol::IPV6, udp_v6("fe80::1", &host_a), not_theirs),
        (Protocol::IPV6, udp_v6("ff02::1", &host_a), not_theirs),
        (Protocol::IPV6, udp_v6("::ffff:10.1.1.2", &host_a), not_theirs),
        (Protocol::IPV6, udp_v6(&host_b, "ff02::1"), DropReason::InnerDestinationNotOurs),
        (Protocol::IPV6, udp_v6(&host_b, &us), DropReason::InnerDestinationNotOurs),
        (Protocol::IPV6, packet_v6(&host_b, &us, Protocol::IPV6), DropReason::NestedToOurselves),
        (Protocol::IPV6, vec![0x60; 39], DropReason::DecapInnerMalformed),
        (Protocol::IPIP, udp([10, 9, 9, 9].into(), SocketAddrV4::new(HOST_A, 9), b"x"), not_theirs),
        (Protocol::IPIP, udp_v6(&host_b, &host_a), DropReason::DecapInnerNotIpv4),
        (Protocol::IPIP, vec![0x45; 60], DropReason::DecapInnerMalformed),
        // Options that a node must know, and a fragment that is malformed.
        (
            Protocol::DESTINATION_OPTIONS,
            [&[41, 0, 0x45, 4, 0, 0, 0, 0], &udp_v6(&host_b, &host_a)[..]].concat(),
            { DropReason::OuterMalformed },
        ),
        (Protocol::FRAGMENT, [&[41, 0, 0, 1, 0, 0, 0, 7], &[0; 9][..]].concat(), DropReason::OuterFragment),
    ];
    for (protocol, inner, _) in &cases {
        forger.send(*protocol, inner);
    }
    assert_dropped(&tunnels.a, &before, cases.iter().map(|(_, _, reason)| *reason));
    // As Linux's ip6tnl sends it: a limit of nested encapsulation in destination options.
    let limit = [&[41, 0, 4, 1, 4, 1, 1, 0], &udp_v6(&host_b, &host_a)[..]].concat();
    forger.send(Protocol::DESTINATION_OPTIONS, &limit);
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply(), "after all of them");
    let is_udp = |frame: &&Frame| frame.ipv6().is_some_and(|packet| packet.get(6) == Some(&17));
    assert_eq!(inside.finish().iter().filter(is_udp).count(), 1, "only the last one has come out");
}

fn a_stranger_is_refused_by_name_and_gets_no_answer(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let a =
        bring_up(&network.gateway_a, &config(plane, CONFIG_A).replace("2001:db8:1:b::1", "2001:db8:1:b::2"))
            .unwrap();
    let errors = network.gateway_b.run(|| RawSocket::icmp_errors(UNDERLAY_B6)).unwrap();
    // Without it gateway B would answer for itself.
    let _claim = network.gateway_b.run(|| RawSocket::placeholder(UNDERLAY_B6, TunnelProtocol::Ipv6)).unwrap();
    let mut forger = Forger::new(&network);
    let (host_a, host_b) = (HOST_A6.to_string(), HOST_B6.to_string());
    forger.send(Protocol::IPV6, &packet_v6(&host_b, &host_a, Protocol::UDP));
    wait_until("it is counted", || a.plane().totals().dropped() == 1);
    let dropped = drops_since(&Default::default(), &a.plane().totals());
    assert_eq!(dropped, [(DropReason::OuterSourceUnknown, 1)]);
    assert!(errors.recv(&mut [0; 128]).is_err(), "no error comes back");
    a.close(OnExit::Remove).unwrap();
}

fn a_sender_learns_that_the_peer_cannot_be_reached(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let _tunnels = bring_up_both(&network, plane);
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply());
    // The router of the underlay does not know gateway B any more.
    network.router.down("toB").unwrap();
    for (to, by) in [(IpAddr::from(HOST_B6), IpAddr::from(INSIDE_A6)), (HOST_B.into(), INSIDE_A.into())] {
        wait_until("the sender gets an error", || {
            match network.host_a.run(|| ping(to, 88, 64, ATTEMPT_TIMEOUT)).unwrap() {
                Answer::RefusedV6 { by: found, error: Icmpv6Error::DestinationUnreachable { .. } } => {
                    by == found
                }
                Answer::Refused { by: found, error: Icmpv4Error::DestinationUnreachable { .. } } => {
                    by == found
                }
                _ => false,
            }
        });
    }
}

fn nothing_is_left_after_the_overlay_is_closed(plane: DataplaneChoice) {
    let network = TwoSites::build_over_ipv6().unwrap();
    let look = || {
        let mut netlink = network.gateway_a.netlink().unwrap();
        let mut routes = netlink.routes_of(adit_linux::netlink::MAIN_TABLE).unwrap();
        routes.sort_by_key(|route| format!("{route:?}"));
        let links: Vec<String> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
        (routes, links)
    };
    let before = look();
    let a = bring_up(&network.gateway_a, &config(plane, CONFIG_A)).unwrap();
    let with = look();
    assert_eq!(with.0.len(), before.0.len() + 4, "a route and a guard for each network: {:?}", with.0);
    a.close(OnExit::Remove).unwrap();
    assert_eq!(look(), before);
}
