//! A simulation of two gateways, a host behind each, and an underlay that loses, reorders and
//! duplicates datagrams, with a router whose next link has a smaller MTU. Time is virtual and
//! chance is seeded, so that every run is the same.
//!
//! ```text
//! host A ── gateway A ──┬── loss, delay, duplicates ── router (MTU) ── gateway B ── host B
//!                       └◄──────── Too Big ────────────┘
//! ```

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use adit_tunnel::{Decapsulated, DropReason, Encapsulated, Instant, Stage, TunnelConfig, UnderlayIcmp};
use adit_wire::icmpv4::{self, Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::{Validation, fragment};
use common::*;

const UNDERLAY_MTU: u16 = 1500;
const ROUTER_MTU: u16 = 1300;

/// xorshift64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    HostSends { size: usize, df: bool },
    AtRouter(Vec<u8>),
    AtB(Vec<u8>),
    IcmpAtA(Vec<u8>),
}

/// Counts of what the underlay did.
#[derive(Debug, Default)]
struct Underlay {
    sent: u64,
    lost: u64,
    duplicated: u64,
    too_big: u64,
    arrived: u64,
}

/// Host A: the datagrams that it has sent, and the MTU in the last error that it got.
#[derive(Default)]
struct Sender {
    sent: BTreeMap<u16, Vec<u8>>,
    mtu: Option<u16>,
}

/// Host B: fragments by identification and offset, and complete datagrams.
#[derive(Default)]
struct Receiver {
    pieces: BTreeMap<u16, BTreeMap<usize, Vec<u8>>>,
    whole: BTreeMap<u16, Vec<u8>>,
}

struct Network {
    a: Gateway,
    b: Gateway,
    host_a: Sender,
    host_b: Receiver,
    underlay: Underlay,
    /// ICMP messages that reached gateway A.
    messages: u64,
    router_mtu: u16,
    loss: u64,
    chance: Chance,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    scheduled: u64,
    now: Instant,
}

impl Network {
    fn new(loss: u64, seed: u64) -> Network {
        let peers =
            peer_set(B, "192.168.199.0/24", &[("a", A, "172.16.17.0/24"), ("c", C, "192.168.200.0/24")]);
        let config_b = TunnelConfig { underlay: B.into(), peers, local_addresses: Vec::new(), ..config() };
        Network {
            a: Gateway::default(),
            b: Gateway::new(config_b),
            host_a: Sender::default(),
            host_b: Receiver::default(),
            underlay: Underlay::default(),
            messages: 0,
            router_mtu: ROUTER_MTU,
            loss,
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            events: BinaryHeap::new(),
            scheduled: 0,
            now: Instant::ZERO,
        }
    }

    fn at(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        let time = self.now.saturating_add(Duration::from_millis(after));
        self.events.push(Reverse((time, self.scheduled, event)));
    }

