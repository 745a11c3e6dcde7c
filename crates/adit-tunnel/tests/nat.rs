//! Gateways behind 1:1 NAT and idle paths, in virtual time: two tunnels with their probers, a path
//! that rewrites addresses, and IP stacks that answer echoes.

mod common;

use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use adit_tunnel::{
    Decapsulated, DropReason, Encapsulated, Instant, Keepalive, LearnedBy, Peer, PeerIndex, PeerSet,
    ProbeOptions, Prober, Traffic, TunnelConfig,
};
use adit_wire::icmpv4::{self, EchoKind, Icmpv4Message, types};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use common::*;

const STEP: Duration = Duration::from_millis(10);
const THE_OTHER: PeerIndex = PeerIndex::new(0);
const INSIDE_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
const INSIDE_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 1);
const NETWORKS: [&str; 2] = ["172.16.17.0/24", "192.168.199.0/24"];

/// A gateway.
struct End {
    gateway: Gateway,
    prober: Prober,
    /// The address that it has, and the one that the other calls it by.
    private: Ipv4Addr,
    public: Ipv4Addr,
    inside: Ipv4Addr,
    /// The address that it calls the other by.
    theirs: Ipv4Addr,
    /// The size of the largest datagram that reaches it.
    takes: usize,
    /// Datagrams that hosts behind it have sent.
    sent: u64,
    /// When it sent probes, and their sizes.
    probes: Vec<(Instant, usize)>,
}

/// What a test changes.
#[derive(Clone, Copy, Default)]
struct Setup {
    is_behind_nat: bool,
    probe_address: Option<Ipv4Addr>,
    keepalive: Option<Duration>,
    of_peer: Keepalive,
    does_not_probe: bool,
}

struct Bed([End; 2]);

fn end(which: usize, setup: Setup) -> End {
    let (public, theirs) = if which == 0 { (A, B) } else { (B, A) };
    let private = Ipv4Addr::new(192, 168, 200 + which as u8, 10);
    let private = if setup.is_behind_nat { private } else { public };
    let inside = [INSIDE_A, INSIDE_B][which];
    let networks = |which: usize| NETWORKS[which].parse().expect("a network");
    let mut peers = PeerSet::new(Some(private.into()), [networks(which)]).expect("no conflict");
    let path = adit_tunnel::PathOptions { probe_address: setup.probe_address, keepalive: setup.of_peer };
    let name = "other".parse().expect("a name");
    let peer = Peer { name, underlay: theirs.into(), networks: vec![networks(1 - which)], path };
    peers.insert(peer).expect("no conflict");
    let options =
        ProbeOptions { sources: vec![inside.into()], secret: RandomState::new(), keepalive: setup.keepalive };
    let gateway = Gateway::new(TunnelConfig {
        underlay: private.into(),
        peers,
        local_addresses: vec![inside.into()],
        probe: Some(options).filter(|_| !setup.does_not_probe),
        ..config()
    });
    let prober = Prober::new(&gateway.tunnel);
    End { gateway, prober, private, public, inside, theirs, takes: 1500, sent: 0, probes: Vec::new() }
}

impl Bed {
    fn new(a: Setup, b: Setup) -> Bed {
        Bed([end(0, a), end(1, b)])
    }

    fn run(&mut self, time: Duration, each_second: [u64; 2]) {
        let begin = self.0[0].gateway.now;
        while self.0[0].gateway.now.since(begin) < time {
            for (which, rate) in each_second.into_iter().enumerate() {
                let end = &mut self.0[which];
                end.gateway.now = end.gateway.now.saturating_add(STEP);
                let passed = end.gateway.now.since(begin).as_millis() as u64;
                end.sent += u64::from(passed.is_multiple_of(1000)) * rate;
                if end.prober.poll_timeout().is_some_and(|deadline| deadline <= end.gateway.now) {
                    self.step(which);
                }
            }
        }
    }

    fn step(&mut self, which: usize) {
        let end = &mut self.0[which];
        let Gateway { tunnel, counters, now } = &end.gateway;
        let traffic = Traffic { sent: end.sent, ..counters.traffic(THE_OTHER) };
        end.prober.handle_timeout(tunnel, *now, counters, |_| traffic);
        let mut out = [0; 65_535];
        let mut probes = Vec::new();
        while let Some(len) = end.prober.poll_transmit(tunnel, counters, &mut out) {
            end.probes.push((*now, len));
            probes.push(out[..len].to_vec());
        }
        for probe in probes {
            self.carry(which, &probe, false);
        }
    }

