//! Bad input: garbage as protocol 4, and datagrams with forged addresses.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};

use adit_lab::capture::{Frame, Tap};
use adit_lab::checks::reaches;
use adit_lab::host::Host;
use adit_lab::two_sites::{HOST_A, HOST_B, Tunnels, TwoSites, UNDERLAY_A, UNDERLAY_B, bring_up};
use adit_tunnel::DropReason;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

use crate::support::{
    Injector, Random, config_a, config_b, drops_since, echo_request, from_peer, in_own_process, ipv4,
    ipv4_with, mend_checksum, resident, snmp, udp, wait_until,
};

const UNKNOWN_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 77);
/// Datagrams between two reads of the counters. The kernel's queues hold this many.
const BURST: usize = 256;

fn at_gateway_a(network: &TwoSites) -> Injector {
    Injector::new(&network.router, "toA", &network.gateway_a, "underlayA")
}

/// An outer datagram of protocol 4 without a valid inner datagram.
fn garbage(random: &mut Random, source: Ipv4Addr) -> Vec<u8> {
    let outer = |inner: &[u8]| ipv4(source, UNDERLAY_A, Protocol::IPIP, inner);
    let valid = |random: &mut Random| {
        let len = random.within(1..1200);
        echo_request(1, &random.bytes(len))
    };
    match random.within(0..8) {
        // Random bytes, possibly none.
        0 => {
            let len = random.within(0..1400);
            outer(&random.bytes(len))
        }
        // A truncated datagram.
        1 => {
            let inner = valid(random);
            outer(&inner[..random.within(0..inner.len())])
        }
        // An inner total length beyond the end, or shorter than the header.
        2 => {
            let mut inner = valid(random);
            let beyond = random.within(inner.len() + 1..65_536);
            let wrong = [random.within(0..20), beyond][random.within(0..2)] as u16;
            inner[2..4].copy_from_slice(&wrong.to_be_bytes());
            mend_checksum(&mut inner);
            outer(&inner)
        }
        // An inner header length below 20 bytes, or beyond the datagram.
        3 => {
            let mut inner = ipv4(HOST_B, HOST_A, Protocol::ICMP, &random.bytes(12));
            inner[0] = 0x40 | [random.within(0..5), random.within(9..16)][random.within(0..2)] as u8;
            mend_checksum(&mut inner);
            outer(&inner)
        }
        // Another inner IP version.
        4 => {
            let mut inner = valid(random);
            inner[0] = (random.within(5..16) << 4) as u8 | 5;
            mend_checksum(&mut inner);
            outer(&inner)
        }
        // An outer total length beyond the end, or shorter than the header.
        5 => {
            let mut bytes = outer(&valid(random));
            let beyond = random.within(bytes.len() + 1..65_536);
            let wrong = [random.within(0..20), beyond][random.within(0..2)] as u16;
            bytes[2..4].copy_from_slice(&wrong.to_be_bytes());
            mend_checksum(&mut bytes);
            bytes
        }
        // An outer header length below 20 bytes.
        6 => {
            let mut bytes = outer(&valid(random));
            bytes[0] = 0x40 | random.within(0..5) as u8;
            mend_checksum(&mut bytes);
            bytes
        }
        // A wrong outer checksum.
        _ => {
            let mut bytes = outer(&valid(random));
            bytes[10] ^= 1 << random.within(0..8);
            bytes
        }
    }
}

/// Sends `count` garbage datagrams, half from the peer's address and half from an unknown one.
/// Every burst is counted as drops before the next one.
fn send_garbage(testbed: (&TwoSites, &Tunnels), random: &mut Random, count: usize) {
    let plane = testbed.1.a.plane();
    let mut underlay = at_gateway_a(testbed.0);
    let mut expected = plane.totals().dropped();
    for _ in 0..count / BURST {
        for number in 0..BURST {
            let source = if number % 2 == 0 { UNDERLAY_B } else { UNKNOWN_SOURCE };
            underlay.add(&garbage(random, source));
        }
        underlay.flush();
        expected += BURST as u64;
        wait_until("every datagram of a burst is counted", || plane.totals().dropped() >= expected);
        assert_eq!(plane.totals().dropped(), expected, "more was dropped than was sent");
    }
}

