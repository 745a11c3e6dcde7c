//! Transfers from host to host with all bytes compared: TCP in both directions at once, UDP of many
//! sizes, and a narrow link behind a router.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;

use adit_config::Config;
use adit_control::reconcile::desired::{Machine, tunnel_config};
use adit_dataplane::userspace::UserspacePlane;
use adit_dataplane::{DataPlane, TunnelInterface};
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, Tunnels, TwoSites, bring_up};
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Netlink, VethPair};
use adit_tunnel::{DropReason, PeerIndex, Tunnel};
use ipnet::IpNet;

use crate::support::stream::Stream;
use crate::support::{ANSWER_TIMEOUT, Random, config_a, config_b, drops_since, snmp};

const MEGABYTE: usize = 1 << 20;
const CHUNK: usize = 64 * 1024;
const PEER: PeerIndex = PeerIndex::new(0);

/// Sends a stream of `len` bytes and compares what arrives.
fn stream(from: &Host, to: &Host, address: Ipv4Addr, seed: u64, len: usize) {
    let stream = Stream { seed, len, write: CHUNK, nodelay: false };
    let (sent, received) = stream.send((from, to), address);
    assert_eq!(received, sent, "{len} bytes from {} to {} changed", from.name(), to.name());
}

/// Sends `streams` streams of `len` bytes in each direction, all at once.
fn both_ways(network: &TwoSites, streams: u64, len: usize) {
    let (a, b) = (&network.host_a, &network.host_b);
    std::thread::scope(|scope| {
        for number in 0..streams {
            scope.spawn(move || stream(a, b, HOST_B, 2 * number, len));
            scope.spawn(move || stream(b, a, HOST_A, 2 * number + 1, len));
        }
    });
}

#[test(root)]
fn sixty_four_megabytes_arrive_in_both_directions() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    both_ways(&network, 1, 64 * MEGABYTE);
    for tunnel in [&tunnels.a, &tunnels.b] {
        let totals = tunnel.plane().totals();
        assert!(totals.peers[0].tx_bytes > 64 << 20 && totals.peers[0].rx_bytes > 64 << 20, "{totals:?}");
        assert_eq!(totals.dropped(), 0, "{:?}", totals.drops_by_reason().collect::<Vec<_>>());
    }
}

/// Builds a network with a narrow link behind the router. Only the router knows its MTU. Callers
/// switch MSS clamping off if TCP must send segments that are too long.
fn narrow(tunnel: &str) -> (TwoSites, Tunnels) {
    let network = TwoSites::build().unwrap();
    network.router.mtu("toB", 1400).unwrap();
    network.gateway_b.mtu("underlayB", 1400).unwrap();
    let a = bring_up(&network.gateway_a, &config_a(tunnel)).unwrap();
    let b = bring_up(&network.gateway_b, &config_b(tunnel)).unwrap();
    (network, Tunnels { a, b })
}

/// RFC 2003 section 5.1: the tunnel learns the path MTU from the router, and the senders learn it
/// from the tunnel.
#[test(root)]
fn the_path_mtu_is_learned_from_a_router() {
    let (network, tunnels) = narrow("mss-clamp = false");
    let tunnel = tunnels.a.plane().tunnel();
    assert_eq!(tunnel.path_mtu(PEER).mtu, 1500);
    // The first stream goes to B only. Otherwise B would announce what it learned as its MSS.
    stream(&network.host_a, &network.host_b, HOST_B, 7, MEGABYTE);
    both_ways(&network, 1, 64 * MEGABYTE);
    assert_eq!((tunnel.path_mtu(PEER).mtu, tunnel.path_mtu(PEER).learned.is_some()), (1400, true));
    assert!(tunnels.a.plane().totals().icmp.relayed > 0, "host A received no error");
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0);
}

/// With `df = false` and senders without DF, routers fragment the outer datagram and the peer
/// reassembles it.
#[test(root)]
fn the_router_fragments_outer_datagrams_without_df() {
    let (network, tunnels) = narrow("mss-clamp = false\ndf = false");
    for host in [&network.host_a, &network.host_b] {
        host.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    }
    both_ways(&network, 1, 64 * MEGABYTE);
    assert!(tunnels.a.plane().tunnel().path_mtu(PEER).learned.is_none(), "the tunnel learned a path MTU");
    assert!(snmp(&network.router, "Ip", "FragCreates") > 1000, "the router fragmented too little");
    assert_eq!(tunnels.b.plane().totals().drops_of(DropReason::OuterFragment), 0);
}

/// With `df = false` an inner DF is still honoured, so the path MTU is learned.
#[test(root)]
fn an_inner_df_is_honoured_when_the_outer_df_is_off() {
    let (network, tunnels) = narrow("mss-clamp = false\ndf = false");
    stream(&network.host_a, &network.host_b, HOST_B, 7, MEGABYTE);
    both_ways(&network, 1, 4 * MEGABYTE);
    assert!(tunnels.a.plane().tunnel().path_mtu(PEER).learned.is_some());
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0);
}

