//! The fixture table on a whole gateway: injected frames, received frames, and counters.
//!
//! ```text
//!   host A (a receiver, and all private hosts) ── gateway A ── router (a receiver, and all peers)
//! ```
//!
//! The gateway's kernel forwards too. So an injected inner datagram has a TTL one higher than in
//! the fixture, and a delivered one has a TTL one lower.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use adit_fixtures::packet::{hex, mend, theirs, udp};
use adit_fixtures::packet_v6::bare_v6;
use adit_fixtures::site::{
    A, B, C, HOST_A, HOST_A6, HOST_B, INSIDE_A, INSIDE_A6, UNDERLAY_A6, UNDERLAY_B6, UNDERLAY_C6,
};
use adit_fixtures::{Case, Direction, Outcome, Setup, table};
use adit_lab::host::Host;
use adit_lab::two_sites::{TwoSites, bring_up};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_testbed::needs::ebpf;
use adit_testbed::test_planes::plane_name;
use adit_testbed::wire_tap;
use adit_tunnel::Totals;
use adit_wire::dscp::DscpPolicy;
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::TtlPolicy;
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6::{self, Ipv6Packet, is_ipv6};
use adit_wire::{Protocol, Validation};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::support::{Injector, WAIT_TIMEOUT, mac, wait_until};

#[test(root)]
fn the_userspace_plane_matches_the_fixture_table() {
    run(DataplaneChoice::Userspace);
}

#[test(root, ebpf)]
fn the_ebpf_plane_matches_the_fixture_table() {
    run(DataplaneChoice::Ebpf);
}

fn run(plane: DataplaneChoice) {
    let mut tunnels = BTreeMap::<String, Vec<Case>>::new();
    for case in table().into_iter().filter(|case| case.not_end_to_end.is_none()) {
        tunnels.entry(config(&case.setup, plane)).or_default().push(case);
    }
    for (config, cases) in tunnels {
        let mut testbed = Testbed::build(&config, cases[0].setup.config.underlay.first().is_ipv6());
        cases.iter().for_each(|case| testbed.expect(case));
        testbed.expect_nothing_else();
    }
}

/// The setup's tunnel as a configuration file.
fn config(setup: &Setup, plane: DataplaneChoice) -> String {
    let config = &setup.config;
    let networks = |networks: &[IpNet]| {
        networks.iter().map(|network| format!("\"{network}\"")).collect::<Vec<_>>().join(", ")
    };
    let outer = &config.outer;
    let ttl = match outer.ttl {
        TtlPolicy::Fixed(ttl) => ttl.to_string(),
        TtlPolicy::Inherit => "\"inherit\"".to_owned(),
    };
    let dscp = match outer.dscp {
        DscpPolicy::Fixed(dscp) => dscp.value().to_string(),
        DscpPolicy::Inherit => "\"inherit\"".to_owned(),
    };
    let ecn = match outer.ecn {
        EcnMode::Normal => "normal",
        EcnMode::Compatibility => "compatibility",
    };
    let peers = config.peers.iter().map(|peer| {
        let networks = networks(&peer.networks);
        format!(
            "[[peer]]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [{networks}]\n",
            peer.name, peer.underlay
        )
    });
    format!(
        "[site]\nname = \"a\"\nunderlay = \"{}\"\nnetworks = [{}]\ndataplane = \"{}\"\n\
         [tunnel]\nttl = {ttl}\ndscp = {dscp}\necn = \"{ecn}\"\ndf = {}\nmss-clamp = {}\nprobe = false\n{}",
        config.underlay,
        networks(config.peers.site_networks()),
        plane_name(plane),
        outer.df,
        config.mss_clamp,
        peers.collect::<String>()
    )
}

/// The MTU of an underlay of IPv6, which leaves as much to the inside as 1500 bytes of IPv4 do.
const MTU_OVER_IPV6: u32 = 1520;

/// Gateway A between two neighbours that send nothing by themselves.
struct Testbed {
    is_over_ipv6: bool,
    overlay: Overlay,
    inside: Injector,
    underlay: Injector,
    at_host: GatewayOutput,
    at_router: GatewayOutput,
    _placeholders: [[RawSocket; 2]; 2],
    _network: TwoSites,
}

