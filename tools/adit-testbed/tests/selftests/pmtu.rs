//! Linux, tools/testing/selftests/net/pmtu.sh: a host learns when the path's MTU shrinks inside the
//! tunnel, and everything learned is gone with the tunnel.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use adit_config::{Config, DataplaneChoice};
use adit_control::overlay::has_leftovers;
use adit_control::{OnExit, Overlay};
use adit_dataplane::ebpf::{pins_exist, pins_of, remove_pins};
use adit_lab::capture::{Frame, Tap};
use adit_lab::checks::reaches;
use adit_lab::host::Host;
use adit_lab::ping::Answer;
use adit_lab::two_sites::{HOST_A, HOST_B, INSIDE_A, INSIDE_B, bring_up};
use adit_linux::netlink::{ROUTE_PROTOCOL, Route};
use adit_linux::sockets::icmp_socket::IcmpSocket;
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::test_planes::{plane_name, with_plane};
use adit_tunnel::PeerIndex;
use adit_wire::icmpv4::{self, Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

use crate::planes::on_every_plane;
use crate::support::{ATTEMPT_TIMEOUT, ask, config_a, config_b, ipv4_with, snmp, udp, wait_until};
use crate::two_paths::TwoPaths;

const PEER: PeerIndex = PeerIndex::new(0);
/// Bytes of the outer header.
const OVERHEAD: u16 = 20;
/// The largest datagram that the tunnel takes before it knows a narrow link.
const FULL: usize = 1480;
const NARROW: [u32; 2] = [1400, 1300];

fn too_big(by: Ipv4Addr, path: u32) -> Answer {
    Answer::Refused { by, error: Icmpv4Error::TooBig { mtu: path as u16 - OVERHEAD } }
}

/// Waits until a host's kernel has this path MTU, pmtu.sh's "exception". The kernel delivers an
/// error to raw sockets before it stores the path MTU.
#[track_caller]
pub(crate) fn expect_path_mtu(host: &Host, to: impl Into<IpAddr>, mtu: u32) {
    let to = to.into();
    let mut netlink = host.netlink().unwrap();
    wait_until("the host's kernel has the path MTU", || netlink.route_to(to, None).unwrap().mtu == Some(mtu));
}

/// `pmtu_ipv4_ipv4_exception` over two paths: on both sides the host's path MTU becomes that of the
/// narrow link less the outer header. The same happens after the route to the peer moves to another
/// next hop with a narrower link.
fn the_host_learns_the_mtu_of_the_narrow_link(plane: DataplaneChoice) {
    let network = TwoPaths::build(NARROW);
    let tunnels = network.bring_up(plane, "probe = false");
    let sides = [
        (&network.host_a, HOST_B, INSIDE_A, tunnels.a.plane().tunnel()),
        (&network.host_b, HOST_A, INSIDE_B, tunnels.b.plane().tunnel()),
    ];
    let mut passed_before = FULL;
    for (number, path) in NARROW.into_iter().enumerate() {
        network.use_path(number as u8);
        let forwarded = || snmp(&network.path_routers[number], "Ip", "ForwDatagrams");
        wait_until("both tunnels use the path", || {
            let before = forwarded();
            reaches(&network.host_a, HOST_B).unwrap() && forwarded() == before + 2
        });
        for (host, to, inside, tunnel) in &sides {
            assert_eq!(ask(host, *to, passed_before), too_big(*inside, path), "path {number}");
            expect_path_mtu(host, *to, path - u32::from(OVERHEAD));
            let learned = tunnel.path_mtu(PEER);
            assert_eq!((u32::from(learned.mtu), learned.learned.is_some()), (path, true), "path {number}");
            let fits = path as usize - usize::from(OVERHEAD);
            assert_eq!(ask(host, *to, fits + 1), too_big(*inside, path), "the tunnel itself sends the error");
            assert!(ask(host, *to, fits).is_reply(), "path {number}");
        }
        passed_before = path as usize - usize::from(OVERHEAD);
    }
    for router in network.path_routers.iter().chain([&network.middle]) {
        assert_eq!(snmp(router, "Ip", "FragCreates"), 0);
    }
}

/// The ICMP error that host A receives about a datagram with this type of service, if any.
fn received_error(icmp: &IcmpSocket, tos: u8) -> Option<(Ipv4Addr, Icmpv4Error)> {
    let mut buffer = [0; 2048];
    while let Some(len) = icmp.receive(&mut buffer, ATTEMPT_TIMEOUT).expect("it can be read") {
        let packet =
            Ipv4Packet::parse(&buffer[..len], Validation::Datapath).expect("the kernel gives datagrams");
        let Ok(message) = Icmpv4Message::parse(packet.payload()) else { continue };
        let Some((error, quote)) = message.error().zip(message.quote()) else { continue };
        if quote.packet().tos() == tos {
            return Some((packet.source(), error));
        }
    }
    None
}

/// Tests each ECN codepoint with one DSCP. `datagram` makes a datagram of host A with a type of
/// service and a size. The router's error must reach the sender, the outer header must have the
/// inner type of service, and a datagram that fits must arrive with it.
fn dscp_exception(plane: DataplaneChoice, datagram: impl Fn(u8, usize) -> Vec<u8>) {
    const DSCP: u8 = 0x28;
    let network = TwoPaths::build(NARROW);
    let sender = network.host_a.run(RawSocket::sender).unwrap();
    let _far = bring_up(&network.gateway_b, &with_plane(&config_b("probe = false"), plane)).unwrap();
    for tos in (0..4).map(|ecn| DSCP | ecn) {
        let config = with_plane(&config_a("dscp = \"inherit\"\nprobe = false"), plane);
        let tunnel = bring_up(&network.gateway_a, &config).unwrap();
        let icmp = network.host_a.run(IcmpSocket::open).unwrap();
        let taps = [(&*network.path_routers[0], "toA"), (&network.host_b, "eth0")]
            .map(|(host, device)| Tap::start(host, device).unwrap());
        sender.send(&datagram(tos, FULL)).expect("it is sent");
        let error = Icmpv4Error::TooBig { mtu: 1380 };
        assert_eq!(received_error(&icmp, tos), Some((INSIDE_A, error)), "type of service {tos:#x}");
        assert_eq!(tunnel.plane().tunnel().path_mtu(PEER).mtu, 1400);
        let arrived = || snmp(&network.host_b, "Ip", "InReceives");
        let before = arrived();
        sender.send(&datagram(tos, 1380)).expect("it is sent");
        wait_until("a datagram that fits arrives", || arrived() > before);
        let [outside, inside] = taps.map(Tap::finish);
        let of_a = |bytes: &&[u8]| bytes[12..16] == HOST_A.octets();
        let outer =
            outside.iter().filter_map(Frame::ipv4).filter(|bytes| bytes[9] == 4 && of_a(&&bytes[20..]));
        let types: Vec<(u8, u8)> = outer.map(|bytes| (bytes[1], bytes[21])).collect();
        assert_eq!(types, [(tos, tos); 2], "of the outer and the inner header");
        let delivered: Vec<u8> =
            inside.iter().filter_map(Frame::ipv4).filter(of_a).map(|bytes| bytes[1]).collect();
        assert_eq!(delivered, [tos]);
        tunnel.close(OnExit::Remove).unwrap();
    }
}

/// `pmtu_ipv4_dscp_icmp_exception`, with echo requests.
fn an_icmp_sender_learns_the_mtu_with_every_ecn_codepoint(plane: DataplaneChoice) {
    dscp_exception(plane, |tos, size| {
        let mut message = vec![0; size - 20];
        let len = icmpv4::build_echo(&mut message, 9, 1, &vec![0xa5; size - 28], icmpv4::EchoKind::Request);
        assert_eq!(len, Some(size - 20));
        with_tos(tos, Protocol::ICMP, &message)
    });
}

/// `pmtu_ipv4_dscp_udp_exception`, with UDP.
fn a_udp_sender_learns_the_mtu_with_every_ecn_codepoint(plane: DataplaneChoice) {
    let to = SocketAddrV4::new(HOST_B, 4242);
    dscp_exception(plane, |tos, size| {
        with_tos(tos, Protocol::UDP, &udp(HOST_A, to, &vec![0xa5; size - 28])[20..])
    });
}

fn with_tos(tos: u8, protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    ipv4_with(HOST_A, HOST_B, protocol, payload, |inner| (inner.tos, inner.dont_fragment) = (tos, true))
}

/// An overlay's name that only one test uses, with its configuration. Dropping it removes the pins
/// that a failed test leaves.
struct OwnName {
    name: String,
    config: String,
}

impl OwnName {
    fn new(test: &str, plane: DataplaneChoice, config: &str) -> Self {
        let name = format!("{test}-{}-{}", &plane_name(plane)[..2], std::process::id());
        let config = with_plane(&config.replacen("name = \"a\"", &format!("name = \"{name}\""), 1), plane);
        Self { name, config }
    }

    fn has_pins(&self) -> bool {
        let pins = pins_of(&self.name).expect("the BPF file system is there");
        pins_exist(&pins.expect("it outlives this process"))
    }
}

impl Drop for OwnName {
    fn drop(&mut self) {
        let _ = pins_of(&self.name).map(|pins| pins.map(|pins| remove_pins(&pins)));
    }
}

fn bring_up_to_stay(host: &Host, config: &str) -> Overlay {
    let config = Config::parse("a.toml", config).expect("the configuration is valid");
    // A daemon would save the learned paths here; these tests have none.
    let path_cache = std::path::Path::new("/nowhere/paths.json");
    host.run(|| Overlay::bring_up_to_stay(&config, path_cache)).unwrap()
}

/// Asserts that nothing of the overlay with that name is left on `gateway`.
fn assert_nothing_left(gateway: &Host, own: &OwnName) {
    let mut netlink = gateway.netlink().unwrap();
    assert!(netlink.link("ipipA").unwrap().is_none(), "the tunnel interface still exists");
    let ours: Vec<Route> =
        netlink.routes().unwrap().into_iter().filter(|route| route.gateway.is_none()).collect();
    assert!(
        ours.iter().all(|route| route.protocol != ROUTE_PROTOCOL),
        "a route of the overlay is left: {ours:?}"
    );
    assert!(!own.has_pins(), "a pin is left");
    let left = gateway.ns().run(|| has_leftovers(&own.name, None)).unwrap().expect("it can be asked");
    assert!(!left, "something of the overlay is left");
}

/// `cleanup_ipv4_exception`: pmtu.sh checks that a device with an exception can be deleted. After
/// the overlay is closed, no device, route or program is left, and a new start knows nothing of the
/// narrow link.
fn a_closed_overlay_leaves_nothing_behind(plane: DataplaneChoice) {
    let network = TwoPaths::build(NARROW);
    let _far = bring_up(&network.gateway_b, &with_plane(&config_b(""), plane)).unwrap();
    let own = OwnName::new("cleanup", plane, &config_a("probe = false"));
    for _ in 0..2 {
        let overlay = bring_up_to_stay(&network.gateway_a, &own.config);
        let path = overlay.plane().tunnel().path_mtu(PEER);
        assert_eq!((path.mtu, path.learned), (1500, None), "a new overlay starts with the underlay's MTU");
        assert_eq!(own.has_pins(), plane == DataplaneChoice::Ebpf);
        assert_eq!(ask(&network.host_a, HOST_B, FULL), too_big(INSIDE_A, NARROW[0]));
        assert!(overlay.plane().tunnel().path_mtu(PEER).learned.is_some());
        overlay.close(OnExit::Remove).unwrap();
        assert_nothing_left(&network.gateway_a, &own);
        assert!(!reaches(&network.host_a, HOST_B).unwrap(), "traffic passes without an overlay");
    }
}

/// `list_flush_ipv4_exception`: a hundred exceptions exist, and all are gone with the overlay.
fn a_hundred_learned_mtus_go_with_the_overlay(plane: DataplaneChoice) {
    const PEERS: u8 = 100;
    let network = TwoPaths::build(NARROW);
    // The router's ICMP limit over all destinations. Each namespace has its own since Linux 6.11.
    for knob in ["icmp_msgs_per_sec", "icmp_msgs_burst"] {
        let _ = network.path_routers[0].sysctl(&format!("ipv4/{knob}"), "10000");
    }
    let peers: String = (1..=PEERS)
        .map(|peer| {
            format!(
                "[[peer]]\nname = \"p{peer}\"\nunderlay = \"10.1.2.{peer}\"\nnetworks = [\"10.3.{peer}.0/24\"]\n"
            )
        })
        .collect();
    let config = config_a("probe = false");
    let (ours, _) = config.split_once("[[peer]]").expect("it has a peer");
    let own = OwnName::new("flush", plane, &format!("{ours}{peers}"));
    let route = "10.1.2.0/24".parse().expect("a network");
    network.gateway_a.route(route, Some(Ipv4Addr::new(10, 2, 0, 2)), None).unwrap();
    let learned = |overlay: &Overlay| {
        let tunnel = overlay.plane().tunnel();
        tunnel
            .peers()
            .map(|(peer, _)| tunnel.path_mtu(peer))
            .filter(|path| path.learned.is_some() && path.mtu == 1400)
            .count()
    };
    for _ in 0..2 {
        let overlay = bring_up_to_stay(&network.gateway_a, &own.config);
        assert_eq!(learned(&overlay), 0);
        for peer in 1..=PEERS {
            let to = Ipv4Addr::new(10, 3, peer, 1);
            assert_eq!(ask(&network.host_a, to, FULL), too_big(INSIDE_A, NARROW[0]), "peer {peer}");
            expect_path_mtu(&network.host_a, to, 1380);
        }
        assert_eq!(learned(&overlay), usize::from(PEERS));
        overlay.close(OnExit::Remove).unwrap();
        assert_nothing_left(&network.gateway_a, &own);
    }
}

/// `ipv4_route_change`: pmtu.sh changes the route of an exception, and checks that its device can
/// still be deleted. The tunnel keeps what it has learned, continues to forward, and does not block
/// the deletion.
fn a_learned_mtu_survives_route_changes(plane: DataplaneChoice) {
    let network = TwoPaths::build([1400, 1400]);
    let tunnels = network.bring_up(plane, "probe = false");
    assert_eq!(ask(&network.host_a, HOST_B, FULL), too_big(INSIDE_A, 1400));
    for turn in 0..20u8 {
        network.use_path(1 - turn % 2);
        wait_until("traffic takes the new route", || reaches(&network.host_a, HOST_B).unwrap());
        assert_eq!(tunnels.a.plane().tunnel().path_mtu(PEER).mtu, 1400, "the path MTU changed");
        assert_eq!(ask(&network.host_a, HOST_B, 1381), too_big(INSIDE_A, 1400));
    }
    network.use_path(1);
    let gateway = network.gateway_a.clone();
    let index = gateway.index("path0").unwrap();
    let deleted = std::thread::spawn(move || gateway.netlink().unwrap().delete_link(index).unwrap());
    wait_until("the old path's interface is deleted", || deleted.is_finished());
    deleted.join().expect("the interface is deleted");
    wait_until("traffic goes on", || reaches(&network.host_a, HOST_B).unwrap());
}

on_every_plane! {
    the_host_learns_the_mtu_of_the_narrow_link,
    an_icmp_sender_learns_the_mtu_with_every_ecn_codepoint,
    a_udp_sender_learns_the_mtu_with_every_ecn_codepoint,
    a_closed_overlay_leaves_nothing_behind,
    a_hundred_learned_mtus_go_with_the_overlay,
    a_learned_mtu_survives_route_changes,
}
