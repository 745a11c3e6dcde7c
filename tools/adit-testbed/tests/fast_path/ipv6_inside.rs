//! Private networks of IPv6 behind an underlay of IPv4 (RFC 4213): what passes, what is refused,
//! and which error the sender gets.

use std::net::{SocketAddr, SocketAddrV6, UdpSocket};

use adit_config::DataplaneChoice;
use adit_control::OnExit;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{
    CONFIG_A, CONFIG_B, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A6, INSIDE_B6, Tunnels, TwoSites,
    UNDERLAY_A, UNDERLAY_B, bring_up, with_ipv6_networks,
};
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::test_planes::with_plane;
use adit_tunnel::{DropReason, PeerIndex};
use adit_wire::icmpv6::Icmpv6Error;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;
use adit_wire::{Protocol, Validation};

use crate::planes::on_every_plane;
use crate::support::stream::Stream;
use crate::support::{
    ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, ask, assert_dropped, assert_no_drops, ipv4, wait_until,
};

const PEER: PeerIndex = PeerIndex::new(0);
const MEGABYTE: usize = 1 << 20;

on_every_plane!(
    pings_of_every_size_pass_and_the_first_that_does_not_fit_is_refused,
    streams_of_both_families_arrive_both_ways_at_once,
    datagrams_of_every_size_arrive_unchanged,
    a_packet_of_1280_bytes_passes_a_narrower_underlay_in_outer_fragments,
    the_path_mtu_is_learned_from_a_router,
    packets_from_addresses_that_are_not_the_peers_are_dropped,
    a_sender_learns_that_there_is_no_route,
    an_overlay_without_ipv6_leaves_protocol_41_to_others,
    nothing_is_left_after_the_overlay_is_closed,
);

fn config(plane: DataplaneChoice, config: &str) -> String {
    with_plane(&with_ipv6_networks(config), plane)
}

fn bring_up_both(network: &TwoSites, plane: DataplaneChoice) -> Tunnels {
    let a = bring_up(&network.gateway_a, &config(plane, CONFIG_A)).unwrap();
    Tunnels { a, b: bring_up(&network.gateway_b, &config(plane, CONFIG_B)).unwrap() }
}

fn pings_of_every_size_pass_and_the_first_that_does_not_fit_is_refused(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for size in [48, 49, 88, 576, 1280, 1281, 1479, 1480] {
        assert!(ask(&network.host_a, HOST_B6, size).is_reply(), "{size}");
        assert!(ask(&network.host_b, HOST_A6, size).is_reply(), "{size}");
    }
    assert!(ask(&network.gateway_a, INSIDE_B6, 88).is_reply(), "from gateway to gateway");
    assert_no_drops(&tunnels);
    let outer: Vec<Vec<u8>> = tap.finish().iter().filter_map(Frame::ipv4).map(<[u8]>::to_vec).collect();
    let mut carried = 0;
    for bytes in &outer {
        let outer = Ipv4Packet::parse(bytes, Validation::Strict).expect("a valid datagram");
        if outer.protocol() == Protocol::IPV6 {
            let inner = Ipv6Packet::parse(outer.payload(), Validation::Strict).expect("a valid packet");
            assert_eq!(outer.total_len(), inner.total_len() + 20);
            assert!(outer.dont_fragment() && outer.ttl() <= 64, "{outer:?}");
            carried += 1;
        }
    }
    assert_eq!(carried, 4 * 8 + 2, "requests and replies");

    let answer = ask(&network.host_a, HOST_B6, 1481);
    let error = Icmpv6Error::TooBig { mtu: 1480 };
    assert_eq!(answer, Answer::RefusedV6 { by: INSIDE_A6, error });
}

fn streams_of_both_families_arrive_both_ways_at_once(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let (a, b) = (&network.host_a, &network.host_b);
    let flows: [(_, std::net::IpAddr, usize); 4] = [
        ((a, b), HOST_B6.into(), 64),
        ((b, a), HOST_A6.into(), 64),
        ((a, b), HOST_B.into(), 8),
        ((b, a), HOST_A.into(), 8),
    ];
    std::thread::scope(|scope| {
        for (seed, (ends, address, megabytes)) in flows.into_iter().enumerate() {
            scope.spawn(move || {
                let (seed, len) = (seed as u64, megabytes * MEGABYTE);
                let stream = Stream { seed, len, write: 65_536, nodelay: false };
                let (sent, received) = stream.send(ends, address);
                assert_eq!(received, sent, "to {address}");
            });
        }
    });
    assert_no_drops(&tunnels);
}

