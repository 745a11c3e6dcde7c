//! The hub network: to the hosts behind the spokes, the hub is like a router.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::capture::{Frame, Tap};
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_linux::sockets::raw::RawSocket;
use adit_testbed::hub::{HubNetwork, Overlays, Site, UNDERLAY};
use adit_testbed::transfer::Transfer;
use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;

use crate::planes::on_every_plane;
use crate::support::{
    ANSWER_TIMEOUT, ATTEMPT_TIMEOUT, Injector, Random, drops_since, ipv4_with, snmp, udp, wait_until,
};

/// ECN of the type of service (RFC 3168 section 5).
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

fn build(plane: DataplaneChoice) -> (HubNetwork, Overlays) {
    let network = HubNetwork::build().unwrap();
    let overlays = network.bring_up(plane).unwrap();
    (network, overlays)
}

/// The path from the host behind one spoke to the host behind the other.
fn path(network: &HubNetwork, from: Site, to: Site) -> Flow<'_> {
    Flow { client: &network.of(from).host, server: &network.of(to).host, address: to.host().into() }
}

fn transfers_pass_through_the_hub(plane: DataplaneChoice) {
    const ENOUGH: u64 = 64 << 20;
    let (network, overlays) = build(plane);
    let before = overlays.of(Site::Hub).plane().totals();
    let transfers = [(Site::One, Site::Two), (Site::Two, Site::One), (Site::Hub, Site::One)]
        .map(|(from, to)| Transfer::start(&path(&network, from, to), None).unwrap());
    wait_until("64 MiB have arrived in each direction", || {
        transfers.iter().all(|transfer| transfer.received() > ENOUGH)
    });
    for transfer in transfers {
        let report = transfer.finish().unwrap();
        assert!(report.bytes > ENOUGH, "{report}");
        show(&report);
    }
    let after = overlays.of(Site::Hub).plane().totals();
    assert_eq!(drops_since(&before, &after), []);
    for (peer, before) in after.peers.iter().zip(&before.peers) {
        assert!(peer.rx_bytes - before.rx_bytes > ENOUGH, "a transfer bypassed the hub: {peer:?}");
    }
}

#[expect(clippy::print_stderr, reason = "the figures are for the reader of the log")]
fn show(report: &impl std::fmt::Display) {
    eprintln!("{report}");
}

/// RFC 2003 section 3.1: the tunnel is one hop, and the routers inside it are not visible.
fn each_gateway_is_one_hop(plane: DataplaneChoice) {
    let (network, _overlays) = build(plane);
    let host = &network.of(Site::One).host;
    let ask = |ttl| host.run(|| ping(Site::Two.host(), 84, ttl, ANSWER_TIMEOUT)).unwrap();
    for (ttl, site) in [(1, Site::One), (2, Site::Hub), (3, Site::Two)] {
        let answer = ask(ttl);
        let error = Icmpv4Error::TimeExceeded { code: 0 };
        assert_eq!(answer, Answer::Refused { by: site.inside(), error }, "TTL {ttl}");
    }
    // The reply left with a TTL of 64 and passed three routers.
    for ttl in [4, 64] {
        let answer = ask(ttl);
        assert!(matches!(answer, Answer::Reply { ttl: 61, .. }), "TTL {ttl}: {answer:?}");
    }
}

/// To the hub's kernel both spokes are on one link, the tunnel interface, so it might send ICMP
/// redirects to their hosts.
fn the_hub_sends_no_redirects(plane: DataplaneChoice) {
    let (network, _overlays) = build(plane);
    let (host, hub) = (&network.of(Site::One).host, &network.of(Site::Hub).gateway);
    for _ in 0..3 {
        let answer = host.run(|| ping(Site::Two.host(), 84, 64, ANSWER_TIMEOUT)).unwrap();
        assert!(answer.is_reply(), "{answer:?}");
    }
    assert_eq!(snmp(hub, "Icmp", "OutRedirects"), 0);
}

