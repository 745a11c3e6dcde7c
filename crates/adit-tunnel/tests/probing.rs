//! Probing for the path MTU (RFC 8899) in virtual time: gateway A with its prober, a path whose MTU
//! and errors the test sets, and a peer that answers echoes like any IP stack.

mod common;

use std::hash::RandomState;
use std::net::Ipv4Addr;
use std::time::Duration;

use adit_tunnel::{
    CONFIRM_INTERVAL, Decapsulated, DropReason, Encapsulated, FIRST_RAISE, Instant, LearnedBy, PROBE_TIMER,
    PathMtu, ProbeOptions, Prober, RAISE_TIMER, Reachability, Traffic, Tunnel, UNANSWERED_TIMEOUT,
    UnderlayIcmp,
};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Error, Icmpv4Message, types};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use common::*;
use proptest::prelude::*;

/// The inner address of the gateway at B.
const GATEWAY_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 1);
const STEP: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// The path from A to B.
#[derive(Clone)]
struct Path {
    /// Size in bytes of the largest datagram that passes.
    takes: usize,
    /// The number of bytes that a router quotes of a larger one; `None`: it sends no error.
    says: Option<usize>,
    /// The peer's stack, or a filter in front of it, ignores echoes.
    is_silent: bool,
    /// The number of lost datagrams in a hundred.
    loses: u64,
}

struct Bed {
    gateway: Gateway,
    prober: Prober,
    path: Path,
    /// The number of datagrams that hosts behind A have sent to B.
    sent: u64,
    probes: Vec<(Instant, usize)>,
    chance: u64,
    /// Errors that reached the hosts behind A.
    told: Vec<Icmpv4Error>,
}

impl Bed {
    fn new(path: Path) -> Bed {
        let probe = Some(ProbeOptions {
            sources: vec![GATEWAY_A.into()],
            secret: RandomState::new(),
            keepalive: None,
        });
        let gateway = Gateway::new(adit_tunnel::TunnelConfig { probe, ..config() });
        let prober = Prober::new(&gateway.tunnel);
        Bed { gateway, prober, path, sent: 0, probes: Vec::new(), chance: 1, told: Vec::new() }
    }

    fn tunnel(&self) -> &Tunnel {
        &self.gateway.tunnel
    }

    fn known(&self) -> PathMtu {
        self.tunnel().path_mtu(PEER_B)
    }

    fn lost(&mut self) -> bool {
        // xorshift64
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % 100 < self.path.loses
    }

    /// Lets time pass, with `each_second` datagrams sent in every second.
    fn run(&mut self, time: Duration, each_second: u64) {
        self.run_until(time, each_second, |_| false);
    }

    /// The same until a condition holds. Returns the time that this took.
    fn run_until(
        &mut self,
        time: Duration,
        each_second: u64,
        done: impl Fn(&Bed) -> bool,
    ) -> Option<Duration> {
        let begin = self.gateway.now;
        while self.gateway.now.since(begin) < time {
            if done(self) {
                return Some(self.gateway.now.since(begin));
            }
            self.gateway.now = self.gateway.now.saturating_add(STEP);
            let passed = self.gateway.now.since(begin).as_millis() as u64;
            self.sent += u64::from(passed.is_multiple_of(1000)) * each_second;
            if self.prober.poll_timeout().is_some_and(|deadline| deadline <= self.gateway.now) {
                self.step();
            }
            self.gateway.tunnel.on_deadline(self.gateway.now);
        }
        None
    }

    fn step(&mut self) {
        let traffic = self.traffic();
        let Gateway { tunnel, counters, now } = &self.gateway;
        self.prober.handle_timeout(tunnel, *now, counters, traffic);
        self.relay_proven();
        let mut out = [0; 65_535];
        while let Some(len) =
            self.prober.poll_transmit(&self.gateway.tunnel, &self.gateway.counters, &mut out)
        {
            self.probes.push((self.gateway.now, len));
            self.carry(&out[..len]);
        }
    }

