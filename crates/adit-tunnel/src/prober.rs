//! The prober: packetization layer path MTU discovery for tunnels (RFC 8899), without I/O.
//!
//! The owner of a [`Prober`] passes in the time, the traffic of each peer and the ICMP messages
//! that arrive, and sends the probes that it returns.
//!
//! - Every two seconds a peer to which datagrams are sent is probed with a full-size datagram. If
//!   three in a row are lost while smaller ones arrive, the path is a black hole: a search finds
//!   the largest size that arrives, which is used from then on.
//! - While the path MTU is known to be less than the underlay's, larger sizes are tried: after
//!   15 s, and then less and less often, down to every 10 min.
//! - A router's error about a datagram is held until it is proven or refuted (RFC 5927 section 7):
//!   see `probed_path.rs`.
//!
//! - A peer to which nothing was sent for the interval of its keepalives gets one smallest probe.
//!
//! A peer that answers nothing, because it or a filter ignores echoes, proves nothing. Its path is
//! treated as without probes.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use adit_policy::{DropReason, Owner, PeerIndex};

use crate::counters::{Counters, Traffic};
use crate::last_drop::Dropped;
use crate::path_search::Search;
use crate::probe::{Probe, min_size};
use crate::probed_path::{CONFIRM_INTERVAL, Doubtful, ProbedPath, SMALLEST, Verdict};
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::tunnel::Tunnel;
use crate::underlay_icmp::{Proof, UnderlayIcmp};

/// Interval at which open rounds and held errors are evaluated.
const ROUND_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Peers that are looked at together. More are spread over the interval, so that their probes leave
/// one after the other.
const PEERS_AT_ONCE: usize = 100;
/// Parts into which more peers are divided.
const PARTS: usize = 100;
/// Searches per second that are begun for all peers together, and those of them that may be begun
/// at once. More peers are confirmed less often.
const SEARCHES_PER_SECOND: u32 = 5_000;
const SEARCHES_AT_ONCE: u32 = 500;

/// Discovers the path MTU of every peer by probes, and finds out which of the routers' errors are
/// true.
#[derive(Debug)]
pub struct Prober {
    peers: Vec<ProbedPath>,
    /// Peers with an open round or a held error, each once.
    open: Vec<PeerIndex>,
    /// Probes to be sent.
    out: VecDeque<(PeerIndex, Probe)>,
    /// Errors that turned out to be genuine.
    confirmed: Vec<(Box<[u8]>, Proof)>,
    /// Searches that errors bring forward, for all peers together.
    tests: TokenBucket<SEARCHES_PER_SECOND, SEARCHES_AT_ONCE>,
    /// The time of the next look for due searches, and the part of the peers that it is at.
    next_look: Instant,
    part: usize,
    last_timeout: Instant,
}

impl Prober {
    /// A prober for this tunnel and for those made from it by [`Tunnel::with_peers`]. It does
    /// nothing if the tunnel has no [`ProbeOptions`](crate::ProbeOptions).
    pub fn new(tunnel: &Tunnel) -> Prober {
        let mut prober = Prober {
            peers: Vec::new(),
            open: Vec::new(),
            out: VecDeque::new(),
            confirmed: Vec::new(),
            tests: TokenBucket::new(),
            next_look: Instant::ZERO,
            part: 0,
            last_timeout: Instant::ZERO,
        };
        prober.follow(tunnel);
        prober
    }

    /// Follows a change of peers, or of the machine.
    pub fn follow(&mut self, tunnel: &Tunnel) {
        // The address that probes are sent from may have come or gone.
        let count = if tunnel.config().probe.is_some() { tunnel.peer_slots() } else { 0 };
        self.peers.resize_with(count, ProbedPath::default);
        for (index, path) in (0..).zip(&mut self.peers) {
            let peer = PeerIndex::new(index);
            if tunnel.probing(peer).is_none() {
                if path.is_open() {
                    *path = ProbedPath::default();
                }
            } else {
                path.set_configured(tunnel.peer(peer).path.probe_address.map(IpAddr::from));
            }
        }
        self.open.retain(|peer| peer.index() < count && tunnel.probing(*peer).is_some());
    }

