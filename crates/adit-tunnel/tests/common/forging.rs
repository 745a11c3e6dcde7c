//! Gateway A with peers in every state, and somebody who forges ICMP errors about them, in virtual
//! time.

use std::hash::RandomState;
use std::net::Ipv4Addr;
use std::time::Duration;

use adit_tunnel::{
    Decapsulated, Instant, Peer, PeerIndex, PeerSet, ProbeOptions, Prober, Reachability, Traffic,
    UnderlayIcmp,
};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

use super::*;

pub const STEP: Duration = Duration::from_millis(10);
pub const SECOND: Duration = Duration::from_secs(1);

/// What the pair does while errors about it are forged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
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
    pub const ALL: [Pair; 5] = [Pair::NeverUsed, Pair::Idle, Pair::Active, Pair::Mute, Pair::OneWay];

    pub fn answers_probes(self) -> bool {
        matches!(self, Pair::NeverUsed | Pair::Idle | Pair::Active)
    }
}

/// Gateway A with many peers, all in one state. Their paths take `takes` bytes.
pub struct Peers {
    pub gateway: Gateway,
    prober: Prober,
    pair: Pair,
    pub takes: usize,
    pub count: u32,
    sent: u64,
    last_rx: Option<Instant>,
    is_sending: bool,
    /// Probes and their bytes.
    pub probes: (u64, u64),
    pub told: Vec<Icmpv4Error>,
}

pub fn underlay(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 + peer)
}

pub fn host(peer: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x1400_0000 + peer * 16 + 9)
}

impl Peers {
    /// The peers after some seconds, when errors may begin.
    pub fn new(pair: Pair, count: u32, probes: bool) -> Peers {
        let mut set = PeerSet::new(Some(A.into()), ["172.16.17.0/24".parse().unwrap()]).unwrap();
        for number in 0..count {
            let network = format!("{}/28", Ipv4Addr::from_bits(host(number).to_bits() & !15));
            set.insert(Peer {
                name: format!("p{number}").parse().unwrap(),
                underlay: underlay(number).into(),
                networks: vec![network.parse().unwrap()],
                path: adit_tunnel::PathOptions::default(),
            })
            .unwrap();
        }
        let probe = probes.then(|| ProbeOptions {
            sources: vec![GATEWAY_A.into()],
            secret: RandomState::new(),
            keepalive: None,
        });
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

    pub fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Lets time pass until a condition holds, with a datagram to each peer in use every tenth of a
    /// second. Returns the time that this took.
    pub fn run_until(&mut self, time: Duration, done: impl Fn(&Peers) -> bool) -> Option<Duration> {
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
            self.told.push(super::of_v4(reply).1);
        }
    }

    /// Forges an error about a full-size datagram to a peer. Returns its length.
    pub fn forge(&mut self, error: Icmpv4Error, peer: u32, quoted: usize) -> usize {
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
    pub fn is_unharmed(&self) -> bool {
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
pub fn answer(outer: &[u8]) -> Vec<u8> {
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
pub fn errors() -> Vec<Icmpv4Error> {
    let mut errors: Vec<Icmpv4Error> = (0..=16).filter(|code| *code != 4).map(unreachable).collect();
    errors.extend([0, 68, 600, 1400, 1499, 1500, 9000].map(|mtu| Icmpv4Error::TooBig { mtu }));
    errors.push(Icmpv4Error::SourceQuench);
    errors.extend((0..=3).map(|code| Icmpv4Error::Redirect { code, gateway: ROUTER }));
    errors.extend((0..=1).map(|code| Icmpv4Error::TimeExceeded { code }));
    errors.extend([1, 9, 29].map(|pointer| Icmpv4Error::ParameterProblem { code: 0, pointer }));
    errors
}