    /// Carries a datagram towards B, and the answer or error back.
    fn carry(&mut self, outer: &[u8]) {
        if self.lost() {
            return;
        }
        if outer.len() > self.path.takes {
            if let Some(quoted) = self.path.says {
                self.icmp(&icmp(Icmpv4Error::TooBig { mtu: self.path.takes as u16 }, outer, quoted));
            }
        } else if let Some(answer) = answer(&outer[20..]).filter(|_| !self.path.is_silent)
            && !self.lost()
        {
            let verdict = self.gateway.decapsulate(&wrap(B, A, answer).build());
            assert!(matches!(verdict, Decapsulated::Answer { .. }), "{verdict:?}");
        }
    }

    /// What has been exchanged with a peer.
    fn traffic(&self) -> impl Fn(adit_tunnel::PeerIndex) -> Traffic + use<> {
        let of_b = Traffic { sent: self.sent, ..self.gateway.counters.traffic(PEER_B) };
        move |peer| if peer == PEER_B { of_b } else { Traffic::default() }
    }

    fn icmp(&mut self, message: &[u8]) -> UnderlayIcmp {
        let traffic = self.traffic();
        let Gateway { tunnel, counters, now } = &self.gateway;
        let outcome = self.prober.handle_icmp(tunnel, message, *now, counters, traffic);
        if let UnderlayIcmp::Relay { reply, .. } = &outcome {
            self.told.push(of_v4(reply).1);
        }
        self.relay_proven();
        outcome
    }

    fn relay_proven(&mut self) {
        while let Some((message, proof)) = self.prober.poll_confirmed() {
            let Gateway { tunnel, counters, now } = &self.gateway;
            let outcome = tunnel.on_confirmed_icmp(&message, proof, *now, counters);
            if let UnderlayIcmp::Relay { reply, .. } = outcome {
                self.told.push(of_v4(&reply).1);
            }
        }
    }

    fn learned(&self) -> Option<(u16, LearnedBy)> {
        self.known().learned.map(|by| (self.known().mtu, by))
    }
}

impl Default for Bed {
    fn default() -> Bed {
        Bed::new(Path { takes: 1500, says: None, is_silent: false, loses: 0 })
    }
}

/// The answer of B's stack to an inner datagram, if that is an echo request to B.
fn answer(inner: &[u8]) -> Option<Vec<u8>> {
    let packet = Ipv4Packet::parse(inner, Validation::Datapath).expect("the tunnel sends datagrams");
    let message = Icmpv4Message::parse(packet.payload()).ok()?;
    if packet.destination() != B || message.message_type() != types::ECHO_REQUEST {
        return None;
    }
    let (identifier, sequence) = message.echo()?;
    let mut reply = vec![0; packet.payload().len()];
    icmpv4::build_echo(&mut reply, identifier, sequence, message.payload(), EchoKind::Reply)?;
    Some(datagram(B, packet.source()).protocol(Protocol::ICMP).payload(reply).build())
}

/// The datagram that an error quotes: a full-size one from host to host, in the tunnel's outer
/// header.
fn full_size() -> Vec<u8> {
    rewrite(a_to_b().len(1480).df(true).inside(A, B).build(), 6, &[0x40, 0])
}

fn unreachable_host() -> Icmpv4Error {
    unreachable(1)
}

#[test]
fn an_idle_path_is_not_probed() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(3600), 0);
    assert_eq!(bed.probes, []);
}

#[test]
fn a_tunnel_without_probe_options_does_not_probe() {
    let gateway = Gateway::default();
    let mut prober = Prober::new(&gateway.tunnel);
    assert_eq!(prober.poll_timeout(), None);
    prober.handle_timeout(&gateway.tunnel, gateway.now, &gateway.counters, |_| Traffic {
        sent: 7,
        last_rx: None,
    });
    assert_eq!(prober.poll_transmit(&gateway.tunnel, &gateway.counters, &mut [0; 2000]), None);
}

#[test]
fn a_path_in_use_is_confirmed_by_one_probe_every_two_seconds() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(60), 100);
    assert!((28..=31).contains(&bed.probes.len()), "{} probes", bed.probes.len());
    assert!(bed.probes.iter().all(|(_, size)| *size == 1500));
    assert_eq!(bed.known(), PathMtu { mtu: 1500, learned: None, expires: None });
    let totals = bed.gateway.totals();
    assert_eq!(
        (totals.probes.sent, totals.probes.answered),
        (bed.probes.len() as u64, bed.probes.len() as u64)
    );
    assert_eq!(
        (totals.dropped(), totals.peers[0].rx_packets),
        (0, 0),
        "an answer does not count as traffic of the peer"
    );
}

