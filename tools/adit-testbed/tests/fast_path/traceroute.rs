//! The hops that a traceroute from host A to host B shows. The tunnel is one hop (RFC 2003 section
//! 3.1), and the host's own gateway reports every failure inside it (section 4). No hop is silent.

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_lab::checks::reaches;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_B, INSIDE_A, INSIDE_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_linux::netlink::{Route, STATIC_PROTOCOL};
use adit_tunnel::DropReason;
use adit_wire::icmpv4::{Icmpv4Error, unreachable};
use ipnet::Ipv4Net;

use crate::planes::{bring_up_on, bring_up_with, on_every_plane};
use crate::support::{ANSWER_TIMEOUT, wait_until};

const TIME_EXCEEDED: Icmpv4Error = Icmpv4Error::TimeExceeded { code: 0 };
const HOST_UNREACHABLE: Icmpv4Error = Icmpv4Error::DestinationUnreachable { code: unreachable::HOST };

/// The answers that host A receives with a TTL of 1, 2 and so on.
fn trace<const HOPS: usize>(network: &TwoSites) -> [Answer; HOPS] {
    std::array::from_fn(|hop| {
        network.host_a.run(|| ping(HOST_B, 84, hop as u8 + 1, ANSWER_TIMEOUT)).expect("the ping is sent")
    })
}

fn refused(by: Ipv4Addr, error: Icmpv4Error) -> Answer {
    Answer::Refused { by, error }
}

/// The hops are both gateways and the host, without the underlay's router.
fn the_hops_are_the_gateways_and_the_host(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    let [one, two, three, four] = trace(&network);
    assert_eq!([one, two], [refused(INSIDE_A, TIME_EXCEEDED), refused(INSIDE_B, TIME_EXCEEDED)]);
    for answer in [three, four] {
        assert!(matches!(answer, Answer::Reply { ttl: 62, .. }), "{answer:?}");
    }
}

/// Section 4.1: a router inside the tunnel without a route to the decapsulator sends Network
/// Unreachable. Host A is on one of the gateway's own networks, so it receives Host Unreachable for
/// every hop after the first.
fn a_tunnel_router_without_a_route_is_reported(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    assert!(matches!(trace(&network), [_, _, Answer::Reply { .. }]), "the trace fails before the change");
    let router = &network.router;
    // The programs leave it to userspace to answer only when they have been told of the error. What
    // is sent before reaches the router, which then has to answer, too: it sends five errors, and
    // then one a second. Without this setting it would be two. The router answers ARP for gateway B
    // only while it has a route there, but the gateway already knows the next hop.
    router.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
    let lost = Route {
        destination: Ipv4Net::from(UNDERLAY_B).into(),
        device: Some(router.index("toB").unwrap()),
        protocol: STATIC_PROTOCOL,
        ..Route::default()
    };
    router.netlink().unwrap().delete_route(&lost).unwrap();
    let [one, rest @ ..] = trace::<5>(&network);
    assert_eq!(one, refused(INSIDE_A, TIME_EXCEEDED));
    assert_eq!(rest, [refused(INSIDE_A, HOST_UNREACHABLE); 4]);
    let gateway = tunnels.a.plane();
    wait_until("the gateway itself answers", || {
        assert!(!reaches(&network.host_a, HOST_B).unwrap());
        gateway.totals().drops_of(DropReason::PeerUnreachable) > 0
    });

    router.netlink().unwrap().add_route(&lost).unwrap();
    wait_until("the path is restored", || matches!(trace(&network), [_, _, Answer::Reply { .. }]));
}

/// The sender's TTL runs out on the underlay: its gateway says so, as one more hop, and the peer
/// stays reachable for everybody.
fn an_inherited_ttl_shows_the_hops_of_the_underlay(plane: DataplaneChoice) {
    for options in ["ttl = \"inherit\"\nprobe = false", "ttl = \"inherit\""] {
        let network = TwoSites::build().unwrap();
        let tunnels = bring_up_with(&network, plane, options);
        for _ in 0..3 {
            let [hops @ .., there] = trace::<3>(&network);
            assert_eq!(hops, [refused(INSIDE_A, TIME_EXCEEDED); 2], "{options}");
            assert!(there.is_reply(), "{options}: {there:?}");
        }
        let plane = tunnels.a.plane();
        let peer = adit_tunnel::PeerIndex::new(0);
        assert_eq!(plane.tunnel().reachability(peer), adit_tunnel::Reachability::Assumed);
        assert_eq!(plane.totals().drops_of(DropReason::PeerUnreachable), 0);
    }
}

/// Section 4.4: an outer TTL that is too small for the decapsulator is the gateway's fault, so the
/// host receives Host Unreachable. Without the router the same TTL is enough.
fn an_outer_ttl_that_is_too_small_is_reported(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "ttl = 1\nprobe = false");
    let [one, rest @ ..] = trace::<4>(&network);
    assert_eq!(one, refused(INSIDE_A, TIME_EXCEEDED));
    assert_eq!(rest, [refused(INSIDE_A, HOST_UNREACHABLE); 3]);
    let totals = tunnels.a.plane().totals();
    // The router's error was relayed, and the encapsulator answered the datagrams within a second
    // after it.
    let answered = totals.drops_of(DropReason::PeerUnreachable);
    assert!(totals.icmp.relayed >= 1 && totals.icmp.relayed + answered == 3, "{totals:?}");

    let direct = TwoSites::build().unwrap();
    direct.gateway_a.connect("cable", &direct.gateway_b, "cable").unwrap();
    for (gateway, peer) in [(&direct.gateway_a, UNDERLAY_B), (&direct.gateway_b, UNDERLAY_A)] {
        gateway.route(Ipv4Net::from(peer), None, Some("cable")).unwrap();
    }
    let _tunnels = bring_up_with(&direct, plane, "ttl = 1");
    let answers: [Answer; 3] = trace(&direct);
    assert!(answers[2].is_reply(), "{answers:?}");
}

on_every_plane! {
    the_hops_are_the_gateways_and_the_host,
    a_tunnel_router_without_a_route_is_reported,
    an_inherited_ttl_shows_the_hops_of_the_underlay,
    an_outer_ttl_that_is_too_small_is_reported,
}