    /// Carries an outer datagram from one gateway to the other, and what its stack answers back.
    /// One that the sender has fragmented fits.
    fn carry(&mut self, from: usize, outer: &[u8], is_fragmented: bool) {
        let (sender, receiver) = (&self.0[from], &self.0[1 - from]);
        if outer.len() > receiver.takes && !is_fragmented {
            return;
        }
        let translated = rewrite(outer.to_vec(), 12, &sender.public.octets());
        let translated = rewrite(translated, 16, &receiver.private.octets());
        match receiver.gateway.decapsulate(&translated) {
            Decapsulated::Deliver { inner, .. } => {
                let answer = receiver.answer(&translated[inner]);
                if let Some((answer, is_fragmented)) = answer {
                    self.carry(1 - from, &answer, is_fragmented);
                }
            }
            Decapsulated::Answer { .. } | Decapsulated::Unanswerable { .. } => {}
            other => panic!("{} drops a probe: {other:?}", receiver.public),
        }
    }

    /// Forges a probe from B to A that comes from this inner address.
    fn forge(&self, source: Ipv4Addr, destination: Ipv4Addr) {
        let a = &self.0[0];
        let mut payload = vec![0; 14];
        payload[12..].copy_from_slice(&62_u16.to_be_bytes());
        let mut message = vec![0; 22];
        icmpv4::build_echo(&mut message, 0xad17, 0, &payload, EchoKind::Request).expect("there is room");
        let inner = datagram(source, destination).protocol(Protocol::ICMP).payload(message);
        a.gateway.decapsulate(&inner.inside(B, a.private).build());
    }

    fn learned(&self, which: usize) -> Option<(u16, LearnedBy)> {
        let known = self.0[which].gateway.tunnel.path_mtu(THE_OTHER);
        known.learned.map(|by| (known.mtu, by))
    }

    fn probed(&self, which: usize) -> Option<Ipv4Addr> {
        match self.0[which].gateway.tunnel.probe_address(THE_OTHER)? {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(address) => panic!("{address} on an underlay of IPv4"),
        }
    }
}

impl End {
    /// The outer datagram by which the stack of this gateway answers an inner one, and whether it
    /// leaves in fragments.
    fn answer(&self, inner: &[u8]) -> Option<(Vec<u8>, bool)> {
        let request = Ipv4Packet::parse(inner, Validation::Datapath).expect("a datagram");
        let message = Icmpv4Message::parse(request.payload()).ok()?;
        let here = request.destination();
        if message.message_type() != types::ECHO_REQUEST || here != self.private && here != self.inside {
            return None;
        }
        let (identifier, sequence) = message.echo()?;
        let mut reply = vec![0; request.payload().len()];
        icmpv4::build_echo(&mut reply, identifier, sequence, message.payload(), EchoKind::Reply)?;
        let reply = datagram(here, request.source()).protocol(Protocol::ICMP).payload(reply).build();
        match self.gateway.encapsulate(&reply) {
            Encapsulated::Forward { outer, .. } => Some(([outer.as_bytes(), &reply].concat(), false)),
            Encapsulated::Fragment { .. } => Some((wrap(self.private, self.theirs, reply).build(), true)),
            _ => None,
        }
    }

    /// The pauses between its probes.
    fn pauses(&self) -> impl Iterator<Item = Duration> {
        self.probes.windows(2).map(|pair| pair[1].0.since(pair[0].0))
    }
}

const NAT: Setup = Setup {
    is_behind_nat: true,
    probe_address: None,
    keepalive: None,
    of_peer: Keepalive::Default,
    does_not_probe: false,
};
const OPEN: Setup = Setup { is_behind_nat: false, ..NAT };

/// One or both are behind NAT, traffic goes both ways or towards A only.
#[test]
fn a_black_hole_towards_a_gateway_behind_nat_is_found() {
    for (b, rate) in [(OPEN, [10, 100]), (OPEN, [0, 100]), (NAT, [10, 100]), (NAT, [0, 100])] {
        let mut bed = Bed::new(NAT, b);
        bed.0[0].takes = 1300;
        let at = (b.is_behind_nat, rate);
        bed.run(Duration::from_secs(12), rate);
        assert!(bed.learned(1).is_some_and(|(mtu, _)| mtu <= 1300), "{at:?}: {:?}", bed.learned(1));
        bed.run(Duration::from_secs(8), rate);
        assert_eq!(bed.learned(1), Some((1300, LearnedBy::Probe)), "{at:?}");
        assert_eq!(bed.probed(1), Some(INSIDE_A), "{at:?}");
        for end in &bed.0 {
            assert_eq!(end.gateway.drops(), [], "{at:?}");
            let totals = end.gateway.totals();
            assert_eq!((totals.peers[0].tx_packets, totals.peers[0].rx_packets), (0, 0), "no traffic");
        }
    }
}

