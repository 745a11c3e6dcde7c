//! Configurations and routes that form a loop. Each datagram is soon dropped and counted, and never
//! multiplies.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_dataplane::DataPlane;
use adit_lab::capture::{Frame, Tap};
use adit_lab::checks::reaches;
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, Tunnels, TwoSites, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_linux::netlink::{Route, STATIC_PROTOCOL};
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::hub::{DEVICE, HubNetwork, Site, UNDERLAY};
use adit_testbed::test_planes::{plane_name, with_plane};
use adit_tunnel::{DropReason, Totals};
use adit_wire::Protocol;
use ipnet::Ipv4Net;

use crate::planes::{bring_up_with, on_every_plane};
use crate::support::{
    Injector, WAIT_TIMEOUT, config_a, config_b, drops_since, ipv4_with, snmp, udp, wait_until,
};

/// An address in the network that every site configures behind another one.
const UNASSIGNED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const UNASSIGNED_NETWORK: &str = "10.99.0.0/16";
/// The datagrams of the second round. The first round sends one.
const MANY: usize = 1000;
/// How long a link must be silent before the test concludes that nothing circulates. A circulating
/// datagram would pass thousands of times.
const QUIET: Duration = Duration::from_millis(100);

fn datagram(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    udp(source, SocketAddrV4::new(destination, 4242), b"round and round")
}

/// Sends this datagram `count` times from `host`.
fn send(host: &Host, datagram: &[u8], count: usize) {
    let socket = host.run(RawSocket::sender).unwrap();
    for _ in 0..count {
        socket.send(datagram).expect("it is sent");
    }
}

/// Waits until the tunnel has dropped `count` more datagrams.
fn wait_for_drops(plane: &dyn DataPlane, before: &Totals, count: usize) {
    wait_until("all datagrams are counted", || plane.totals().dropped() - before.dropped() >= count as u64);
}

/// Captures at `device` of `router` during `event` and until nothing has passed for [`QUIET`].
/// Returns the number of outer datagrams.
fn outer_datagrams(router: &Host, device: &str, event: impl FnOnce()) -> usize {
    let tap = Tap::start(router, device).unwrap();
    event();
    let passed = || {
        let counters = router
            .ns()
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))
            .unwrap()
            .expect("the kernel counts");
        let line = counters.lines().find(|line| line.trim_start().starts_with(&format!("{device}:")));
        line.expect("it has this interface").to_owned()
    };
    let deadline = Instant::now() + WAIT_TIMEOUT;
    let (mut last, mut since) = (passed(), Instant::now());
    while since.elapsed() < QUIET {
        std::thread::sleep(QUIET / 20);
        let now = passed();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        assert!(Instant::now() < deadline, "something still circulates after {WAIT_TIMEOUT:?}");
    }
    let is_outer = |frame: &&Frame| frame.ipv4().is_some_and(|bytes| bytes[9] == 4);
    tap.finish().iter().filter(is_outer).count()
}

fn with_unassigned(config: &str, network: &str) -> String {
    let peers = format!("networks = [\"{network}\"]");
    let (before, behind) = config.rsplit_once(&peers).expect("it is the peer's network");
    format!("{before}networks = [\"{network}\", \"{UNASSIGNED_NETWORK}\"]{behind}")
}

/// Two gateways that each configure a network behind the other: a datagram crosses the underlay
/// once, and the other gateway refuses it because it would return to its source.
fn two_gateways_that_point_at_each_other_do_not_loop(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let up = |gateway, config: String| bring_up(gateway, &with_plane(&config, plane)).unwrap();
    let tunnels = Tunnels {
        a: up(&network.gateway_a, with_unassigned(&config_a("probe = false"), "192.168.199.0/24")),
        b: up(&network.gateway_b, with_unassigned(&config_b("probe = false"), "172.16.17.0/24")),
    };
    for count in [1, MANY] {
        let before = tunnels.b.plane().totals();
        let frames = outer_datagrams(&network.router, "toA", || {
            send(&network.host_a, &datagram(HOST_A, UNASSIGNED), count);
            wait_for_drops(tunnels.b.plane(), &before, count);
        });
        assert_eq!(frames, count, "each datagram crosses the underlay once");
        let drops = drops_since(&before, &tunnels.b.plane().totals());
        assert_eq!(drops, [(DropReason::InnerDestinationNotOurs, count as u64)]);
    }
}