impl Testbed {
    fn build(config: &str, is_over_ipv6: bool) -> Self {
        let network = if is_over_ipv6 {
            let network = TwoSites::build_over_ipv6().unwrap();
            network.set_underlay_mtus(MTU_OVER_IPV6).unwrap();
            network
        } else {
            TwoSites::build_with_ipv6().unwrap()
        };
        let TwoSites { host_a, gateway_a, router, .. } = &network;
        // The router has the addresses of all peers, and answers only who asks for their link-layer
        // addresses.
        router.sysctl("ipv4/ip_forward", "0").unwrap();
        router.sysctl("ipv6/conf/all/forwarding", "0").unwrap();
        let peers: [IpAddr; 2] =
            if is_over_ipv6 { [UNDERLAY_B6.into(), UNDERLAY_C6.into()] } else { [B.into(), C.into()] };
        let placeholders = peers.map(|peer| {
            router.address("lo", IpNet::from(peer)).unwrap();
            [TunnelProtocol::Ipip, TunnelProtocol::Ipv6]
                .map(|protocol| router.run(|| RawSocket::placeholder(peer, protocol)).unwrap())
        });
        // The host has no address, so it answers nothing.
        let inside = gateway_a.index("dummyA").unwrap();
        let mut netlink = gateway_a.netlink().unwrap();
        netlink.set_neighbour(inside, HOST_A, mac(host_a, "eth0")).unwrap();
        netlink.set_neighbour(inside, HOST_A6, mac(host_a, "eth0")).unwrap();
        let eth0 = host_a.index("eth0").unwrap();
        for address in [IpNet::new_assert(HOST_A.into(), 24), IpNet::new_assert(HOST_A6.into(), 64)] {
            host_a.netlink().unwrap().delete_address(eth0, address).unwrap();
        }
        // A default route lets ICMP errors to unknown sources leave.
        gateway_a.route(Ipv4Net::default(), Some(HOST_A), None).unwrap();
        gateway_a.route_v6(Ipv6Net::default(), Some(HOST_A6), None).unwrap();
        let overlay = bring_up(gateway_a, config).unwrap();
        Self {
            is_over_ipv6,
            overlay,
            inside: Injector::new(host_a, "eth0", gateway_a, "dummyA"),
            underlay: Injector::new(router, "toA", gateway_a, "underlayA"),
            at_host: GatewayOutput::new(host_a, "eth0", gateway_a, "dummyA"),
            at_router: GatewayOutput::new(router, "toA", gateway_a, "underlayA"),
            _placeholders: placeholders,
            _network: network,
        }
    }

    /// Sends the packet of a case, and waits for its outcome and counters.
    fn expect(&mut self, case: &Case) {
        let before = self.overlay.plane().totals();
        match case.direction {
            Direction::Encap => {
                let packet = with_ttl_change(&case.packet.bytes, 1);
                if is_ipv6(&packet) { self.inside.send_ipv6(&packet) } else { self.inside.send(&packet) }
            }
            Direction::Decap => self.send_outer(&case.packet.bytes),
        }
        match &case.outcome {
            Outcome::Sent(frames) => {
                for frame in frames {
                    self.at_router.expect(&case.name, &normalized(frame));
                }
            }
            Outcome::Delivered(inner) => self.at_host.expect(&case.name, &with_ttl_change(inner, -1)),
            Outcome::Dropped(_) | Outcome::Answered { .. } | Outcome::AnsweredV6 { .. } => {}
        }
        let expected = case.counts.totals(before.peers.len());
        // Whose the last drops were is compared where both planes are given the same packets.
        let grown =
            || Totals { last_drops: expected.last_drops, ..since(&before, &self.overlay.plane().totals()) };
        let what = format!("{}: {expected:?}", case.name);
        wait_until(&what, || grown() == expected);
    }

    /// Sends an outer packet from the router.
    fn send_outer(&mut self, packet: &[u8]) {
        if self.is_over_ipv6 { self.underlay.send_ipv6(packet) } else { self.underlay.send(packet) }
    }