/// A gateway at B, whose prober works.
fn probing_peer() -> (Gateway, Vec<u8>) {
    let config = adit_tunnel::TunnelConfig {
        underlay: B.into(),
        peers: peer_set(B, "192.168.199.0/24", &[("a", A, "172.16.17.0/24")]),
        local_addresses: vec![GATEWAY_B.into()],
        reachable_addresses: Vec::new(),
        probe: Some(ProbeOptions {
            sources: vec![GATEWAY_B.into()],
            secret: RandomState::new(),
            keepalive: None,
        }),
        ..config()
    };
    let mut gateway = Gateway::new(config);
    let mut prober = Prober::new(&gateway.tunnel);
    let mut out = [0; 65_535];
    for sent in 0..100 {
        gateway.now = gateway.now.saturating_add(SECOND);
        let traffic = |_| Traffic { sent: sent * 100, last_rx: None };
        prober.handle_timeout(&gateway.tunnel, gateway.now, &gateway.counters, traffic);
        if let Some(len) = prober.poll_transmit(&gateway.tunnel, &gateway.counters, &mut out) {
            return (gateway, out[..len].to_vec());
        }
    }
    panic!("the path is in use and must be probed")
}

/// What A's stack answers to an inner datagram.
fn answer_of_a(inner: &[u8]) -> Vec<u8> {
    let request = Ipv4Packet::parse(inner, Validation::Datapath).expect("a datagram");
    let message = Icmpv4Message::parse(request.payload()).expect("an ICMP message");
    let (identifier, sequence) = message.echo().expect("an echo");
    let mut reply = vec![0; request.payload().len()];
    icmpv4::build_echo(&mut reply, identifier, sequence, message.payload(), EchoKind::Reply).unwrap();
    datagram(A, request.source()).protocol(Protocol::ICMP).payload(reply).build()
}

#[test]
fn a_peers_probe_and_its_answer_are_no_traffic() {
    let (peer, probe) = probing_peer();
    let us = Gateway::default();
    let verdict = us.decapsulate(&probe);
    let Decapsulated::Deliver { inner, .. } = verdict else { panic!("A's stack answers: {verdict:?}") };
    let totals = us.totals();
    assert_eq!((totals.probes.received, totals.peers[0].rx_packets, totals.peers[0].rx_bytes), (1, 0, 0));
    assert_eq!(totals.peers[0].last_rx, Some(us.now), "it shows that the peer is there");

    let answer = us.outer(&answer_of_a(&probe[inner]));
    let totals = us.totals();
    assert_eq!((totals.probes.replied, totals.peers[0].tx_packets, totals.peers[0].tx_bytes), (1, 0, 0));

    let verdict = peer.decapsulate(&answer);
    assert!(matches!(verdict, Decapsulated::Answer { .. }), "{verdict:?}");
    let totals = peer.totals();
    assert_eq!((totals.probes.sent, totals.probes.answered), (1, 1));
    assert_eq!((totals.peers[0].tx_packets, totals.peers[0].rx_packets), (0, 0));
}

/// Somebody pings the gateway: each row differs from a probe in one thing.
#[test]
fn a_ping_is_traffic_although_it_resembles_a_probe() {
    let (_, probe) = probing_peer();
    let size = probe.len();
    let others: [(&str, usize, &[u8]); 4] = [
        ("identifier", 44, &[0, 7]),
        ("sequence", 46, &[0xff, 0xfe]),
        ("round", 56, &[1, 1, 1, 1]),
        ("size", 60, &[0, 99]),
    ];
    for (what, at, bytes) in others {
        let us = Gateway::default();
        let mut ping = probe.clone();
        ping[at..at + bytes.len()].copy_from_slice(bytes);
        ping[42..44].fill(0);
        let sum = adit_wire::checksum::checksum(&ping[40..]);
        ping[42..44].copy_from_slice(&sum.to_be_bytes());
        let verdict = us.decapsulate(&ping);
        assert!(matches!(verdict, Decapsulated::Deliver { .. }), "{what}: {verdict:?}");
        let _ = us.outer(&answer_of_a(&ping[20..]));
        let totals = us.totals();
        let peer = totals.peers[0];
        assert_eq!(totals.probes, adit_tunnel::ProbeTotals::default(), "{what}");
        assert_eq!((peer.rx_packets, peer.tx_packets), (1, 1), "{what}");
        assert_eq!((peer.rx_bytes, peer.tx_bytes), (size as u64 - 20, size as u64 - 20), "{what}");
    }
}