/// Returns true if these bytes are a ping between the hosts.
fn is_ping(bytes: &[u8]) -> bool {
    Ipv4Packet::parse(bytes, Validation::Strict).is_ok_and(|packet| {
        let ends = (packet.source(), packet.destination());
        packet.protocol() == Protocol::ICMP && [(HOST_A, HOST_B), (HOST_B, HOST_A)].contains(&ends)
    })
}

/// Fails if a capture on the inside has anything but pings between the hosts and ARP.
fn expect_only_pings(device: &[Frame], host: &[Frame]) {
    assert!(device.len() > 10 && host.len() > 10, "a tap has captured too few frames");
    for frame in device {
        assert!(frame.ipv4().is_some_and(is_ping), "the tunnel interface delivered {:02x?}", frame.bytes);
    }
    for bytes in host.iter().filter_map(Frame::ipv4) {
        assert!(is_ping(bytes), "host A received {bytes:02x?}");
    }
}

/// Pings host B from host A while `work` runs, and fails if a reply is missing. Returns the number
/// of pings.
fn ping_during(host: &Host, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| {
            let mut answered = 0;
            while !done.load(Ordering::Relaxed) {
                assert!(reaches(host, HOST_B).unwrap(), "a ping was lost, after {answered} replies");
                answered += 1;
            }
            answered
        });
        work();
        done.store(true, Ordering::Relaxed);
        pings.join().expect("every ping is answered")
    })
}

/// Brings the tunnel up without probes, which would be counted with the datagrams of the test.
fn bring_up_without_probes(network: &TwoSites) -> Tunnels {
    Tunnels {
        a: bring_up(&network.gateway_a, &config_a("probe = false")).unwrap(),
        b: bring_up(&network.gateway_b, &config_b("probe = false")).unwrap(),
    }
}

#[test(root)]
fn garbage_is_counted_and_disturbs_nothing() {
    let network = TwoSites::build().unwrap();
    // On a slow machine, a probe and its reply would be counted with the pings.
    let tunnels = bring_up_without_probes(&network);
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let taps = [(&network.gateway_a, "ipipA"), (&network.host_a, "eth0"), (&network.router, "toA")]
        .map(|(host, device)| Tap::start(host, device).unwrap());
    let plane = tunnels.a.plane();
    let before = plane.totals();
    let icmp_before = snmp(&network.gateway_a, "Icmp", "OutMsgs");
    const COUNT: usize = 8192;
    let pings =
        ping_during(&network.host_a, || send_garbage((&network, &tunnels), &mut Random::seeded(5), COUNT));
    assert!(reaches(&network.host_a, HOST_B).unwrap());

    let after = plane.totals();
    let drops = drops_since(&before, &after);
    assert_eq!(drops.iter().map(|(_, count)| count).sum::<u64>(), COUNT as u64, "{drops:?}");
    let reasons: Vec<DropReason> = drops.iter().map(|(reason, _)| *reason).collect();
    use DropReason::{DecapInnerMalformed, DecapInnerNotIpv4, OuterMalformed, OuterSourceUnknown};
    assert_eq!(reasons, [OuterMalformed, OuterSourceUnknown, DecapInnerMalformed, DecapInnerNotIpv4]);
    assert_eq!(after.peers[0].rx_packets - before.peers[0].rx_packets, pings + 1);
    let [device, host, underlay] = taps.map(Tap::finish);
    expect_only_pings(&device, &host);
    // Gateway A's kernel might send Protocol Unreachable or Parameter Problem.
    assert_eq!(snmp(&network.gateway_a, "Icmp", "OutMsgs"), icmp_before, "gateway A's kernel sent ICMP");
    for bytes in underlay.iter().filter_map(Frame::ipv4) {
        let Ok(packet) = Ipv4Packet::parse(bytes, Validation::Lenient) else { continue };
        let answer = packet.source() == UNDERLAY_A && packet.protocol() != Protocol::IPIP;
        assert!(!answer, "gateway A has sent {bytes:02x?}");
    }
}