    /// The time of the next [`Prober::handle_timeout`]; `None`: never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let round_check =
            (!self.open.is_empty()).then(|| self.last_timeout.saturating_add(ROUND_CHECK_INTERVAL));
        round_check.into_iter().chain([self.next_look]).min()
    }

    /// Whether a round is open or an error is held, so that the next [`Prober::handle_timeout`] may
    /// change a path MTU.
    pub fn has_open_rounds(&self) -> bool {
        !self.open.is_empty()
    }

    /// Evaluates answers and begins the rounds that are due. `traffic` returns what has been
    /// exchanged with a peer. Cost: in each [`CONFIRM_INTERVAL`] linear in the number of peers,
    /// else in that of open rounds and held errors.
    pub fn handle_timeout(
        &mut self,
        tunnel: &Tunnel,
        now: Instant,
        counters: &Counters,
        traffic: impl Fn(PeerIndex) -> Traffic,
    ) {
        self.last_timeout = now;
        for peer in std::mem::take(&mut self.open) {
            let Some((path, state)) = self.peers.get_mut(peer.index()).zip(tunnel.peer_state(peer)) else {
                continue;
            };
            let evaluated = path.evaluate(state, || traffic(peer).last_rx, now);
            match evaluated.verdict {
                Some(Verdict::True(message, proof)) => self.confirmed.push((message, proof)),
                Some(Verdict::Dropped(reason)) => {
                    counters.count_drop(reason, Dropped::at(now).of_peer(Some(peer)), 1);
                }
                None => {}
            }
            let ask = evaluated.ask.or_else(|| path.test(state, || self.tests.take(now), now));
            if path.is_open() || ask.is_some() {
                self.open.push(peer);
            }
            if let Some(search) = ask {
                self.ask(tunnel, peer, search, now);
            }
        }
        if now >= self.next_look {
            self.look(tunnel, now, counters, traffic);
        }
    }

    /// Begins the searches that are due.
    fn look(
        &mut self,
        tunnel: &Tunnel,
        now: Instant,
        counters: &Counters,
        traffic: impl Fn(PeerIndex) -> Traffic,
    ) {
        let count = self.peers.len();
        let (parts, pause) = pace(count);
        let part = self.part % parts;
        self.part = part + 1;
        let mut next_look = now.saturating_add(pause);
        for index in count * part / parts..count * (part + 1) / parts {
            let peer = PeerIndex::new(index as u32);
            let Some((path, state)) = self.peers.get_mut(index).zip(tunnel.peer_state(peer)) else {
                continue;
            };
            if tunnel.probing(peer).is_none() {
                continue;
            }
            path.note_sent(traffic(peer).sent, now);
            let was_open = path.is_open();
            let interval = tunnel.keepalive(peer);
            let asked = if let Some(search) = path.due(state, now) {
                Some((search, None))
            } else if let Some(address) = path.introduction(state) {
                Some((SMALLEST, Some(address)))
            } else if path.is_keepalive_due(interval, phase(index), now) {
                counters.count_keepalive();
                Some((SMALLEST, None))
            } else {
                None
            };
            if let Some((search, address)) = asked {
                if !was_open {
                    self.open.push(peer);
                }
                self.ask_at(tunnel, peer, search, address, now);
            }
            if parts == 1
                && let Some(at) = self.peers.get(index).and_then(|path| path.next_keepalive(interval))
            {
                next_look = next_look.min(at.max(now.saturating_add(ROUND_CHECK_INTERVAL)));
            }
        }
        self.next_look = next_look;
    }

    /// Begins a round for a peer that is listed as open.
    fn ask(&mut self, tunnel: &Tunnel, peer: PeerIndex, search: Search, now: Instant) {
        self.ask_at(tunnel, peer, search, None, now);
    }

    /// The same; `address` answers instead of the one that the peer is probed at.
    fn ask_at(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        search: Search,
        address: Option<IpAddr>,
        now: Instant,
    ) {
        let path = self.peers.get_mut(peer.index()).zip(tunnel.peer_state(peer));
        let Some((path, state)) = path else { return };
        let (round, sizes) = path.ask(search, state, now);
        let known = address.or(path.address());
        let known = known.filter(|address| {
            tunnel.owner_of(*address) == Some(Owner::Peer(peer))
                && address.is_ipv4() == state.path.destination.is_ipv4()
        });
        let destination = known.unwrap_or(state.path.destination);
        if address.is_none() {
            state.probe_address.note_probed(destination);
        }
        let smallest = min_size(state.path.destination);
        let sizes = sizes.as_slice().iter().map(|size| (*size).max(smallest));
        self.out.extend(sizes.map(|size| (peer, Probe { round, size, destination })));
    }

    /// Writes the next probe into `out`, outer header first, and returns its length. The caller
    /// sends it unchanged, whatever the kernel has learned of the path.
    pub fn poll_transmit(&mut self, tunnel: &Tunnel, counters: &Counters, out: &mut [u8]) -> Option<usize> {
        while let Some((peer, probe)) = self.out.pop_front() {
            if let Some(len) = tunnel.write_probe(peer, probe, out) {
                counters.count_probe_sent();
                return Some(len);
            }
        }
        None
    }

    /// Handles an ICMP message as [`Tunnel::on_underlay_icmp`] does, but holds a doubtful one until
    /// it is proven or refuted.
    pub fn handle_icmp(
        &mut self,
        tunnel: &Tunnel,
        packet: &[u8],
        now: Instant,
        counters: &Counters,
        traffic: impl Fn(PeerIndex) -> Traffic,
    ) -> UnderlayIcmp {
        let outcome = tunnel.on_underlay_icmp(packet, now, counters);
        match outcome {
            UnderlayIcmp::Doubtful { peer, claim, refuted_by } => {
                let error = Doubtful { message: packet, claim, refuted_by };
                if let Err(reason) = self.hold(tunnel, peer, &error, traffic(peer), now) {
                    counters.count_drop(reason, Dropped::datagram(packet, now).of_peer(Some(peer)), 1);
                    return UnderlayIcmp::Ignored(reason);
                }
            }
            UnderlayIcmp::AboutProbe { peer, claim } => {
                let proven = self.peers.get_mut(peer.index()).and_then(|path| path.take_proven(claim));
                self.confirmed.extend(proven.map(|message| (message, Proof::Router)));
            }
            _ => {}
        }
        outcome
    }

    /// The next held error that is genuine, for [`Tunnel::on_confirmed_icmp`].
    pub fn poll_confirmed(&mut self) -> Option<(Box<[u8]>, Proof)> {
        self.confirmed.pop()
    }

    /// Holds an error, and begins to test it if it may.
    fn hold(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        error: &Doubtful<'_>,
        traffic: Traffic,
        now: Instant,
    ) -> Result<(), DropReason> {
        let path = self.peers.get_mut(peer.index()).zip(tunnel.peer_state(peer));
        let (path, state) = path.ok_or(DropReason::IcmpUnbelievable)?;
        let was_open = path.is_open();
        path.hold(error, traffic, now)?;
        if !was_open {
            self.open.push(peer);
        }
        if let Some(search) = path.test(state, || self.tests.take(now), now) {
            self.ask(tunnel, peer, search, now);
        }
        Ok(())
    }
}

/// The longest time from a datagram to the probe that follows it, with so many peers.
#[must_use]
pub fn probe_interval(peers: usize) -> Duration {
    let (parts, pause) = pace(peers);
    pause * parts as u32
}

/// Where in the interval of keepalives a peer to which nothing was ever sent gets its first one, as
/// a fraction of 65,536: those of many peers are spread out.
fn phase(index: usize) -> u16 {
    // The golden ratio: any number of peers in a row is spread evenly.
    (index as u16).wrapping_mul(40_503)
}

/// The number of parts in which `count` peers are looked at, and the time from one to the next.
fn pace(count: usize) -> (usize, Duration) {
    if count <= PEERS_AT_ONCE {
        return (1, CONFIRM_INTERVAL);
    }
    let in_part = count.div_ceil(PARTS) as u64;
    let pause = Duration::from_millis((in_part * 1000).div_ceil(u64::from(SEARCHES_PER_SECOND)));
    (PARTS, pause.max(CONFIRM_INTERVAL / PARTS as u32))
}