#[test]
fn an_address_that_answers_is_kept_whatever_is_learned() {
    let mut bed = Bed::new(OPEN, OPEN);
    for _ in 0..100 {
        // One that nobody has, to our own address and to one that is not ours.
        bed.forge(Ipv4Addr::new(192, 168, 199, 66), A);
        bed.forge(Ipv4Addr::new(192, 168, 199, 66), STRANGER);
        bed.run(Duration::from_secs(1), [100, 0]);
    }
    assert_eq!(bed.probed(0), Some(B));
    assert!(!bed.0[0].gateway.tunnel.is_silent(THE_OTHER));
    bed.0[1].takes = 1300;
    bed.run(Duration::from_secs(12), [100, 0]);
    assert_eq!(bed.learned(0), Some((1300, LearnedBy::Probe)));
}

/// A forged probe costs at most one probe of its size, and only where it says that we are behind
/// NAT.
#[test]
fn forged_probes_are_not_amplified() {
    let mut bed = Bed::new(OPEN, OPEN);
    for _ in 0..50 {
        bed.forge(Ipv4Addr::new(192, 168, 199, 66), STRANGER);
        bed.run(Duration::from_secs(3), [0, 0]);
    }
    let probes = &bed.0[0].probes;
    assert!(!probes.is_empty() && probes.len() <= 50, "{} probes", probes.len());
    assert!(probes.iter().all(|(_, len)| *len <= 62));
    let before = probes.len();
    for _ in 0..50 {
        bed.forge(Ipv4Addr::new(192, 168, 199, 66), A);
        bed.run(Duration::from_secs(3), [0, 0]);
    }
    assert_eq!(bed.0[0].probes.len(), before, "a probe that can be answered asks for nothing");
}

/// What does not come from the peer's networks teaches nothing.
#[test]
fn only_an_address_of_the_peer_is_learned() {
    let mut bed = Bed::new(OPEN, NAT);
    let drops = |bed: &Bed| bed.0[0].gateway.drops();
    for source in [HOST_A, STRANGER, B] {
        bed.forge(source, STRANGER);
    }
    let refused: u64 = drops(&bed).iter().map(|(_, count)| count).sum();
    assert_eq!(refused, 3, "{:?}", drops(&bed));
    bed.run(Duration::from_secs(10), [100, 0]);
    assert!(bed.probed(0).is_some_and(|address| address == B || address == INSIDE_B));
}

#[test]
fn a_configured_address_is_probed_although_the_peer_probes_nobody() {
    let b = Setup { probe_address: Some(INSIDE_A), ..OPEN };
    let mut bed = Bed::new(Setup { does_not_probe: true, ..NAT }, b);
    bed.0[0].takes = 1300;
    bed.run(Duration::from_secs(10), [0, 100]);
    assert_eq!((bed.probed(1), bed.learned(1)), (Some(INSIDE_A), Some((1300, LearnedBy::Probe))));
}

/// Nothing can be known then, and it is said.
#[test]
fn a_peer_that_cannot_be_probed_is_silent_and_left_alone() {
    let mut bed = Bed::new(Setup { does_not_probe: true, ..NAT }, OPEN);
    bed.run(Duration::from_secs(3600), [0, 100]);
    let [a, b] = &bed.0;
    assert!(b.gateway.tunnel.is_silent(THE_OTHER));
    assert_eq!(bed.learned(1), None);
    let probes = b.probes.len();
    assert!(probes < 200, "{probes} probes in an hour");
    assert_eq!(a.gateway.drops(), [], "the other end counts them as probes");
    assert_eq!(a.gateway.totals().probes.received, probes as u64);
}