#[test(root)]
fn garbage_costs_no_memory() {
    if !in_own_process("bad_input::garbage_costs_no_memory") {
        return;
    }
    let network = TwoSites::build().unwrap();
    let tunnels = network.bring_up().unwrap();
    let mut random = Random::seeded(6);
    // The warm-up uses every buffer once.
    send_garbage((&network, &tunnels), &mut random, 8192);
    let before = resident();
    const COUNT: usize = 16_384;
    send_garbage((&network, &tunnels), &mut random, COUNT);
    let grown = resident().saturating_sub(before);
    // The limit is 32 bytes for each datagram.
    assert!(grown < 32 * COUNT, "{COUNT} datagrams made the process {grown} bytes larger");
}

/// Well-formed datagrams that must not pass, each counted under its own reason.
#[test(root)]
fn each_forbidden_datagram_is_dropped_under_its_own_reason() {
    let network = TwoSites::build().unwrap();
    let tunnels = bring_up_without_probes(&network);
    assert!(reaches(&network.host_a, HOST_B).unwrap());
    let plane = tunnels.a.plane();
    let mut underlay = at_gateway_a(&network);
    let outside = Ipv4Addr::new(203, 0, 113, 9);
    let own = Ipv4Addr::new(172, 16, 17, 66);
    let to = |host| SocketAddrV4::new(host, 4242);
    let valid = udp(HOST_B, to(HOST_A), b"secret");
    let congested = ipv4_with(UNDERLAY_B, UNDERLAY_A, Protocol::IPIP, &valid, |outer| outer.tos = 0b11);
    let expired = ipv4_with(HOST_B, HOST_A, Protocol::UDP, &valid[20..], |inner| inner.ttl = 0);
    let ipv6 = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0; 32]].concat();
    let nested = |source| ipv4(source, UNDERLAY_A, Protocol::IPIP, &valid);
    let cases = [
        (DropReason::InnerSourceNotFromPeer, from_peer(&udp(outside, to(HOST_A), b"secret"))),
        (DropReason::InnerSourceNotFromPeer, from_peer(&udp(UNDERLAY_B, to(HOST_A), b"secret"))),
        (DropReason::InnerSourceIsOwn, from_peer(&udp(own, to(HOST_A), b"secret"))),
        (DropReason::InnerSourceIsOwn, from_peer(&udp(UNDERLAY_A, to(HOST_A), b"secret"))),
        (DropReason::InnerDestinationNotOurs, from_peer(&udp(HOST_B, to(outside), b"secret"))),
        (DropReason::InnerDestinationNotOurs, from_peer(&udp(HOST_B, to(HOST_B), b"secret"))),
        (DropReason::NestedToOurselves, from_peer(&nested(UNDERLAY_B))),
        (DropReason::NestedToOurselves, from_peer(&nested(HOST_B))),
        (DropReason::EcnViolation, congested),
        (DropReason::DecapInnerTtlZero, from_peer(&expired)),
        (DropReason::DecapInnerNotIpv4, from_peer(&ipv6)),
        (DropReason::OuterSourceUnknown, ipv4(UNKNOWN_SOURCE, UNDERLAY_A, Protocol::IPIP, &valid)),
    ];
    let taps = [(&network.gateway_a, "ipipA"), (&network.host_a, "eth0")]
        .map(|(host, device)| Tap::start(host, device).unwrap());
    for (reason, datagram) in &cases {
        let before = plane.totals();
        underlay.send(datagram);
        wait_until(reason.as_str(), || plane.totals().dropped() > before.dropped());
        assert_eq!(drops_since(&before, &plane.totals()), [(*reason, 1)]);
    }
    // A valid datagram passes, as the last one that the taps see.
    underlay.send(&from_peer(&valid));
    wait_until("the valid datagram passes", || plane.totals().peers[0].rx_packets == 2);
    let [device, host] = taps.map(Tap::finish);
    // Host A also sends Port Unreachable, which quotes it.
    let delivered = |frames: Vec<&[u8]>| {
        frames
            .iter()
            .filter(|bytes| bytes.get(20 + 8..).is_some_and(|rest| rest.starts_with(b"secret")))
            .count()
    };
    assert_eq!(delivered(device.iter().filter_map(Frame::ipv4).collect()), 1);
    assert_eq!(delivered(host.iter().filter_map(Frame::ipv4).collect()), 1);
}