    /// Fails if an unexpected packet has arrived. A sentinel that is sent last, in each direction,
    /// must be the next packet.
    fn expect_nothing_else(&mut self) {
        const SENTINEL: u16 = 0x5e17;
        self.inside.send(&with_ttl_change(&udp(HOST_A, HOST_B, 64).id(SENTINEL).build(), 1));
        let outer = self.at_router.next(WAIT_TIMEOUT).expect("the sentinel is sent");
        let header_len = if self.is_over_ipv6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN };
        assert_eq!(identification(&outer[header_len..]), SENTINEL, "unexpected packet {}", hex(&outer));
        let inner = udp(HOST_B, HOST_A, 64).id(SENTINEL);
        let outer = if self.is_over_ipv6 {
            bare_v6(UNDERLAY_B6, UNDERLAY_A6, Protocol::IPIP, inner.build()).build()
        } else {
            theirs(B, inner).build()
        };
        self.send_outer(&outer);
        let inner = self.at_host.next(WAIT_TIMEOUT).expect("the sentinel is delivered");
        assert_eq!(identification(&inner), SENTINEL, "unexpected packet {}", hex(&inner));
    }
}

fn identification(datagram: &[u8]) -> u16 {
    u16::from_be_bytes([datagram[4], datagram[5]])
}

/// What the gateway forwards on one of its cables.
struct GatewayOutput(wire_tap::FrameReceiver);

impl GatewayOutput {
    fn new(host: &Host, device: &str, gateway: &Host, gateway_device: &str) -> Self {
        Self(wire_tap::FrameReceiver::new(host, device, gateway, gateway_device).unwrap())
    }

    #[track_caller]
    fn expect(&mut self, name: &str, datagram: &[u8]) {
        let received = self
            .next(WAIT_TIMEOUT)
            .unwrap_or_else(|| panic!("{name}: nothing arrived instead of {}", hex(datagram)));
        assert_eq!(hex(&received), hex(datagram), "{name}");
        assert!(received == datagram, "{name}: the payload differs");
    }

    /// The next datagram that the gateway forwards, or `None` after a timeout.
    fn next(&mut self, timeout: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.0.next_of_any_family(left).unwrap()?;
            if let Some(datagram) = forwarded(&received) {
                return Some(datagram);
            }
        }
    }
}

/// A packet without padding and with a normalized identification, or `None` if the gateway itself
/// sent it.
fn forwarded(bytes: &[u8]) -> Option<Vec<u8>> {
    if is_ipv6(bytes) {
        let packet = Ipv6Packet::parse(bytes, Validation::Datapath).ok()?;
        if packet.source() == UNDERLAY_A6 {
            let is_outer = !matches!(packet.next_header(), Protocol::ICMPV6);
            return is_outer.then(|| normalized(packet.as_bytes()));
        }
        let is_own = packet.source() == INSIDE_A6 || packet.source().is_unicast_link_local();
        return (!is_own && !packet.source().is_unspecified()).then(|| packet.as_bytes().to_vec());
    }
    let packet = Ipv4Packet::parse(bytes, Validation::Datapath).ok()?;
    match packet.source() {
        INSIDE_A => None,
        A => {
            let is_outer = matches!(packet.protocol(), Protocol::IPIP | Protocol::IPV6);
            is_outer.then(|| normalized(packet.as_bytes()))
        }
        _ => Some(packet.as_bytes().to_vec()),
    }
}

/// Clears what may have any value: the identification of an outer datagram without DF, and the flow
/// label, whose key is the gateway's own.
fn normalized(outer: &[u8]) -> Vec<u8> {
    let mut outer = outer.to_vec();
    if is_ipv6(&outer) {
        assert!(outer[1..4] != [outer[1] & 0xf0, 0, 0], "a packet of a flow has a label: {}", hex(&outer));
        outer[1] &= 0xf0;
        outer[2..4].fill(0);
        return outer;
    }
    if outer[6] & 0x40 == 0 {
        outer[4..6].fill(0);
        mend(&mut outer);
    }
    outer
}

/// The same packet with this change of its TTL or hop limit.
fn with_ttl_change(packet: &[u8], more: i8) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let at = if is_ipv6(&packet) { 7 } else { 8 };
    let left = packet[at].checked_add_signed(more).expect("a host forwards it");
    let set = if is_ipv6(&packet) { ipv6::set_hop_limit } else { ipv4::set_ttl };
    set(&mut packet, left).expect("it has a header");
    packet
}

/// The growth of the counters, without the time and TTL of the last datagram.
fn since(before: &Totals, after: &Totals) -> Totals {
    let mut since = after.since(before);
    for peer in &mut since.peers {
        (peer.last_rx, peer.last_ttl) = (None, None);
    }
    since
}