#[test]
fn rfc8899_s4_3_a_black_hole_is_found_and_its_mtu_learned_to_the_byte() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    bed.path.takes = 1387;
    let found = bed.run_until(Duration::from_secs(60), 100, |bed| bed.known().learned.is_some());
    let limit = CONFIRM_INTERVAL + 3 * PROBE_TIMER + SECOND / 10;
    assert!(found.is_some_and(|after| after <= limit), "{found:?}");
    let (mtu, by) = bed.learned().expect("it has been learned");
    assert!((1340..=1387).contains(&mtu) && by == LearnedBy::Probe, "{mtu}: the first value must be close");
    bed.run(Duration::from_secs(4), 100);
    assert_eq!(bed.learned(), Some((1387, LearnedBy::Probe)));
}

#[test]
fn rfc8899_s5_3_2_an_increased_path_mtu_is_used() {
    let mut bed = Bed::default();
    bed.path.takes = 1300;
    bed.run(Duration::from_secs(20), 100);
    assert_eq!(bed.learned(), Some((1300, LearnedBy::Probe)));
    bed.path.takes = 1500;
    let found = bed.run_until(Duration::from_secs(60), 100, |bed| bed.known().learned.is_none());
    assert!(found.is_some_and(|after| after <= FIRST_RAISE * 2 + CONFIRM_INTERVAL), "{found:?}");
}

#[test]
fn rfc8899_s5_1_1_larger_sizes_are_tried_less_and_less_often_down_to_every_ten_minutes() {
    let mut bed = Bed::default();
    bed.path.takes = 1300;
    bed.run(Duration::from_secs(2 * 3600), 100);
    assert_eq!(bed.learned(), Some((1300, LearnedBy::Probe)), "a confirmed path MTU does not expire");
    let raises: Vec<Instant> =
        bed.probes.iter().filter(|(_, size)| *size == 1500).map(|(at, _)| *at).collect();
    let gaps: Vec<Duration> =
        raises.windows(2).map(|pair| pair[1].since(pair[0])).filter(|gap| *gap > PROBE_TIMER * 4).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] + SECOND * 10 >= pair[0]), "{gaps:?}");
    let longest = gaps.iter().max().expect("larger sizes were tried");
    assert!((RAISE_TIMER..RAISE_TIMER + SECOND * 10).contains(longest), "{longest:?}");
}

#[test]
fn a_silent_peer_keeps_its_path_mtu_and_is_probed_less_and_less_often() {
    let mut bed = Bed::default();
    (bed.path.is_silent, bed.path.takes) = (true, 1300);
    bed.run(Duration::from_secs(3600), 100);
    assert_eq!(bed.known().learned, None);
    assert!(bed.probes.len() < 120, "{} probes in an hour", bed.probes.len());
    bed.path.is_silent = false;
    bed.run(RAISE_TIMER + SECOND * 20, 100);
    assert_eq!(
        bed.learned(),
        Some((1300, LearnedBy::Probe)),
        "once the peer answers, its path MTU is learned"
    );
}

#[test]
fn a_path_that_loses_a_tenth_is_seldom_and_briefly_taken_for_a_black_hole() {
    let mut mistakes = 0;
    for seed in 1..=20u64 {
        let mut bed = Bed::default();
        (bed.chance, bed.path.loses) = (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 10);
        while bed.run_until(Duration::from_secs(3600), 100, |bed| bed.known().learned.is_some()).is_some() {
            mistakes += 1;
            let mended = bed.run_until(FIRST_RAISE * 2, 100, |bed| bed.known().learned.is_none());
            assert!(mended.is_some_and(|after| after <= FIRST_RAISE + SECOND * 10), "{mended:?}");
        }
    }
    assert!((1..10).contains(&mistakes), "{mistakes} mistakes in twenty hours");
}

