//! Whom to believe: ICMP errors that anybody may have forged, of every type and code, about peers
//! in every state, and about thousands of them, in virtual time. Compare `probing.rs`, where
//! routers tell the truth.

mod common;

use std::hash::RandomState;
use std::net::Ipv4Addr;
use std::time::Duration;

use adit_tunnel::{
    Decapsulated, Instant, Peer, PeerIndex, PeerSet, ProbeOptions, Prober, Reachability, Traffic,
    UNANSWERED_TIMEOUT, UnderlayIcmp,
};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use common::*;

const STEP: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

/// What the pair does while errors about it are forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    /// Nothing was ever sent to the peer.
    NeverUsed,
    /// Nothing has been sent for some time.
    Idle,
    /// Datagrams go both ways, and the peer answers probes.
    Active,
    /// Datagrams go both ways, and the peer answers no probes.
    Mute,
    /// Datagrams go to the peer, and nothing comes back, not even answers to probes.
    OneWay,
}

impl Pair {
    const ALL: [Pair; 5] = [Pair::NeverUsed, Pair::Idle, Pair::Active, Pair::Mute, Pair::OneWay];

    fn answers_probes(self) -> bool {
        matches!(self, Pair::NeverUsed | Pair::Idle | Pair::Active)
    }
}

/// Gateway A with many peers, all in one state. Their paths take `takes` bytes.
struct Peers {
    gateway: Gateway,
    prober: Prober,
    pair: Pair,
    takes: usize,
    count: u32,
    sent: u64,
    last_rx: Option<Instant>,
    is_sending: bool,
    /// Probes and their bytes.
    probes: (u64, u64),
    told: Vec<Icmpv4Error>,
}

fn underlay(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 + peer)
}

fn host(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x1400_0000 + peer * 16 + 9)
}

impl Peers {
    /// The peers after some seconds, when errors may begin.
    fn new(pair: Pair, count: u32, probes: bool) -> Peers {
        let mut set = PeerSet::new(Some(A), ["172.16.17.0/24".parse().unwrap()]).unwrap();
        for number in 0..count {
            let network = format!("{}/28", Ipv4Addr::from_bits(host(number).to_bits() & !15));
            set.insert(Peer {
                name: format!("p{number}").parse().unwrap(),
                underlay: underlay(number),
                networks: vec![network.parse().unwrap()],
                path: adit_tunnel::PathOptions::default(),
            })
            .unwrap();
        }
        let probe =
            probes.then(|| ProbeOptions { source: GATEWAY_A, secret: RandomState::new(), keepalive: None });
        let gateway = Gateway::new(adit_tunnel::TunnelConfig { probe, peers: set, ..config() });
        let prober = Prober::new(&gateway.tunnel);
        let mut peers = Peers {
            gateway,
            prober,
            pair,
            takes: 1500,
            count,
            sent: 0,
            last_rx: None,
            is_sending: pair != Pair::NeverUsed,
            probes: (0, 0),
            told: Vec::new(),
        };
        peers.run(SECOND * 6);
        if pair == Pair::Idle {
            peers.is_sending = false;
            peers.run(SECOND * 15);
        }
        peers
    }

    fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until a condition holds, with a datagram to each peer in use every tenth of a
    /// second. Returns the time that this took.
    fn run_until(&mut self, time: Duration, done: impl Fn(&Peers) -> bool) -> Option<Duration> {
        let begin = self.gateway.now;
        while self.gateway.now.since(begin) < time {
            self.gateway.now = self.gateway.now.saturating_add(STEP);
            if self.is_sending && self.gateway.now.as_millis().is_multiple_of(100) {
                self.sent += 1;
                self.last_rx = (self.pair != Pair::OneWay).then_some(self.gateway.now);
            }
            if self.prober.poll_timeout().is_some_and(|deadline| deadline <= self.gateway.now) {
                self.step();
            }
            if done(self) {
                return Some(self.gateway.now.since(begin));
            }
        }
        None
    }

    fn traffic(&self) -> impl Fn(PeerIndex) -> Traffic + use<> {
        let traffic = Traffic { sent: self.sent, last_rx: self.last_rx };
        move |_| traffic
    }

    fn step(&mut self) {
        let traffic = self.traffic();
        let Gateway { tunnel, counters, now } = &self.gateway;
        self.prober.handle_timeout(tunnel, *now, counters, traffic);
        self.relay();
        self.transmit();
    }

    fn transmit(&mut self) {
        let mut out = [0; 65_535];
        let Gateway { tunnel, counters, .. } = &self.gateway;
        while let Some(len) = self.prober.poll_transmit(tunnel, counters, &mut out) {
            self.probes.0 += 1;
            self.probes.1 += len as u64;
            if len <= self.takes && self.pair.answers_probes() {
                let verdict = self.gateway.decapsulate(&answer(&out[..len]));
                assert!(matches!(verdict, Decapsulated::Answer { .. }), "{verdict:?}");
            }
        }
    }