/// RFC 2827 on the hub: a peer may send only from its own networks.
fn the_hub_accepts_only_sources_of_the_peer(plane: DataplaneChoice) {
    let (network, overlays) = build(plane);
    let hub = overlays.of(Site::Hub).plane();
    let mut underlay =
        Injector::new(&network.router, Site::Hub.port(), &network.of(Site::Hub).gateway, UNDERLAY);
    let tap = Tap::start(&network.of(Site::Two).host, "eth0").unwrap();
    let to = SocketAddrV4::new(Site::Two.host(), 4242);
    let from_one = |inner: &[u8]| outer(Site::One, Site::Hub, 0, inner);
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let elsewhere = SocketAddrV4::new(outside, 4242);
    let cases = [
        (DropReason::InnerSourceNotFromPeer, from_one(&udp(outside, to, b"secret"))),
        (DropReason::InnerSourceNotFromPeer, from_one(&udp(Site::Two.host(), to, b"secret"))),
        (DropReason::InnerSourceIsOwn, from_one(&udp(Site::Hub.host(), to, b"secret"))),
        (DropReason::InnerDestinationNotOurs, from_one(&udp(Site::One.host(), elsewhere, b"secret"))),
        (DropReason::EcnViolation, outer(Site::One, Site::Hub, CE, &udp(Site::One.host(), to, b"secret"))),
    ];
    for (reason, datagram) in &cases {
        let before = hub.totals();
        underlay.send(datagram);
        wait_until(reason.as_str(), || hub.totals().dropped() > before.dropped());
        assert_eq!(drops_since(&before, &hub.totals()), [(*reason, 1)]);
    }
    // A valid datagram passes, and is the only one that host two receives.
    underlay.send(&from_one(&udp(Site::One.host(), to, b"allowed")));
    let totals = || overlays.of(Site::Two).plane().totals();
    wait_until("the valid datagram passes", || totals().peers[0].rx_packets > 0);
    let payloads = udp_payloads(&tap.finish());
    assert_eq!(payloads, [b"allowed".to_vec()], "from {}", Site::One.host());
}

/// The UDP payloads for port 4242.
fn udp_payloads(frames: &[Frame]) -> Vec<Vec<u8>> {
    let is_for_port = |bytes: &&[u8]| bytes[9] == 17 && bytes.get(22..24) == Some(&4242u16.to_be_bytes()[..]);
    frames.iter().filter_map(Frame::ipv4).filter(is_for_port).map(|bytes| bytes[28..].to_vec()).collect()
}

/// An outer datagram from one gateway to another.
fn outer(from: Site, to: Site, ecn: u8, inner: &[u8]) -> Vec<u8> {
    ipv4_with(from.underlay(), to.underlay(), Protocol::IPIP, inner, |outer| outer.tos = ecn)
}

/// Sends every payload size from 0 to 64 bytes, one after the other.
fn small_datagrams_arrive_unchanged(plane: DataplaneChoice) {
    let (network, _overlays) = build(plane);
    let bind = |site: Site| {
        let host = &network.of(site).host;
        host.ns().run(|| UdpSocket::bind(SocketAddrV4::new(site.host(), 0))).unwrap().expect("a port is free")
    };
    let mut random = Random::seeded(3);
    for (from, to) in [(Site::One, Site::Two), (Site::Two, Site::Hub), (Site::Hub, Site::One)] {
        let (sender, receiver) = (bind(from), bind(to));
        receiver.set_read_timeout(Some(ANSWER_TIMEOUT)).expect("there are timeouts");
        let server = receiver.local_addr().expect("it is bound");
        let mut buffer = [0; 128];
        for size in 0..=64 {
            let payload = random.bytes(size);
            sender.send_to(&payload, server).expect("the host itself takes every size");
            let (len, source) = receiver.recv_from(&mut buffer).expect("it arrives");
            assert_eq!((&buffer[..len], source.ip()), (&payload[..], from.host().into()), "{size} bytes");
        }
    }
}