    /// Runs until no datagram is under way, and meets the gateways' deadlines in order of time.
    fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.events.pop() {
            self.turn_clock(time);
            match event {
                Event::HostSends { size, df } => self.host_sends(size, df),
                Event::AtRouter(datagram) => self.at_router(datagram),
                Event::AtB(datagram) => self.at_b(datagram),
                Event::IcmpAtA(message) => self.icmp_at_a(&message),
            }
        }
    }

    fn turn_clock(&mut self, time: Instant) {
        assert!(time >= self.now, "time runs forward");
        self.now = time;
        for gateway in [&mut self.a, &mut self.b] {
            gateway.now = time;
            if gateway.tunnel.next_deadline().is_some_and(|deadline| deadline <= time) {
                gateway.tunnel.on_deadline(time);
            }
        }
    }

    fn host_sends(&mut self, size: usize, df: bool) {
        let size = if df { size.min(self.host_a.mtu.map_or(size, usize::from)) } else { size };
        let identification = self.host_a.sent.len() as u16 + 1;
        let mut inner = a_to_b().len(size).df(df);
        inner.repr.identification = identification;
        inner.payload.rotate_left(usize::from(identification) % 80);
        let inner = inner.build();
        self.host_a.sent.insert(identification, inner.clone());
        match self.a.encapsulate(&inner) {
            Encapsulated::Forward { outer, .. } => self.onto_underlay([outer.as_bytes(), &inner].concat()),
            Encapsulated::Fragment { max_datagram, outer, .. } => {
                let packet =
                    Ipv4Packet::parse(&inner, Validation::Strict).expect("host A writes valid datagrams");
                for piece in fragment::fragments(&packet, max_datagram).expect("DF is clear") {
                    let header = outer.for_segment(piece.len() as u16, 0);
                    self.onto_underlay([header.as_bytes(), piece.header(), &inner[piece.payload()]].concat());
                }
            }
            Encapsulated::ForwardInFragments { .. } => panic!("only packets of IPv6 are"),
            Encapsulated::Reply { reply, .. } => self.host_a_receives_error(&reply, &inner),
            Encapsulated::Drop(_) => {}
        }
    }

    fn host_a_receives_error(&mut self, reply: &adit_tunnel::Reply, offending: &[u8]) {
        let mut out = [0; adit_tunnel::MAX_REPLY_LEN];
        let len = reply.write(offending, &mut out);
        let packet =
            Ipv4Packet::parse(&out[..len], Validation::Strict).expect("an answer is a valid datagram");
        assert_eq!(packet.destination(), HOST_A);
        let message = Icmpv4Message::parse(packet.payload()).expect("an answer is a valid ICMP message");
        let quoted = message.quote().expect("an answer has a quote").packet();
        let sent = &self.host_a.sent[&quoted.identification()];
        // A fragment that the gateway made has another header than what host A sent, but the same
        // payload.
        let at = 20 + usize::from(quoted.fragment_offset());
        assert!(
            sent[at..].starts_with(quoted.payload()),
            "host A must get errors only about datagrams that it has sent"
        );
        if let Some(Icmpv4Error::TooBig { mtu }) = message.error() {
            self.host_a.mtu = Some(mtu);
        }
    }

    fn onto_underlay(&mut self, datagram: Vec<u8>) {
        assert!(datagram.len() <= usize::from(UNDERLAY_MTU), "the underlay's interface would refuse it");
        self.underlay.sent += 1;
        if self.chance.percent(self.loss) {
            self.underlay.lost += 1;
            return;
        }
        if self.chance.percent(2) {
            self.underlay.duplicated += 1;
            let delay = 5 + self.chance.next() % 30;
            self.at(delay, Event::AtRouter(datagram.clone()));
        }
        // The spread is wider than the time between two datagrams, so that they overtake each
        // other.
        let delay = 5 + self.chance.next() % 30;
        self.at(delay, Event::AtRouter(datagram));
    }

    fn at_router(&mut self, datagram: Vec<u8>) {
        let outer =
            Ipv4Packet::parse(&datagram, Validation::Strict).expect("the tunnel writes valid datagrams");
        if datagram.len() <= usize::from(self.router_mtu) {
            return self.at(1, Event::AtB(datagram));
        }
        assert!(outer.dont_fragment(), "without DF the router would have to fragment");
        self.underlay.too_big += 1;
        let mut out = [0; icmpv4::MAX_ERROR_LEN];
        let error = Icmpv4Error::TooBig { mtu: self.router_mtu };
        let len = icmpv4::build_error(&mut out, ROUTER, outer.source(), error, &datagram);
        if !self.chance.percent(self.loss) {
            self.at(5, Event::IcmpAtA(out[..len].to_vec()));
        }
    }

    fn icmp_at_a(&mut self, message: &[u8]) {
        self.messages += 1;
        if let UnderlayIcmp::Relay { reply, offending, .. } = self.a.icmp(message) {
            self.host_a_receives_error(&reply, &message[offending]);
        }
    }

    fn at_b(&mut self, mut datagram: Vec<u8>) {
        self.underlay.arrived += 1;
        if let Decapsulated::Deliver { inner, set_ecn, .. } = self.b.decapsulate(&datagram) {
            if let Some(ecn) = set_ecn {
                ipv4::set_ecn(&mut datagram[inner.clone()], ecn).expect("a whole header");
            }
            self.host_b.take(&datagram[inner]);
        }
    }

    /// Checks that every loss is counted, and that datagrams arrive unchanged.
    fn check(&self) {
        let (a, b) = (self.a.totals(), self.b.totals());
        let refused: u64 =
            a.drops_by_reason().filter(|(r, _)| r.stage() == Stage::Encapsulation).map(|(_, n)| n).sum();
        assert_eq!(self.host_a.sent.len() as u64, a.peers[0].tx_packets + refused, "gateway A");
        // If the gateway has fragmented a datagram, only its first fragment is answered.
        let unanswered = a.drops_of(DropReason::IcmpNotAnswerable);
        let taken_in = a.icmp.relayed + a.icmp.state_changed + a.icmp.not_ours + unanswered;
        assert_eq!(self.messages, taken_in, "ICMP at gateway A");
        assert_eq!(a.dropped(), refused + unanswered, "nothing else is dropped at gateway A");
        let Underlay { sent, lost, duplicated, too_big, arrived } = self.underlay;
        assert_eq!(sent + duplicated, lost + too_big + arrived, "underlay");
        assert_eq!(arrived, b.peers[0].rx_packets + b.dropped(), "gateway B");
        assert_eq!(b.dropped(), 0, "gateway B drops nothing");
        for (identification, bytes) in &self.host_b.whole {
            assert_eq!(
                bytes,
                &self.host_a.sent[identification][20..],
                "datagram {identification} arrived changed"
            );
        }
    }
}

