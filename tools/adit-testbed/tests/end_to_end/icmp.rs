//! ICMP: the errors that the original sender receives, and the errors that the tunnel believes.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_linux::EMSGSIZE;
use adit_linux::netlink::Route;
use adit_linux::sockets::udp::{Origin, PathSocket};
use adit_tunnel::{DropReason, PeerIndex};
use adit_wire::Protocol;
use adit_wire::icmpv4::{self, Icmpv4Error, MAX_ERROR_LEN};
use ipnet::Ipv4Net;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::IpMtu;

use crate::support::{
    ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, Injector, drops_since, echo_request, ipv4_with, wait_until,
};

const PEER: PeerIndex = PeerIndex::new(0);
/// The IPv4 and the UDP header.
const HEADERS: usize = 28;

/// RFC 2003 sections 4.1 and 5.1: if a router inside the tunnel refuses a datagram as too big, its
/// sender receives the MTU less the outer header from its own gateway.
#[test(root)]
fn the_sender_receives_the_mtu_of_a_narrower_path() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    let receiver = network
        .host_b
        .ns()
        .run(|| UdpSocket::bind(SocketAddrV4::new(HOST_B, 5000)))
        .unwrap()
        .expect("the port is free");
    receiver.set_read_timeout(Some(ATTEMPT_TIMEOUT)).expect("there are timeouts");
    let sender = network
        .host_a
        .run(|| PathSocket::connect(SocketAddrV4::new(HOST_A, 0), SocketAddrV4::new(HOST_B, 5000)))
        .unwrap();
    let mut buffer = [0; 2000];
    let mut arrives = |len: usize| receiver.recv(&mut buffer).is_ok_and(|received| received == len - HEADERS);
    let send = |len: usize| sender.send(&vec![7; len - HEADERS]);

    send(1480).expect("it fits");
    assert!(arrives(1480), "a full datagram passes before");
    network.router.mtu("toB", 1300).unwrap();
    network.gateway_b.mtu("underlayB", 1300).unwrap();
    send(1480).expect("host A has learned no MTU");
    let error =
        sender.take_error_within(ANSWER_TIMEOUT).expect("it can be read").expect("host A receives an error");
    assert_eq!((error.origin, error.errno, error.kind, error.code), (Origin::Icmp, EMSGSIZE, 3, 4));
    assert_eq!((error.mtu, error.offender), (Some(1280), Some(INSIDE_A)));
    assert!(!arrives(1480), "a refused datagram arrived");
    assert_eq!(tunnels.a.plane().tunnel().path_mtu(PEER).mtu, 1300);
    assert!(tunnels.a.plane().tunnel().path_mtu(PEER).learned.is_some());

    // The sending host now enforces that MTU, and a datagram that fits passes.
    assert_eq!(getsockopt(&sender, IpMtu).expect("it is known"), 1280);
    assert_eq!(send(1281).expect_err("it is too long").raw_os_error(), Some(EMSGSIZE));
    send(1280).expect("it fits");
    assert!(arrives(1280), "a datagram that fits passes");

    // The tunnel itself answers a sender that does not know, without the router, as soon as its
    // programs know too.
    let before = tunnels.a.plane().totals();
    let refused = || drops_since(&before, &tunnels.a.plane().totals());
    wait_until("the tunnel itself refuses", || {
        let answer = network.host_a.run(|| ping(HOST_B, 1281, 64, ANSWER_TIMEOUT)).unwrap();
        assert_eq!(answer, Answer::Refused { by: INSIDE_A, error: Icmpv4Error::TooBig { mtu: 1280 } });
        !refused().is_empty()
    });
    assert_eq!(refused(), [(DropReason::InnerTooBig, 1)]);
}

/// An ICMP error from `source` about an outer datagram from gateway A to `quoted`.
fn error_about(source: Ipv4Addr, error: Icmpv4Error, quoted: Ipv4Addr, inner: &[u8]) -> Vec<u8> {
    let offending = ipv4_with(UNDERLAY_A, quoted, Protocol::IPIP, inner, |outer| outer.dont_fragment = true);
    let mut out = [0; MAX_ERROR_LEN];
    let len = icmpv4::build_error(&mut out, source, UNDERLAY_A, error, &offending);
    out[..len].to_vec()
}