/// Creates a veth pair in the calling thread's network namespace.
fn two_queue_interface(device: &str) -> Result<TunnelInterface, adit_linux::error::Error> {
    let (mac, hidden_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let pair = VethPair {
        name: device.to_owned(),
        mac,
        mtu: 1480,
        hidden: format!("{device}-h"),
        hidden_mac,
        hidden_mtu: 65_535,
    };
    let mut netlink = Netlink::open()?;
    netlink.add_veth_pair(&pair, None)?;
    adit_linux::ethtool::limit_offloads(device)?;
    let mut set_up = |name: &str| {
        let link = netlink.link(name)?.expect("it was created");
        netlink.set_no_arp(link.index)?;
        netlink.set_up(link.index).map(|()| link.index)
    };
    Ok(TunnelInterface {
        ipv6: false,
        index: set_up(device)?,
        hidden: set_up(&pair.hidden)?,
        name: pair.name,
        mac,
        mtu: 1480,
        hidden_name: pair.hidden,
        hidden_mac,
        queues: 2,
        scope: NetScope::default(),
    })
}

/// A data plane like an overlay's, but with two queues on any machine.
fn two_queues(gateway: &Host, config: &str, device: &str) -> UserspacePlane {
    let config = Config::parse("test.toml", config).expect("the configuration is valid");
    let plane = gateway
        .run(|| {
            let interface = two_queue_interface(device)?;
            let underlay = config.site.underlay.addresses().expect("the file has the address");
            let local = underlay.iter().collect();
            let machine = Machine { underlay, local, underlay_mtu: 1500, vrf: None };
            let tunnel =
                Tunnel::new(tunnel_config(&config, &machine)).expect("the configuration makes a tunnel");
            UserspacePlane::start(Arc::new(tunnel), &interface, 0)
        })
        .unwrap();
    gateway.sysctl(&format!("ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
    for network in config.peers.iter().flat_map(|peer| &peer.networks) {
        let IpNet::V4(network) = network else { panic!("{network} is not of IPv4") };
        gateway.route(*network, None, Some(device)).unwrap();
    }
    plane
}

#[test(root)]
fn several_streams_arrive_through_two_queues() {
    let network = TwoSites::build().unwrap();
    let a = two_queues(&network.gateway_a, &config_a(""), "ipipA");
    let b = two_queues(&network.gateway_b, &config_b(""), "ipipB");
    let before = [a.totals(), b.totals()];
    both_ways(&network, 4, 16 * MEGABYTE);
    for (plane, before) in [&a, &b].into_iter().zip(&before) {
        assert_eq!(drops_since(before, &plane.totals()), []);
    }
}

/// Sends datagrams of `sizes` bytes of payload from host A to host B, one after the other, and
/// returns the sizes that arrived. Fails if one changed.
fn datagrams(network: &TwoSites, sizes: &[usize]) -> Vec<usize> {
    let bind = |host: &Host, address| {
        host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, 0))).unwrap().expect("a port is free")
    };
    let sender = bind(&network.host_a, HOST_A);
    let receiver = bind(&network.host_b, HOST_B);
    receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
    let to = receiver.local_addr().expect("it is bound");
    let mut random = Random::seeded(7);
    let mut buffer = vec![0; 65_536];
    let mut arrived = Vec::new();
    for &size in sizes {
        let payload = random.bytes(size);
        sender.send_to(&payload, to).expect("the host itself takes every size");
        match receiver.recv_from(&mut buffer) {
            Ok((len, from)) => {
                assert!(buffer[..len] == payload, "sent {size} bytes, received {len} other bytes");
                assert_eq!(from.ip(), HOST_A);
                arrived.push(size);
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    arrived
}

fn sizes() -> Vec<usize> {
    // Sizes around the edges: multiples of eight, the MTUs 1400 and 1500 less one and two headers,
    // two and three fragments, the largest.
    let edges = [0, 1380, 1400, 1460, 1480, 1500, 2800, 2960, 4440, 64_992];
    let around = |edge: usize| (edge.saturating_sub(30)..edge + 9).step_by(if edge == 0 { 1 } else { 2 });
    let mut sizes: Vec<usize> = edges.into_iter().flat_map(around).collect();
    let mut random = Random::seeded(11);
    sizes.extend((0..100).map(|_| random.within(0..65_000)));
    sizes.push(65_000);
    sizes
}

#[test(root)]
fn datagrams_of_every_size_arrive_unchanged() {
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    // Clears DF, so that any router may fragment them.
    network.host_a.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    assert_eq!(datagrams(&network, &sizes()), sizes());
    assert_eq!(tunnels.a.plane().totals().dropped() + tunnels.b.plane().totals().dropped(), 0);
}

/// Once the tunnel knows the narrow link, it fragments the inner datagrams. Before that, the router
/// refuses outer ones with DF, and only those may be missing.
#[test(root)]
fn only_one_datagram_is_lost_behind_a_narrow_link() {
    let (network, tunnels) = narrow("");
    network.host_a.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    let sizes = sizes();
    let arrived = datagrams(&network, &sizes);
    assert_eq!(sizes.len() - arrived.len(), 1, "the tunnel learns from one lost datagram");
    assert_eq!(tunnels.a.plane().tunnel().path_mtu(PEER).mtu, 1400);
}

/// With `df = false` the router fragments and refuses nothing, so every datagram arrives.
#[test(root)]
fn datagrams_of_every_size_arrive_when_the_outer_df_is_off() {
    let (network, _tunnels) = narrow("df = false");
    network.host_a.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    assert_eq!(datagrams(&network, &sizes()), sizes());
    assert!(snmp(&network.router, "Ip", "FragCreates") > 100);
}