impl Receiver {
    fn take(&mut self, bytes: &[u8]) {
        let packet = Ipv4Packet::parse(bytes, Validation::Strict).expect("a delivered datagram is valid");
        let pieces = self.pieces.entry(packet.identification()).or_default();
        pieces.insert(usize::from(packet.fragment_offset()), packet.payload().to_vec());
        if !packet.more_fragments() {
            let end = usize::from(packet.fragment_offset()) + packet.payload().len();
            // An empty last piece marks the end of the datagram.
            pieces.insert(end, Vec::new());
        }
        let together =
            pieces.iter().try_fold(0, |at, (offset, piece)| (*offset == at).then_some(at + piece.len()));
        let ended = pieces.last_key_value().is_some_and(|(_, piece)| piece.is_empty());
        if together.is_some() && ended {
            self.whole.insert(packet.identification(), pieces.values().flatten().copied().collect());
        }
    }
}

const DATAGRAMS: u64 = 200;

fn run(loss: u64, size: usize, df: bool) -> Network {
    let mut network = Network::new(loss, loss * 100_000 + size as u64 * 2 + u64::from(df));
    for n in 0..DATAGRAMS {
        network.at(n * 10, Event::HostSends { size, df });
    }
    network.run();
    network.check();
    network
}

#[test]
fn loss_and_size() {
    let mut table = String::from(
        "loss   size df  sent whole | outer  lost twice  too-big | refused  sender-mtu  path-mtu\n",
    );
    for loss in [0, 1, 10, 30] {
        for size in [100, 1280, 1281, 1480, 1481, 4000] {
            for df in [false, true] {
                let network = run(loss, size, df);
                let Underlay { sent: outer, lost, duplicated, too_big, .. } = network.underlay;
                let sender_mtu = network.host_a.mtu.map_or("-".to_owned(), |mtu| mtu.to_string());
                let path = network.a.tunnel.path_mtu(PEER_B);
                let path_mtu = if path.learned.is_some() { path.mtu.to_string() } else { "-".to_owned() };
                let refused = network.a.totals().drops_of(DropReason::InnerTooBig);
                writeln!(
                    table,
                    "{loss:>3}% {size:>6} {:>2} {:>5} {:>5} | {outer:>5} {lost:>5} {duplicated:>5} {too_big:>8} | \
                     {refused:>7} {sender_mtu:>11} {path_mtu:>9}",
                    u8::from(df),
                    network.host_a.sent.len(),
                    network.host_b.whole.len(),
                )
                .expect("writing to a string does not fail");
                if size > 1280 {
                    assert_eq!(path.mtu, ROUTER_MTU, "the tunnel has learned the router's MTU");
                    if df {
                        assert_eq!(
                            network.host_a.mtu,
                            Some(ROUTER_MTU - 20),
                            "the sender has learned it too"
                        );
                    }
                } else {
                    assert_eq!(
                        (network.host_a.mtu, path.learned),
                        (None, None),
                        "there is no smaller MTU to learn"
                    );
                }
                if loss == 0 && size <= 1280 {
                    assert_eq!(
                        network.host_b.whole.len() as u64,
                        DATAGRAMS,
                        "without loss all datagrams arrive"
                    );
                }
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (one, other) = (run(10, 1481, true), run(10, 1481, true));
    assert_eq!(format!("{:?}", one.underlay), format!("{:?}", other.underlay));
    assert_eq!(one.host_b.whole, other.host_b.whole);
}

#[test]
fn an_expired_path_mtu_rises_again_and_falls_again_if_the_link_is_narrow() {
    let mut network = run(0, 1480, true);
    assert_eq!(network.a.tunnel.path_mtu(PEER_B).mtu, ROUTER_MTU);
    let before = network.host_b.whole.len();

    // The narrow link is replaced. The gateway does not notice before its soft state expires.
    network.router_mtu = UNDERLAY_MTU;
    network.host_a.mtu = None;
    let deadline = network.a.tunnel.next_deadline().expect("a path MTU was learned");
    let wait = deadline.since(network.now).as_millis() as u64;
    network.at(wait - 1, Event::HostSends { size: 1480, df: true });
    network.run();
    assert_eq!(
        (network.host_b.whole.len(), network.host_a.mtu),
        (before, Some(1280)),
        "the old MTU is still in use"
    );

    network.host_a.mtu = None;
    network.at(1, Event::HostSends { size: 1480, df: true });
    network.run();
    network.check();
    assert_eq!((network.host_b.whole.len(), network.host_a.mtu), (before + 1, None));
    assert_eq!(network.a.tunnel.path_mtu(PEER_B).mtu, UNDERLAY_MTU);
    assert_eq!(network.a.tunnel.next_deadline(), None);

    // The link is narrow again: one datagram is answered with an error, and the next fits.
    network.router_mtu = 1400;
    network.at(0, Event::HostSends { size: 1480, df: true });
    network.at(1000, Event::HostSends { size: 1480, df: true });
    network.run();
    network.check();
    assert_eq!((network.host_b.whole.len(), network.host_a.mtu), (before + 2, Some(1380)));
}