    fn relay(&mut self) {
        while let Some((message, proof)) = self.prober.poll_confirmed() {
            let Gateway { tunnel, counters, now } = &self.gateway;
            let outcome = tunnel.on_confirmed_icmp(&message, proof, *now, counters);
            self.note(&outcome);
        }
    }

    fn note(&mut self, outcome: &UnderlayIcmp) {
        if let UnderlayIcmp::Relay { reply, .. } = outcome {
            self.told.push(reply.error);
        }
    }

    /// Forges an error about a full-size datagram to a peer. Returns its length.
    fn forge(&mut self, error: Icmpv4Error, peer: u32, quoted: usize) -> usize {
        let datagram = datagram(HOST_A, host(peer)).len(1480).df(true).inside(A, underlay(peer)).build();
        let message = icmp(error, &rewrite(datagram, 6, &[0x40, 0]), quoted);
        let traffic = self.traffic();
        let Gateway { tunnel, counters, now } = &self.gateway;
        let outcome = self.prober.handle_icmp(tunnel, &message, *now, counters, traffic);
        self.note(&outcome);
        self.relay();
        self.transmit();
        message.len()
    }

    /// Returns true if nothing has been learned of any peer, and nobody was told anything.
    fn is_unharmed(&self) -> bool {
        let tunnel = &self.gateway.tunnel;
        self.told.is_empty()
            && (0..self.count).map(PeerIndex::new).all(|peer| {
                tunnel.path_mtu(peer).mtu == 1500
                    && tunnel.reachability(peer) == Reachability::Assumed
                    && !tunnel.has_pending_error(peer)
            })
    }
}

/// What the peer's stack answers to a probe.
fn answer(outer: &[u8]) -> Vec<u8> {
    let whole = Ipv4Packet::parse(outer, Validation::Datapath).expect("a datagram");
    let inner = Ipv4Packet::parse(whole.payload(), Validation::Datapath).expect("a datagram");
    let message = Icmpv4Message::parse(inner.payload()).expect("an ICMP message");
    let (identifier, sequence) = message.echo().expect("an echo");
    let mut reply = vec![0; inner.payload().len()];
    icmpv4::build_echo(&mut reply, identifier, sequence, message.payload(), EchoKind::Reply).unwrap();
    let peer = inner.destination();
    datagram(peer, inner.source()).protocol(Protocol::ICMP).payload(reply).inside(peer, A).build()
}

/// Every type and code.
fn errors() -> Vec<Icmpv4Error> {
    let mut errors: Vec<Icmpv4Error> = (0..=16).filter(|code| *code != 4).map(unreachable).collect();
    errors.extend([0, 68, 600, 1400, 1499, 1500, 9000].map(|mtu| Icmpv4Error::TooBig { mtu }));
    errors.push(Icmpv4Error::SourceQuench);
    errors.extend((0..=3).map(|code| Icmpv4Error::Redirect { code, gateway: ROUTER }));
    errors.extend((0..=1).map(|code| Icmpv4Error::TimeExceeded { code }));
    errors.extend([1, 9, 29].map(|pointer| Icmpv4Error::ParameterProblem { code: 0, pointer }));
    errors
}

/// What an error does where it is believed: the errors that senders get, and whether the state of
/// the peer changes.
fn believed(error: Icmpv4Error) -> (Option<Icmpv4Error>, bool) {
    match error {
        Icmpv4Error::DestinationUnreachable { code: 3 | 5 | 16.. } => (None, false),
        Icmpv4Error::DestinationUnreachable { .. } | Icmpv4Error::TimeExceeded { .. } => {
            (Some(unreachable(1)), true)
        }
        Icmpv4Error::TooBig { mtu: 1500.. } => (None, false),
        Icmpv4Error::TooBig { mtu } => {
            let told = if mtu == 0 { 1492 } else { mtu.max(552) };
            (Some(Icmpv4Error::TooBig { mtu: told - 20 }), true)
        }
        Icmpv4Error::ParameterProblem { code, pointer: 1 } => {
            (Some(Icmpv4Error::ParameterProblem { code, pointer: 1 }), false)
        }
        Icmpv4Error::ParameterProblem { code, pointer: 29 } => {
            (Some(Icmpv4Error::ParameterProblem { code, pointer: 9 }), false)
        }
        Icmpv4Error::ParameterProblem { .. } | Icmpv4Error::SourceQuench | Icmpv4Error::Redirect { .. } => {
            (None, false)
        }
    }
}

#[test]
fn rfc5927_s7_a_forged_error_harms_no_peer_that_answers_or_is_not_in_use() {
    for pair in [Pair::NeverUsed, Pair::Idle, Pair::Active, Pair::Mute] {
        for error in errors() {
            for quoted in [28, 48, 576] {
                let mut peers = Peers::new(pair, 1, true);
                peers.forge(error, 0, quoted);
                assert!(peers.is_unharmed(), "{pair:?}, {error:?}, at once");
                peers.run(SECOND * 15);
                assert!(peers.is_unharmed(), "{pair:?}, {error:?}, {quoted} bytes: {:?}", peers.told);
            }
        }
    }
}