#[test]
fn rfc5927_s7_a_forged_too_big_is_refuted_by_a_probe() {
    for quoted in [28, 48, 576] {
        let mut bed = Bed::default();
        bed.run(Duration::from_secs(10), 100);
        let forged = icmp(Icmpv4Error::TooBig { mtu: 600 }, &full_size(), quoted);
        assert!(matches!(bed.icmp(&forged), UnderlayIcmp::Doubtful { .. }), "{quoted} bytes quoted");
        // A second error comes while a probe tests the first.
        assert_eq!(bed.icmp(&forged), UnderlayIcmp::Ignored(DropReason::IcmpUnproven));
        bed.run(Duration::from_secs(10), 100);
        assert_eq!((bed.known().learned, bed.told.len()), (None, 0));
        assert_eq!(bed.gateway.drops(), [(DropReason::IcmpDisproved, 1), (DropReason::IcmpUnproven, 1)]);
    }
}

#[test]
fn rfc5927_s7_a_flood_of_forged_errors_causes_no_more_probes_than_without_it() {
    let probes = |forges: bool| {
        let mut bed = Bed::default();
        bed.run(Duration::from_secs(10), 100);
        for n in 0..1000 {
            let error = if n % 2 == 0 { Icmpv4Error::TooBig { mtu: 600 } } else { unreachable_host() };
            if forges {
                bed.icmp(&icmp(error, &full_size(), 28));
            }
            bed.sent += 1;
            bed.run(STEP, 0);
        }
        bed.run(SECOND * 2, 100);
        assert_eq!((bed.known().learned, bed.tunnel().reachability(PEER_B)), (None, Reachability::Assumed));
        assert_eq!(bed.gateway.totals().dropped(), if forges { 1000 } else { 0 });
        assert!(!bed.tunnel().has_pending_error(PEER_B) && bed.told.is_empty());
        bed.probes.len()
    };
    let (with, without) = (probes(true), probes(false));
    assert!(with <= without + 1, "{with} probes with the flood, {without} without");
}

/// The router reports the same error for the probe, which only a router on the path can.
#[test]
fn rfc2003_s4_1_a_genuine_too_big_that_was_doubted_is_relayed_at_once() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    (bed.path.takes, bed.path.says) = (1400, Some(576));
    let outcome = bed.icmp(&icmp(Icmpv4Error::TooBig { mtu: 1400 }, &full_size(), 576));
    assert!(matches!(outcome, UnderlayIcmp::Doubtful { .. }), "{outcome:?}");
    let told = bed.run_until(SECOND, 0, |bed| !bed.told.is_empty());
    assert!(told.is_some_and(|after| after <= STEP * 2), "{told:?}");
    assert_eq!(bed.told, [Icmpv4Error::TooBig { mtu: 1380 }]);
    assert_eq!(bed.learned(), Some((1400, LearnedBy::Router)));
}

/// The quote is too short to identify the probe, so only the loss of the probe confirms the error.
#[test]
fn rfc2003_s4_1_a_genuine_too_big_with_a_short_quote_is_confirmed_by_lost_probes() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    (bed.path.takes, bed.path.says) = (1400, Some(28));
    bed.icmp(&icmp(Icmpv4Error::TooBig { mtu: 1400 }, &full_size(), 28));
    let learned = bed.run_until(SECOND * 5, 0, |bed| bed.known().learned.is_some());
    assert!(learned.is_some_and(|after| after <= UNANSWERED_TIMEOUT + STEP * 4), "{learned:?}");
    bed.run(SECOND * 2, 0);
    assert_eq!(bed.known().mtu, 1400);
    let verdict = bed.gateway.encapsulate(&a_to_b().len(1480).df(true).build());
    let Encapsulated::Reply { reply, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(of_v4(&reply).1, Icmpv4Error::TooBig { mtu: 1380 }, "the next sender gets the error");
}

#[test]
fn rfc2003_s4_4_a_vanished_peer_is_reported_once_the_probe_is_lost_too() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    bed.path.takes = 0;
    bed.icmp(&icmp(Icmpv4Error::TimeExceeded { code: 0 }, &full_size(), 576));
    assert!(bed.told.is_empty());
    let told = bed.run_until(SECOND * 5, 0, |bed| !bed.told.is_empty());
    let expected = UNANSWERED_TIMEOUT..UNANSWERED_TIMEOUT + STEP * 4;
    assert!(told.is_some_and(|after| expected.contains(&after)), "{told:?}");
    assert_eq!(bed.told, [unreachable_host()]);
    assert!(matches!(bed.tunnel().reachability(PEER_B), Reachability::Unreachable { .. }));
}