/// The underlay's route to the peer leads into the tunnel itself. An outer datagram that the kernel
/// routes there must not be encapsulated again.
fn a_route_to_the_peer_through_the_tunnel_does_not_loop(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let (gateway, tunnel) = (&network.gateway_a, tunnels.a.plane());
    let inner = datagram(HOST_A, HOST_B);
    let alone = outer_datagrams(&network.router, "toA", || {
        send(&network.host_a, &inner, 1);
        wait_until("it arrives", || tunnels.b.plane().totals().peers[0].rx_packets > 0);
    });
    assert!(
        (1..=2).contains(&alone),
        "expected the datagram and perhaps its Port Unreachable: {alone} frames"
    );

    gateway.route(Ipv4Net::from(UNDERLAY_B), None, Some("ipipA")).unwrap();
    // Until the tunnel follows the route, datagrams take the old one.
    wait_until("the tunnel follows the route", || {
        let before = tunnel.totals();
        send(&network.host_a, &inner, 1);
        outer_datagrams(&network.router, "toA", || ()) == 0 && tunnel.totals().dropped() > before.dropped()
    });
    for count in [1, MANY] {
        let before = tunnel.totals();
        let frames = outer_datagrams(&network.router, "toA", || {
            send(&network.host_a, &inner, count);
            wait_for_drops(tunnel, &before, count);
        });
        assert_eq!(frames, 0, "an outer datagram left");
        let after = tunnel.totals();
        let drops = drops_since(&before, &after);
        assert_eq!(drops, [(DropReason::NestedEncapsulation, count as u64)], "each is refused once");
        assert_eq!(after.peers[0].tx_packets - before.peers[0].tx_packets, count as u64);
    }
    // A datagram that gateway A itself sends to the peer's address is dropped too.
    let before = tunnel.totals();
    send(gateway, &datagram(UNDERLAY_A, UNDERLAY_B), 1);
    wait_until("it is counted", || tunnel.totals().dropped() > before.dropped());

    let route = Route {
        destination: Ipv4Net::from(UNDERLAY_B).into(),
        device: Some(gateway.index("ipipA").unwrap()),
        protocol: STATIC_PROTOCOL,
        ..Route::default()
    };
    gateway.netlink().unwrap().delete_route(&route).unwrap();
    wait_until("the tunnel recovers by itself", || reaches(&network.host_a, HOST_B).unwrap());
}

/// The configuration of one site of a ring. It has the unassigned network behind the next site, and
/// `source_network` behind the previous one.
fn ring(site: Site, plane: DataplaneChoice, source_network: Option<&str>) -> String {
    let (next, previous) = neighbours(site);
    let peer = |peer: Site, also: Option<&str>| {
        let networks: Vec<String> = [Some(peer.network().to_string()), also.map(str::to_owned)]
            .into_iter()
            .flatten()
            .map(|network| format!("\"{network}\""))
            .collect();
        let networks = networks.join(", ");
        format!(
            "[[peer]]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [{networks}]\n",
            peer.name(),
            peer.underlay()
        )
    };
    format!(
        "[site]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\ndevice = \"{DEVICE}\"\n\
         dataplane = \"{}\"\n[tunnel]\nprobe = false\n{}{}",
        site.name(),
        site.underlay(),
        site.network(),
        plane_name(plane),
        peer(next, Some(UNASSIGNED_NETWORK)),
        peer(previous, source_network),
    )
}

/// The next and the previous site of the ring.
fn neighbours(site: Site) -> (Site, Site) {
    match site {
        Site::Hub => (Site::One, Site::Two),
        Site::One => (Site::Two, Site::Hub),
        Site::Two => (Site::Hub, Site::One),
    }
}