/// UDP of many sizes, also in fragments that the sender makes.
fn datagrams_of_every_size_arrive_unchanged(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let bind = |host: &Host, address| {
        let socket = host.ns().run(|| UdpSocket::bind(SocketAddrV6::new(address, 0, 0, 0))).unwrap();
        socket.expect("a port is free")
    };
    let receiver = bind(&network.host_b, HOST_B6);
    receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
    let SocketAddr::V6(to) = receiver.local_addr().expect("it is bound") else { unreachable!() };
    let sender = bind(&network.host_a, HOST_A6);
    // Host A learns what fits, and fragments what does not.
    assert!(!ask(&network.host_a, HOST_B6, 1481).is_reply());
    let mut buffer = vec![0; 65_536];
    for len in (0..200).chain([1231, 1232, 1432, 1433, 1452, 1453, 3000, 9000, 65_000]) {
        let payload: Vec<u8> = (0..len).map(|at| (at % 253) as u8 ^ len as u8).collect();
        sender.send_to(&payload, to).expect("it is sent");
        let received = receiver.recv(&mut buffer).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        assert!(buffer[..received] == payload, "{len} bytes");
    }
    assert_no_drops(&tunnels);
}

/// RFC 4213 section 3.2.2: no path is narrower than 1280 bytes to IPv6.
fn a_packet_of_1280_bytes_passes_a_narrower_underlay_in_outer_fragments(plane: DataplaneChoice) {
    const UNDERLAY_MTU: u32 = 1000;
    let network = TwoSites::build_with_ipv6().unwrap();
    network.set_underlay_mtus(UNDERLAY_MTU).unwrap();
    let tunnels = bring_up_both(&network, plane);
    let tap = Tap::start(&network.router, "toA").unwrap();
    for size in [980, 981, 1279, 1280] {
        assert!(ask(&network.host_a, HOST_B6, size).is_reply(), "{size}");
    }
    let error = Icmpv6Error::TooBig { mtu: 1280 };
    assert_eq!(ask(&network.host_a, HOST_B6, 1281), Answer::RefusedV6 { by: INSIDE_A6, error });
    assert!(network.host_a.run(|| ping(HOST_B, 980, 64, ANSWER_TIMEOUT)).unwrap().is_reply());
    let frames = tap.finish();
    let outer = frames.iter().filter_map(Frame::ipv4);
    let outer = outer.filter_map(|bytes| Ipv4Packet::parse(bytes, Validation::Datapath).ok());
    let outer: Vec<_> = outer.filter(|outer| outer.protocol() == Protocol::IPV6).collect();
    assert!(outer.iter().all(|outer| outer.total_len() <= UNDERLAY_MTU as usize));
    // Both directions of three sizes, each in two fragments.
    assert_eq!(outer.iter().filter(|outer| outer.is_fragment()).count(), 12);
    // The gateway's stack has refused the one that was too long, for the interface's MTU.
    assert_no_drops(&tunnels);
}

fn the_path_mtu_is_learned_from_a_router(plane: DataplaneChoice) {
    const PATH_MTU: u16 = 1400;
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    let _narrow = network.router.limit_mtu("toB", PATH_MTU.into()).unwrap();
    let error = Icmpv6Error::TooBig { mtu: u32::from(PATH_MTU) - 20 };
    wait_until("the sender learns the MTU", || {
        ask(&network.host_a, HOST_B6, 1480) == Answer::RefusedV6 { by: INSIDE_A6, error }
    });
    assert_eq!(tunnels.a.plane().tunnel().path_mtu(PEER).mtu, PATH_MTU);
    assert!(ask(&network.host_a, HOST_B6, usize::from(PATH_MTU) - 20).is_reply());
}