/// RFC 5927 section 4: an error is believed only about what the tunnel could have sent.
#[test(root)]
fn forged_errors_change_nothing() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    let plane = tunnels.a.plane();
    let unknown_source = Ipv4Addr::new(10, 1, 1, 77);
    let mut underlay = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    let genuine = full_size(HOST_A, HOST_B);
    let too_big = |mtu| Icmpv4Error::TooBig { mtu };
    let before = plane.totals();
    let forged = [
        // About a destination that is no peer.
        error_about(unknown_source, too_big(600), Ipv4Addr::new(10, 1, 1, 99), &genuine),
        // About an inner datagram that the tunnel would not have sent to this peer.
        error_about(unknown_source, too_big(600), UNDERLAY_B, &echo_request(1, &[0; 1400])),
        error_about(unknown_source, too_big(600), UNDERLAY_B, &full_size(HOST_A, unknown_source)),
        // About a datagram that fits the reported MTU.
        error_about(unknown_source, too_big(1500), UNDERLAY_B, &genuine),
        error_about(
            unknown_source,
            Icmpv4Error::DestinationUnreachable { code: 1 },
            unknown_source,
            &genuine,
        ),
    ];
    for error in &forged {
        underlay.send(error);
    }
    wait_until("all forged errors are counted", || {
        plane.totals().drops_of(DropReason::IcmpUnbelievable) == 5
    });
    assert_eq!(drops_since(&before, &plane.totals()), [(DropReason::IcmpUnbelievable, 5)]);
    let path = plane.tunnel().path_mtu(PEER);
    assert_eq!((path.mtu, path.learned), (1500, None));
    assert_eq!(plane.tunnel().reachability(PEER), adit_tunnel::Reachability::Assumed);
    let answer = network.host_a.run(|| ping(HOST_B, 1480, 64, ANSWER_TIMEOUT)).unwrap();
    assert!(answer.is_reply(), "{answer:?}");

    // A probe refutes the same error about a datagram that gateway A could have sent.
    underlay.send(&error_about(unknown_source, too_big(600), UNDERLAY_B, &genuine));
    wait_until("a Too Big is refuted", || plane.totals().drops_of(DropReason::IcmpDisproved) == 1);
    assert_eq!(plane.tunnel().path_mtu(PEER).mtu, 1500);
}

/// A full-size datagram with DF.
fn full_size(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    ipv4_with(source, destination, Protocol::UDP, &[0; 1460], |inner| inner.dont_fragment = true)
}

/// RFC 1812 section 5.2.7.1: a destination that is routed into the tunnel but behind no peer.
#[test(root)]
fn a_destination_without_a_peer_is_unreachable() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    let unassigned = "10.99.0.0/16".parse().expect("a network");
    network.gateway_a.route(unassigned, None, Some("ipipA")).unwrap();
    let answer = network.host_a.run(|| ping(Ipv4Addr::new(10, 99, 1, 1), 84, 64, ANSWER_TIMEOUT)).unwrap();
    let error = Icmpv4Error::DestinationUnreachable { code: icmpv4::unreachable::NET };
    assert_eq!(answer, Answer::Refused { by: INSIDE_A, error });
    let totals = tunnels.a.plane().totals();
    assert_eq!(totals.drops_of(DropReason::InnerDestinationUnknown), 1);
    assert_eq!((totals.dropped(), totals.peers[0].tx_packets), (1, 0));
}

/// RFC 2827: a source outside the gateway's networks is not encapsulated, and receives 3/13.
#[test(root)]
fn a_source_outside_the_sites_networks_is_prohibited() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    // A second network behind gateway A that the configuration does not know.
    let foreign = Ipv4Addr::new(10, 55, 0, 5);
    network.host_a.address("eth0", format!("{foreign}/24").parse::<Ipv4Net>().expect("a prefix")).unwrap();
    let routed = "10.55.0.0/24".parse().expect("a network");
    network.gateway_a.route(routed, None, Some("dummyA")).unwrap();
    let route = Route {
        destination: "192.168.199.0/24".parse().expect("a network"),
        gateway: Some(INSIDE_A.into()),
        preferred_source: Some(foreign.into()),
        ..Route::default()
    };
    network.host_a.netlink().unwrap().add_route(&route).unwrap();
    let answer = network.host_a.run(|| ping(HOST_B, 84, 64, ANSWER_TIMEOUT)).unwrap();
    let error = Icmpv4Error::DestinationUnreachable { code: icmpv4::unreachable::PROHIBITED };
    assert_eq!(answer, Answer::Refused { by: INSIDE_A, error });
    let totals = tunnels.a.plane().totals();
    assert_eq!(totals.drops_of(DropReason::InnerSourceDenied), 1);
    assert_eq!((totals.dropped(), totals.peers[0].tx_packets), (1, 0));
}
