//! VPP, test/test_ipip.py: refragmentation in a hairpin, datagrams of many sizes, a thousand
//! reassemblies of outer fragments in a row, and incomplete fragments.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::host::Host;
use adit_lab::ping::{Answer, ping};
use adit_lab::two_sites::{HOST_A, HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::hub::{HubNetwork, Site, UNDERLAY};
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation, fragment};

use crate::planes::{bring_up_on, bring_up_with, on_every_plane};
use crate::support::{ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, Injector, Random, drops_since, ipv4_with, snmp, udp};

fn bind(host: &Host, address: Ipv4Addr) -> UdpSocket {
    // Clears DF, so that any router may fragment them.
    host.sysctl("ipv4/ip_no_pmtu_disc", "1").unwrap();
    let socket = host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(address, 0))).unwrap();
    let socket = socket.expect("a port is free");
    socket.set_read_timeout(Some(ATTEMPT_TIMEOUT)).expect("there are timeouts");
    socket
}

/// Sends a payload, and returns true if it arrives unchanged.
fn passes(from: &UdpSocket, to: &UdpSocket, payload: &[u8]) -> bool {
    let mut buffer = vec![0; 65_536];
    let address = to.local_addr().expect("it is bound");
    assert_eq!(from.send_to(payload, address).expect("it is sent"), payload.len());
    match to.recv(&mut buffer) {
        Ok(len) => {
            assert!(buffer[..len] == *payload, "sent {} bytes, received {len} or other bytes", payload.len());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            false
        }
    }
}

/// The hairpin of `test_ipip4`: from spoke to spoke through the hub, whose path to the second spoke
/// is narrower. Without DF the hub fragments the inner datagram into outer ones that fit; with DF
/// it reports the MTU that fits.
fn the_hub_fragments_inner_datagrams_for_a_narrow_spoke(plane: DataplaneChoice) {
    const NARROW: u32 = 1300;
    let network = HubNetwork::build().unwrap();
    network.router.mtu(Site::Two.port(), NARROW).unwrap();
    network.of(Site::Two).gateway.mtu(UNDERLAY, NARROW).unwrap();
    let overlays = network.bring_up(plane).unwrap();
    let (one, two) = (&network.of(Site::One).host, &network.of(Site::Two).host);
    let ask = |size| one.run(|| ping(Site::Two.host(), size, 64, ANSWER_TIMEOUT)).unwrap();
    let too_big = Answer::Refused { by: Site::Hub.inside(), error: Icmpv4Error::TooBig { mtu: 1280 } };
    assert_eq!(ask(1480), too_big, "the hub learns the MTU and reports it");
    assert_eq!(ask(1281), too_big, "the hub itself sends the error");
    assert!(ask(1280).is_reply());

    let (from, to) = (bind(one, Site::One.host()), bind(two, Site::Two.host()));
    let hub = overlays.of(Site::Hub).plane();
    let before = hub.totals();
    let tap = Tap::start(&network.router, Site::Two.port()).unwrap();
    let mut random = Random::seeded(23);
    // Sizes that the first leg takes whole, and the second leg in one or two pieces.
    for size in [1200, 1252, 1253, 1300, 1400, 1452] {
        assert!(passes(&from, &to, &random.bytes(size)), "{size} bytes");
    }
    let frames = tap.finish();
    let to_two: Vec<&[u8]> = frames
        .iter()
        .filter_map(Frame::ipv4)
        .filter(|bytes| bytes[9] == 4 && bytes[16..20] == Site::Two.underlay().octets())
        // Exclude the hub's probes and its replies to others.
        .filter(|bytes| Protocol(bytes[29]) == Protocol::UDP)
        .collect();
    assert_eq!(to_two.len(), 2 + 4 * 2);
    for bytes in to_two {
        let outer = Ipv4Packet::parse(bytes, Validation::Strict).expect("a whole outer datagram");
        assert!(
            !outer.is_fragment() && outer.total_len() <= NARROW as usize,
            "the hub must fragment the inner datagram"
        );
    }
    assert_eq!(drops_since(&before, &hub.totals()), []);
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0);
}