/// RFC 6040 through two tunnels: the sender's ECN field arrives, and so does a CE mark from a
/// router in the first tunnel.
fn ecn_marks_arrive_through_two_tunnels(plane: DataplaneChoice) {
    let (network, overlays) = build(plane);
    let host = &network.of(Site::One).host;
    let sender = host.run(RawSocket::sender).unwrap();
    let to = SocketAddrV4::new(Site::Two.host(), 4242);
    let marked = |ecn: u8, payload: &[u8]| {
        let datagram = udp(Site::One.host(), to, payload);
        ipv4_with(Site::One.host(), Site::Two.host(), Protocol::UDP, &datagram[20..], |inner| inner.tos = ecn)
    };
    let taps = [(&*network.router, Site::Two.port()), (&network.of(Site::Two).host, "eth0")]
        .map(|(host, device)| Tap::start(host, device).unwrap());
    for ecn in 0..4 {
        sender.send(&marked(ecn, &[ecn])).expect("it is sent");
    }
    let mut underlay =
        Injector::new(&network.router, Site::Hub.port(), &network.of(Site::Hub).gateway, UNDERLAY);
    underlay.send(&outer(Site::One, Site::Hub, CE, &marked(ECT_0, b"congested")));
    let totals = || overlays.of(Site::Two).plane().totals();
    wait_until("all datagrams have arrived", || totals().peers[0].rx_packets >= 5);
    let [outside, inside] = taps.map(Tap::finish);
    let ecn_of = |bytes: &[u8]| bytes[1] & 0b11;
    let mut arrived: Vec<(u8, Vec<u8>)> = inside
        .iter()
        .filter_map(Frame::ipv4)
        .filter(|bytes| bytes[9] == 17)
        .map(|bytes| (ecn_of(bytes), bytes[28..].to_vec()))
        .collect();
    arrived.sort();
    let expected: Vec<(u8, Vec<u8>)> =
        (0..4).map(|ecn| (ecn, vec![ecn])).chain([(CE, b"congested".to_vec())]).collect();
    assert_eq!(arrived, expected);
    // RFC 6040 section 4.1, normal mode: the outer ECN field equals the inner one.
    let outer_headers = outside
        .iter()
        .filter_map(Frame::ipv4)
        .filter(|bytes| bytes[9] == 4 && bytes[12..16] == Site::Hub.underlay().octets())
        // Not the hub's own probes.
        .filter(|bytes| bytes[32..36] == Site::One.host().octets());
    let both: Vec<(u8, u8)> = outer_headers.map(|bytes| (ecn_of(bytes), ecn_of(&bytes[20..]))).collect();
    assert_eq!(both.len(), 5, "{both:?}");
    assert!(both.iter().all(|(outer, inner)| outer == inner), "{both:?}");
}

/// One spoke's link is narrower: the hub's tunnel learns it, and the sender receives the error from
/// the hub.
fn the_hub_reports_the_mtu_of_a_narrow_spoke(plane: DataplaneChoice) {
    let (network, _overlays) = build(plane);
    network.router.mtu(Site::Two.port(), 1400).unwrap();
    network.of(Site::Two).gateway.mtu(UNDERLAY, 1400).unwrap();
    let host = &network.of(Site::One).host;
    let ask = |size| host.run(|| ping(Site::Two.host(), size, 64, ANSWER_TIMEOUT)).unwrap();
    let too_big = Answer::Refused { by: Site::Hub.inside(), error: Icmpv4Error::TooBig { mtu: 1380 } };
    assert_eq!(ask(1480), too_big, "the hub learned from the router in the tunnel");
    let answer = ask(1380);
    assert!(answer.is_reply(), "{answer:?}");
    let transfer = Transfer::start(&path(&network, Site::One, Site::Two), None).unwrap();
    wait_until("16 MiB have arrived", || transfer.received() > 16 << 20);
    show(&transfer.finish().unwrap());
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0);
}

/// A stream of small datagrams in each direction between the spokes, beside a TCP transfer.
fn small_datagrams_arrive_beside_a_transfer(plane: DataplaneChoice) {
    use adit_testbed::loss_stream::{LossStream, StreamOptions};
    let (network, _overlays) = build(plane);
    let (one, two) = (&network.of(Site::One).host, &network.of(Site::Two).host);
    let options = StreamOptions::default();
    let probes = [
        LossStream::start(one, two, Site::Two.host(), options, ATTEMPT_TIMEOUT).unwrap(),
        LossStream::start(two, one, Site::One.host(), options, ATTEMPT_TIMEOUT).unwrap(),
    ];
    let transfer = Transfer::start(&path(&network, Site::One, Site::Two), Some(200_000_000)).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    show(&transfer.finish().unwrap());
    for probe in probes {
        let report = probe.finish(ATTEMPT_TIMEOUT).unwrap();
        show(&report);
        // The userspace process also loses datagrams while it is not scheduled.
        assert!(plane != DataplaneChoice::Ebpf || report.is_complete(), "{report}");
        assert_eq!(report.dropped_by_receiver, 0, "{report}");
    }
}

on_every_plane! {
    transfers_pass_through_the_hub,
    each_gateway_is_one_hop,
    the_hub_sends_no_redirects,
    the_hub_accepts_only_sources_of_the_peer,
    small_datagrams_arrive_unchanged,
    ecn_marks_arrive_through_two_tunnels,
    the_hub_reports_the_mtu_of_a_narrow_spoke,
}

mod measured {
    use super::small_datagrams_arrive_beside_a_transfer;

    crate::planes::on_every_plane! {
        alone;
        small_datagrams_arrive_beside_a_transfer,
    }
}