#[test]
fn an_error_about_a_peer_from_which_nothing_comes_is_believed_after_three_seconds() {
    for error in errors() {
        let (told, changes) = believed(error);
        let mut peers = Peers::new(Pair::OneWay, 1, true);
        // The second one pays for the probe of the first.
        for _ in 0..2 {
            peers.forge(error, 0, 576);
        }
        let after = peers.run_until(SECOND * 9, |peers| !peers.is_unharmed());
        let expected = UNANSWERED_TIMEOUT..UNANSWERED_TIMEOUT + STEP * 4;
        assert_eq!(
            after.is_some_and(|after| expected.contains(&after)),
            told.is_some(),
            "{error:?}: {after:?}"
        );
        assert_eq!(peers.told, Vec::from_iter(told), "{error:?}");
        let state = peers.gateway.tunnel.reachability(PEER_B) != Reachability::Assumed
            || peers.gateway.tunnel.path_mtu(PEER_B).learned.is_some();
        assert_eq!(state, changes, "{error:?}");
    }
}

#[test]
fn without_probes_an_error_is_believed_by_its_quote() {
    for pair in Pair::ALL {
        for error in errors() {
            let mut peers = Peers::new(pair, 1, false);
            peers.forge(error, 0, 576);
            assert_eq!(peers.told, Vec::from_iter(believed(error).0), "{pair:?}, {error:?}");
        }
    }
}

/// Packets and their bytes.
type Amount = (u64, u64);

/// Lets `steps` steps pass, with `rate` forged errors of all kinds a second, at the peers in turn.
/// Returns the probes and the forged packets.
fn flood(pair: Pair, count: u32, rate: u64, steps: u64) -> (Amount, Amount) {
    let errors = errors();
    let mut forged = (0, 0);
    let mut peers = Peers::new(pair, count, true);
    let before = peers.probes;
    for step in 0..steps {
        for _ in 0..(step + 1) * rate / 100 - step * rate / 100 {
            // 7 is prime to the number of peers and to that of errors.
            let error = errors[(forged.0 * 7) as usize % errors.len()];
            forged.1 += peers.forge(error, (forged.0 % u64::from(count)) as u32, 48) as u64;
            forged.0 += 1;
        }
        peers.run(STEP);
    }
    let harmed = pair != Pair::OneWay && !peers.is_unharmed();
    assert!(!harmed, "{pair:?}, {count} peers, {rate} a second");
    ((peers.probes.0 - before.0, peers.probes.1 - before.1), forged)
}

/// Floods at these rates, and compares the probes with those of the same time without.
fn is_not_amplified(count: u32, rates: &[u64], steps: u64) {
    for pair in Pair::ALL {
        let (without, _) = flood(pair, count, 0, steps);
        for rate in rates {
            let (with, forged) = flood(pair, count, *rate, steps);
            let what = format!("{pair:?}, {count} peers, {rate} a second: {forged:?} forged");
            let more = (with.0.saturating_sub(without.0), with.1.saturating_sub(without.1));
            assert!(more.0 <= forged.0, "{what}, {more:?} more probes");
            match pair {
                Pair::NeverUsed | Pair::Idle => assert_eq!(with, (0, 0), "{what}"),
                // An error only brings a confirmation forward, that of each peer by one at most.
                Pair::Active => assert!(more.0 <= u64::from(count), "{what}, {more:?} more probes"),
                Pair::Mute | Pair::OneWay => assert!(more.1 <= forged.1, "{what}, {more:?} more probes"),
            }
        }
    }
}

#[test]
fn rfc5927_s7_a_flood_of_every_type_at_one_peer_is_harmless_and_not_amplified() {
    is_not_amplified(1, &[1, 20, 500], 1000);
}

#[test]
fn rfc5927_s7_a_flood_of_every_type_at_thousands_of_peers_is_harmless_and_not_amplified() {
    is_not_amplified(5000, &[1, 20, 500, 5000], 300);
}

#[test]
fn rfc5927_s7_one_forged_too_big_at_each_of_thousands_of_active_peers_harms_none() {
    let mut peers = Peers::new(Pair::Active, 5000, true);
    for peer in 0..5000 {
        peers.forge(Icmpv4Error::TooBig { mtu: 68 }, peer, 48);
    }
    peers.run(SECOND * 10);
    assert!(peers.is_unharmed());
}

#[test]
fn rfc8899_s4_3_black_holes_are_found_in_six_seconds_with_ten_thousand_active_peers() {
    let mut peers = Peers::new(Pair::Active, 10_000, true);
    let before = peers.probes.0;
    peers.run(SECOND * 10);
    let probes = (peers.probes.0 - before) / 10;
    assert!((4_900..=5_100).contains(&probes), "each is confirmed every two seconds: {probes} a second");
    peers.takes = 1387;
    let found = peers.run_until(SECOND * 20, |peers| {
        (0..10_000).map(PeerIndex::new).all(|peer| peers.gateway.tunnel.path_mtu(peer).learned.is_some())
    });
    assert!(found.is_some_and(|after| after <= SECOND * 6), "{found:?}");
}