/// `test_frag`'s sizes, 1,000 to 9,000 bytes, over an underlay of `mtu`.
fn sizes(plane: DataplaneChoice, mtu: u32) {
    let network = TwoSites::build().unwrap();
    network.set_cable_mtus(mtu).unwrap();
    let TwoSites { host_a, router, host_b, .. } = &network;
    let tunnels = bring_up_on(&network, plane);
    let before = [&tunnels.a, &tunnels.b].map(|tunnel| tunnel.plane().totals());
    let (a, b) = (bind(host_a, HOST_A), bind(host_b, HOST_B));
    let mut random = Random::seeded(29);
    for size in (1000..=9000).step_by(125).flat_map(|size| [size - 28, size - 20, size]) {
        assert!(passes(&a, &b, &random.bytes(size)) && passes(&b, &a, &random.bytes(size)), "{size} bytes");
    }
    for (tunnel, before) in [&tunnels.a, &tunnels.b].into_iter().zip(&before) {
        assert_eq!(drops_since(before, &tunnel.plane().totals()), []);
    }
    assert_eq!(snmp(router, "Ip", "FragCreates"), 0);
}

fn sizes_1000_to_9000_arrive_over_an_underlay_of_9000(plane: DataplaneChoice) {
    sizes(plane, 9000);
}

fn sizes_1000_to_9000_arrive_over_an_underlay_of_1500(plane: DataplaneChoice) {
    sizes(plane, 1500);
}

/// The fragments of an outer datagram from gateway B with an inner datagram for this socket of host
/// A.
fn outer_fragments(to: &UdpSocket, identification: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let port = to.local_addr().expect("it is bound").port();
    let inner = udp(HOST_B, SocketAddrV4::new(HOST_A, port), payload);
    let outer = ipv4_with(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &inner, |outer| {
        outer.identification = identification;
    });
    let packet = Ipv4Packet::parse(&outer, Validation::Strict).expect("it is a datagram");
    let pieces = fragment::fragments(&packet, 576).expect("it may be fragmented");
    pieces.map(|piece| [piece.header(), &outer[piece.payload()]].concat()).collect()
}

/// `test_ipip_reassembly`: a thousand datagrams in a row, each of three fragments in a different
/// order. None takes resources from the next.
fn a_thousand_reassemblies_succeed_in_a_row(plane: DataplaneChoice) {
    const COUNT: u16 = 1000;
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let receiver = bind(&network.host_a, HOST_A);
    let mut peer = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    let before = tunnels.a.plane().totals();
    let mut random = Random::seeded(31);
    let mut buffer = [0; 2048];
    for number in 0..COUNT {
        let payload = random.bytes(1400);
        let mut pieces = outer_fragments(&receiver, number, &payload);
        assert_eq!(pieces.len(), 3);
        pieces.rotate_left(usize::from(number) % 3);
        pieces.iter().for_each(|piece| peer.add(piece));
        peer.flush();
        let len = receiver.recv(&mut buffer).expect("it is delivered");
        assert!(buffer[..len] == payload, "datagram {number} has changed");
    }
    let after = tunnels.a.plane().totals();
    assert_eq!(after.peers[0].rx_packets - before.peers[0].rx_packets, u64::from(COUNT));
    assert_eq!(drops_since(&before, &after), []);
}

/// VPP tests a first fragment alone; this is a last one alone. It is not delivered, and does not
/// disturb others.
fn a_last_fragment_alone_disturbs_nothing(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_with(&network, plane, "probe = false");
    let receiver = bind(&network.host_a, HOST_A);
    let mut peer = Injector::new(&network.router, "toA", &network.gateway_a, "underlayA");
    let before = tunnels.a.plane().totals();
    let last_fragment = outer_fragments(&receiver, 1, &[1; 1400]).pop().expect("it is in pieces");
    peer.send(&last_fragment);
    let payload = Random::seeded(37).bytes(1400);
    for piece in outer_fragments(&receiver, 2, &payload) {
        peer.add(&piece);
    }
    peer.flush();
    let mut buffer = [0; 2048];
    let len = receiver.recv(&mut buffer).expect("the complete datagram is delivered");
    assert!(buffer[..len] == payload, "another datagram was delivered first");
    let after = tunnels.a.plane().totals();
    assert_eq!(after.peers[0].rx_packets - before.peers[0].rx_packets, 1);
    assert_eq!(drops_since(&before, &after), []);
}

on_every_plane! {
    the_hub_fragments_inner_datagrams_for_a_narrow_spoke,
    sizes_1000_to_9000_arrive_over_an_underlay_of_9000,
    sizes_1000_to_9000_arrive_over_an_underlay_of_1500,
    a_thousand_reassemblies_succeed_in_a_row,
    a_last_fragment_alone_disturbs_nothing,
}