/// The first datagram ever to a peer meets the router: it and its sender lose no time.
#[test]
fn rfc2003_s4_1_a_genuine_too_big_about_the_first_datagram_is_relayed_at_once() {
    let mut bed = Bed::default();
    (bed.path.takes, bed.path.says) = (1400, Some(576));
    bed.sent = 1;
    bed.icmp(&icmp(Icmpv4Error::TooBig { mtu: 1400 }, &full_size(), 576));
    let told = bed.run_until(SECOND, 0, |bed| !bed.told.is_empty());
    assert!(told.is_some_and(|after| after <= STEP * 2), "{told:?}");
    assert_eq!(
        (bed.told.as_slice(), bed.learned()),
        (&[Icmpv4Error::TooBig { mtu: 1380 }][..], Some((1400, LearnedBy::Router)))
    );
}

/// The attacker's error is held when the router reports the truth.
#[test]
fn rfc5927_s7_what_a_router_says_of_a_probe_counts_and_not_what_is_held() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    (bed.path.takes, bed.path.says) = (1400, Some(576));
    bed.icmp(&icmp(Icmpv4Error::TooBig { mtu: 600 }, &full_size(), 576));
    bed.run(SECOND, 0);
    assert_eq!(bed.learned(), Some((1400, LearnedBy::Router)));
    assert_eq!(bed.told, [Icmpv4Error::TooBig { mtu: 1380 }]);
}

#[test]
fn rfc5927_s7_2_a_router_sets_no_path_mtu_below_the_floor_and_probes_do() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(10), 100);
    (bed.path.takes, bed.path.says) = (300, Some(576));
    bed.icmp(&icmp(Icmpv4Error::TooBig { mtu: 300 }, &full_size(), 576));
    bed.run(STEP * 3, 0);
    assert_eq!(bed.learned(), Some((552, LearnedBy::Router)));
    bed.run(Duration::from_secs(20), 100);
    assert_eq!(bed.learned(), Some((300, LearnedBy::Probe)));
}

#[test]
fn probes_raise_a_path_mtu_from_a_router_before_it_expires() {
    let mut bed = Bed::default();
    (bed.path.takes, bed.path.says) = (1400, Some(576));
    bed.run(Duration::from_secs(10), 100);
    assert_eq!(bed.learned(), Some((1400, LearnedBy::Router)));
    bed.path.takes = 1500;
    bed.run(Duration::from_secs(60), 100);
    assert_eq!(bed.known().learned, None, "the path takes 1500, although a router reported less");
}

/// Only the peer itself may answer from its underlay address, and only to us (RFC 6169).
#[test]
fn an_answer_from_another_source_is_refused() {
    let mut bed = Bed::default();
    bed.path.is_silent = true;
    bed.run(Duration::from_secs(3), 100);
    let echo = |source: Ipv4Addr, destination: Ipv4Addr, kind| {
        let mut message = [0; 64];
        icmpv4::build_echo(&mut message, 0xad17, 1, &[0; 56], kind).expect("there is room");
        datagram(source, destination).protocol(Protocol::ICMP).payload(message.to_vec())
    };
    for (inner, from) in [
        (echo(B, GATEWAY_A, EchoKind::Reply), B),
        (echo(B, HOST_A, EchoKind::Request), B),
        (echo(C, GATEWAY_A, EchoKind::Reply), B),
        (echo(B, GATEWAY_A, EchoKind::Reply), C),
    ] {
        let before = bed.gateway.totals();
        let verdict = bed.gateway.decapsulate(&inner.inside(from, A).build());
        assert_eq!(verdict, Decapsulated::Drop(DropReason::InnerSourceNotFromPeer));
        assert_eq!(bed.gateway.totals().since(&before).dropped(), 1);
    }
    assert_eq!(bed.gateway.totals().probes.answered, 0);
}