/// The rules of IPv4 hold: a peer sends only from its networks, and nothing nested or local.
fn packets_from_addresses_that_are_not_the_peers_are_dropped(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply());
    let before = tunnels.a.plane().totals();
    let sender = network.gateway_b.run(RawSocket::sender).unwrap();
    let inside = Tap::start(&network.host_a, "eth0").unwrap();
    let v6 = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address");
    let packet = |source, destination, next_header| {
        adit_wire::ipv6::Ipv6Repr {
            source,
            destination,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 8,
        }
        .emit()
        .into_iter()
        .chain([0; 8])
        .collect::<Vec<u8>>()
    };
    let cases = [
        (packet(v6("2001:db8:ffff::1"), HOST_A6, Protocol::UDP), DropReason::InnerSourceNotFromPeer),
        (packet(HOST_A6, HOST_A6, Protocol::UDP), DropReason::InnerSourceIsOwn),
        (packet(INSIDE_A6, HOST_A6, Protocol::UDP), DropReason::InnerSourceIsOwn),
        (packet(v6("fe80::1"), HOST_A6, Protocol::UDP), DropReason::InnerSourceNotFromPeer),
        (packet(v6("::1"), HOST_A6, Protocol::UDP), DropReason::InnerSourceNotFromPeer),
        (packet(v6("ff02::1"), HOST_A6, Protocol::UDP), DropReason::InnerSourceNotFromPeer),
        (packet(v6("::ffff:10.1.1.2"), HOST_A6, Protocol::UDP), DropReason::InnerSourceNotFromPeer),
        (packet(HOST_B6, v6("ff02::1"), Protocol::UDP), DropReason::InnerDestinationNotOurs),
        (packet(HOST_B6, v6("fe80::1"), Protocol::UDP), DropReason::InnerDestinationNotOurs),
        (packet(HOST_B6, v6("2001:db8:ffff::1"), Protocol::UDP), DropReason::InnerDestinationNotOurs),
        (vec![0x60; 39], DropReason::DecapInnerMalformed),
        (vec![0x45; 60], DropReason::DecapInnerMalformed),
    ];
    for (inner, _) in &cases {
        sender.send(&ipv4(UNDERLAY_B, UNDERLAY_A, Protocol::IPV6, inner)).expect("it is sent");
    }
    assert_dropped(&tunnels.a, &before, cases.iter().map(|(_, reason)| *reason));
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply(), "after all of them");
    // Those of IPv6 from elsewhere than host B.
    let is_foreign = |frame: &&Frame| {
        frame.bytes.get(12..14) == Some(&[0x86, 0xdd])
            && frame.bytes.get(22..38).is_some_and(|source| source[..2] != HOST_B6.octets()[..2])
            && frame.bytes.get(20) == Some(&17)
    };
    assert_eq!(inside.finish().iter().filter(is_foreign).count(), 0, "none has come out");
}

fn a_sender_learns_that_there_is_no_route(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let tunnels = bring_up_both(&network, plane);
    assert!(ask(&network.host_a, HOST_B6, 88).is_reply());
    // The router of the underlay does not know gateway B any more.
    let (to_b, mut netlink) = (network.router.index("toB").unwrap(), network.router.netlink().unwrap());
    let route = netlink.routes().unwrap().into_iter().find(|route| {
        route.device == Some(to_b) && route.destination == ipnet::Ipv4Net::from(UNDERLAY_B).into()
    });
    netlink.delete_route(&route.expect("the router has a route to gateway B")).unwrap();
    wait_until("the sender gets an error", || {
        let answer = network.host_a.run(|| ping(HOST_B6, 88, 64, ATTEMPT_TIMEOUT)).unwrap();
        matches!(
            answer,
            Answer::RefusedV6 { by: INSIDE_A6, error: Icmpv6Error::DestinationUnreachable { .. } }
        )
    });
    drop(tunnels);
}

/// A sit tunnel of the same host may use the same addresses.
fn an_overlay_without_ipv6_leaves_protocol_41_to_others(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let _a = bring_up(&network.gateway_a, &with_plane(CONFIG_A, plane)).unwrap();
    let sender = network.gateway_b.run(RawSocket::sender).unwrap();
    let errors = network.gateway_b.run(|| RawSocket::icmp_errors(UNDERLAY_B)).unwrap();
    sender.send(&ipv4(UNDERLAY_B, UNDERLAY_A, Protocol::IPV6, &[0x60; 60])).expect("it is sent");
    let mut buffer = [0; 128];
    // The stack answers: nobody there takes the protocol.
    wait_until("the stack answers", || errors.recv(&mut buffer).is_ok());
    assert_eq!((buffer[20], buffer[21]), (3, 2), "Protocol Unreachable");
}

fn nothing_is_left_after_the_overlay_is_closed(plane: DataplaneChoice) {
    let network = TwoSites::build_with_ipv6().unwrap();
    let look = || {
        let mut netlink = network.gateway_a.netlink().unwrap();
        let table = adit_linux::netlink::MAIN_TABLE;
        let mut routes = netlink.routes_of(table).unwrap();
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