#[test]
fn an_idle_peer_gets_a_keepalive_in_each_interval() {
    let interval = Duration::from_secs(25);
    let mut bed = Bed::new(Setup { keepalive: Some(interval), ..OPEN }, OPEN);
    bed.run(Duration::from_secs(600), [0, 0]);
    let a = &bed.0[0];
    let sent = a.probes.len() as u64;
    assert!((23..=24).contains(&sent), "{sent} keepalives");
    assert!(a.probes.iter().all(|(_, len)| *len == 62));
    assert!(a.pauses().all(|pause| pause >= interval && pause < interval + STEP * 2));
    let probes = a.gateway.totals().probes;
    assert_eq!((probes.keepalives, probes.sent, probes.answered), (sent, sent, sent));
    assert_eq!(bed.0[1].probes, [], "only who asks for it");
}

/// With traffic the path is probed anyway, and without probes the traffic is enough.
#[test]
fn a_keepalive_is_sent_only_if_nothing_else_was() {
    let setup = Setup { keepalive: Some(Duration::from_secs(5)), ..OPEN };
    let mut bed = Bed::new(setup, OPEN);
    bed.run(Duration::from_secs(60), [1, 0]);
    assert!(bed.0[0].gateway.totals().probes.keepalives <= 1);
    let before = bed.0[0].gateway.totals().probes.keepalives;
    // The peer is gone, so it is probed less and less often.
    bed.0[1].takes = 0;
    bed.run(Duration::from_secs(300), [1, 0]);
    assert_eq!(bed.0[0].gateway.totals().probes.keepalives, before);
    bed.run(Duration::from_secs(60), [0, 0]);
    let keepalives = bed.0[0].gateway.totals().probes.keepalives - before;
    assert!((10..=12).contains(&keepalives), "{keepalives} keepalives to a peer that is gone");
}

#[test]
fn a_peer_has_its_own_keepalive() {
    let for_all = Some(Duration::from_secs(25));
    let sent = |keepalive, of_peer| {
        let mut bed = Bed::new(Setup { keepalive, of_peer, ..OPEN }, OPEN);
        bed.run(Duration::from_secs(100), [0, 0]);
        bed.0[0].gateway.totals().probes.keepalives
    };
    assert_eq!(sent(for_all, Keepalive::Default), 4);
    assert_eq!(sent(for_all, Keepalive::Off), 0);
    assert_eq!(sent(None, Keepalive::Default), 0);
    assert_eq!(sent(None, Keepalive::After(Duration::from_secs(10))), 10);
}

/// Those of 10,000 peers are spread over the interval, from the first one on.
#[test]
fn keepalives_of_many_peers_are_spread_out() {
    const PEERS: u32 = 10_000;
    let interval = Duration::from_secs(20);
    let mut set =
        PeerSet::new(Some(A.into()), [NETWORKS[0].parse().expect("a network")]).expect("no conflict");
    for number in 0..PEERS {
        let [_, _, c, d] = number.to_be_bytes();
        let peer = Peer {
            name: format!("p{number}").parse().expect("a name"),
            underlay: Ipv4Addr::new(198, 51, c, d).into(),
            networks: vec![format!("20.{c}.{d}.0/24").parse().expect("a network")],
            path: adit_tunnel::PathOptions::default(),
        };
        set.insert(peer).expect("no conflict");
    }
    let probe = ProbeOptions {
        sources: vec![INSIDE_A.into()],
        secret: RandomState::new(),
        keepalive: Some(interval),
    };
    let mut gateway = Gateway::new(TunnelConfig { peers: set, probe: Some(probe), ..config() });
    let mut prober = Prober::new(&gateway.tunnel);
    let mut out = [0; 2000];
    let mut each_second = Vec::new();
    for _ in 0..60 {
        let end = gateway.now.saturating_add(Duration::from_secs(1));
        let mut sent = 0_u32;
        while gateway.now < end {
            gateway.now = gateway.now.saturating_add(STEP);
            prober.handle_timeout(&gateway.tunnel, gateway.now, &gateway.counters, |_| Traffic::default());
            while prober.poll_transmit(&gateway.tunnel, &gateway.counters, &mut out).is_some() {
                sent += 1;
            }
        }
        each_second.push(sent);
    }
    let total: u32 = each_second.iter().sum();
    assert!((PEERS * 2..=PEERS * 3).contains(&total), "{total}: {each_second:?}");
    assert!(each_second.iter().all(|sent| *sent < PEERS / 10), "{each_second:?}");
    assert_eq!(gateway.totals().drops_of(DropReason::QueueFull), 0);
}