/// Answers of a gateway's own stack come from its underlay address. The tunnel accepts these from
/// it, and nothing else.
#[test]
fn a_gateway_may_answer_probes_and_send_errors_from_its_underlay_address() {
    let gateway = Gateway::default();
    let message = |kind: u8| {
        datagram(A, HOST_B)
            .protocol(Protocol::ICMP)
            .payload([&[kind, 0, 0, 0][..], &[0; 60]].concat())
            .build()
    };
    for kind in [0, 3, 11, 12] {
        let verdict = gateway.encapsulate(&message(kind));
        assert!(matches!(verdict, Encapsulated::Forward { .. }), "type {kind}: {verdict:?}");
    }
    let refused = [message(8), datagram(A, HOST_B).build()];
    for datagram in refused {
        let verdict = gateway.encapsulate(&datagram);
        let denied = matches!(verdict, Encapsulated::Reply { reason: DropReason::InnerSourceDenied, .. });
        assert!(denied, "{verdict:?}");
    }
    let from_peer = |kind: u8| {
        let payload = [&[kind, 0, 0, 0][..], &[0; 60]].concat();
        datagram(B, HOST_A).protocol(Protocol::ICMP).payload(payload).inside(B, A).build()
    };
    for kind in [3, 11] {
        let verdict = gateway.decapsulate(&from_peer(kind));
        assert!(matches!(verdict, Decapsulated::Deliver { .. }), "type {kind}: {verdict:?}");
    }
    assert_eq!(gateway.decapsulate(&from_peer(0)), Decapsulated::Drop(DropReason::InnerSourceNotFromPeer));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_path_mtu_is_found_whatever_errors_and_losses_the_path_has(
        takes in 200usize..1600,
        says in proptest::option::of(28usize..600),
        loses in 0u64..5,
        chance in 1u64..,
    ) {
        let mut bed = Bed::new(Path { takes: 1500, says: None, is_silent: false, loses });
        bed.chance = chance;
        bed.run(Duration::from_secs(5), 100);
        (bed.path.takes, bed.path.says) = (takes, says);
        bed.run(Duration::from_secs(20), 100);
        bed.path.loses = 0;
        bed.run(Duration::from_secs(180), 100);
        prop_assert_eq!(usize::from(bed.known().mtu), takes.min(1500));
    }
}

/// The process or the machine is stopped for hours.
fn hours_pass_at_once(bed: &mut Bed) {
    bed.gateway.now = bed.gateway.now.saturating_add(Duration::from_secs(8 * 3600));
}

#[test]
fn a_clock_jump_of_hours_starts_no_burst_of_probes() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(60), 100);
    let before = bed.probes.len();
    hours_pass_at_once(&mut bed);
    bed.run(Duration::from_secs(10), 100);
    let probes = bed.probes.len() - before;
    assert!(
        (4..=6).contains(&probes),
        "one probe every two seconds as before, without those missed: {probes}"
    );
    assert_eq!(bed.learned(), None);
}

#[test]
fn an_answer_missed_during_a_clock_jump_proves_nothing() {
    let mut bed = Bed::default();
    bed.run(Duration::from_secs(60), 100);
    let before = bed.probes.len();
    bed.path.is_silent = true;
    bed.run_until(Duration::from_secs(5), 100, |bed| bed.probes.len() > before).expect("a probe is sent");
    hours_pass_at_once(&mut bed);
    bed.path.is_silent = false;
    bed.run(Duration::from_secs(10), 100);
    let probes = bed.probes.len() - before;
    assert!(probes <= 10, "{probes}");
    assert_eq!((bed.learned(), bed.known().mtu), (None, 1500));
}

#[test]
fn an_expired_path_mtu_is_learned_anew_after_a_clock_jump() {
    let mut bed = Bed { path: Path { takes: 1400, ..Bed::default().path }, ..Bed::default() };
    bed.run(Duration::from_secs(60), 100);
    assert_eq!(bed.learned(), Some((1400, LearnedBy::Probe)));
    let before = bed.probes.len();
    hours_pass_at_once(&mut bed);
    bed.run(Duration::from_secs(20), 100);
    assert_eq!(bed.learned(), Some((1400, LearnedBy::Probe)));
    let probes = bed.probes.len() - before;
    assert!(probes <= 60, "one search, not one for every hour: {probes}");
}