fn totals(overlays: &[Overlay; 3]) -> [Totals; 3] {
    std::array::from_fn(|site| overlays[site].plane().totals())
}

/// Three sites, each of which configures the network behind the next one. The third site refuses
/// the datagram, because it arrives from the second but its source is not behind the second.
fn the_third_site_of_a_ring_refuses_the_datagram(plane: DataplaneChoice) {
    let network = HubNetwork::build().unwrap();
    let overlays =
        Site::ALL.map(|site| bring_up(&network.of(site).gateway, &ring(site, plane, None)).unwrap());
    for count in [1, MANY] {
        let before = totals(&overlays);
        let sent = datagram(Site::Hub.host(), UNASSIGNED);
        let frames = outer_datagrams(&network.router, Site::One.port(), || {
            send(&network.of(Site::Hub).host, &sent, count);
            wait_for_drops(overlays[2].plane(), &before[2], count);
        });
        assert_eq!(frames, 2 * count, "from the hub to site one, and on to site two");
        let after = totals(&overlays);
        let drops: Vec<_> =
            before.iter().zip(&after).map(|(before, after)| drops_since(before, after)).collect();
        let refused = vec![(DropReason::InnerSourceNotFromPeer, count as u64)];
        assert_eq!(drops, [vec![], vec![], refused]);
    }
}

/// The worst case of wrong configurations: each site also has the source's network behind the
/// previous site. Then every site accepts the datagram, and only the TTL ends it, which each site
/// decrements. The kernel sends Time Exceeded to the source, and another site refuses that.
fn the_ttl_ends_a_datagram_in_a_consistent_ring(plane: DataplaneChoice) {
    const TTL: u8 = 64;
    let source = Ipv4Addr::new(10, 88, 0, 1);
    let network = HubNetwork::build().unwrap();
    let overlays = Site::ALL.map(|site| {
        let config = ring(site, plane, Some("10.88.0.0/16"));
        bring_up(&network.of(site).gateway, &config).unwrap()
    });
    let hub = &network.of(Site::Hub).gateway;
    let mut underlay = Injector::new(&network.router, Site::Hub.port(), hub, UNDERLAY);
    let inner = datagram(source, UNASSIGNED);
    let outer = ipv4_with(Site::Two.underlay(), Site::Hub.underlay(), Protocol::IPIP, &inner, |_| {});
    let time_exceeded = || -> u64 {
        Site::ALL.map(|site| snmp(&network.of(site).gateway, "Icmp", "OutTimeExcds")).iter().sum()
    };
    for count in [1, MANY] {
        let (before, expired) = (totals(&overlays), time_exceeded());
        let frames = outer_datagrams(&network.router, Site::Hub.port(), || {
            for _ in 0..count {
                underlay.add(&outer);
            }
            underlay.flush();
            wait_until("a TTL has expired", || time_exceeded() > expired);
        });
        // Of every three hops, one leaves the hub and one reaches it. The answers add a few frames.
        let max_frames = count * (usize::from(TTL) * 2 / 3 + 4);
        assert!(frames <= max_frames, "{frames} frames of {count} datagrams, more than {max_frames}");
        // Only the kernels' answers are refused. They are few for one destination
        // (`icmp_ratelimit`).
        let drops = || -> u64 {
            totals(&overlays).iter().zip(&before).map(|(now, then)| now.dropped() - then.dropped()).sum()
        };
        if count == 1 {
            wait_until("the answer is refused", || drops() == 1);
            assert_eq!(time_exceeded() - expired, 1, "one TTL has expired");
            assert!(frames >= usize::from(TTL) / 2, "it did not circulate: {frames} frames");
        }
        assert!(
            drops() <= time_exceeded() - expired,
            "{} drops, {} answers",
            drops(),
            time_exceeded() - expired
        );
    }
}

on_every_plane! {
    alone;
    two_gateways_that_point_at_each_other_do_not_loop,
    a_route_to_the_peer_through_the_tunnel_does_not_loop,
    the_third_site_of_a_ring_refuses_the_datagram,
    the_ttl_ends_a_datagram_in_a_consistent_ring,
}
