//! The prober: packetization layer path MTU discovery for tunnels (RFC 8899), without I/O.
//!
//! The owner of a [`Prober`] passes in the time, the number of datagrams sent to each peer and the
//! ICMP messages that arrive, and sends the probes that it returns.
//!
//! - Every two seconds a peer to which datagrams are sent is probed with a full-size datagram. If
//!   three in a row are lost while smaller ones arrive, the path is a black hole: a search finds
//!   the largest size that arrives, which is used from then on.
//! - While the path MTU is known to be less than the underlay's, larger sizes are tried: after
//!   15 s, and then less and less often, down to every 10 min.
//! - A router's error about a path over which the peer has just answered is held until a probe has
//!   tested it (RFC 5927 section 7). If a router reports the same error for the probe, the error is
//!   genuine at once: only a router on the path sees the probe.
//!
//! A peer that answers nothing, because it or a filter ignores echoes, proves nothing. Its path is
//! treated as without probes.

use std::collections::VecDeque;
use std::time::Duration;

use adit_policy::{DropReason, PeerIndex};

use crate::counters::Counters;
use crate::path_search::{Next, Search, Sizes};
use crate::probe::Probe;
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::tunnel::{PeerState, Tunnel};
use crate::underlay_icmp::UnderlayIcmp;

/// Time to wait for an answer (RFC 8899 section 5.1.1: at least a second).
pub const PROBE_TIMER: Duration = Duration::from_secs(1);
/// Interval at which a path in use is confirmed.
pub const CONFIRM_INTERVAL: Duration = Duration::from_secs(2);
/// Time from a size that was too large to the next try of a larger one. It doubles up to
/// [`RAISE_TIMER`].
pub const FIRST_RAISE: Duration = Duration::from_secs(15);
/// PMTU_RAISE_TIMER of RFC 8899 section 5.1.1.
pub const RAISE_TIMER: Duration = Duration::from_secs(600);
/// Pause after a peer did not answer at all. It doubles up to [`RAISE_TIMER`].
const SILENCE_PAUSE: Duration = Duration::from_secs(30);
/// Shortest interval between two tests of routers' errors about one path.
const VERIFY_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which an open round is evaluated.
const ROUND_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// Longest ICMP message that is held, in bytes: routers quote at most 576 bytes (RFC 1812), some a
/// whole frame.
const MAX_HELD_LEN: usize = 2048;

/// Discovers the path MTU of every peer by probes.
#[derive(Debug)]
pub struct Prober {
    peers: Vec<Path>,
    /// Peers with an open round.
    asking: Vec<PeerIndex>,
    /// Probes to be sent.
    out: VecDeque<(PeerIndex, Probe)>,
    /// Errors that turned out to be genuine.
    confirmed: Vec<Box<[u8]>>,
    /// Searches begun, for all peers together.
    searches: TokenBucket<100, 50>,
    /// The time of the next look for due searches, and the peer to begin with.
    next_look: Instant,
    first: usize,
    last_timeout: Instant,
}

/// One peer's path, beside its soft state.
#[derive(Debug, Default)]
struct Path {
    round: u32,
    asked: Option<Asked>,
    /// Number of datagrams sent to the peer by its last round.
    sent: u64,
    /// The earliest time of the next round.
    not_before: Instant,
    silences: u32,
    raise: Option<Raise>,
    /// The underlay's MTU at the last look.
    underlay: u16,
    held: Option<Held>,
    /// The earliest time of the next test of a doubtful error.
    quiet_until: Instant,
}

#[derive(Debug)]
struct Asked {
    search: Search,
    deadline: Instant,
}

/// The next try of a larger size.
#[derive(Debug, Clone, Copy)]
struct Raise {
    at: Instant,
    after: Duration,
}

/// An error that waits for the answer to a probe.
#[derive(Debug)]
struct Held {
    message: Box<[u8]>,
    /// The error is forged if a datagram of so many bytes arrives.
    refuted_by: u16,
}

impl Prober {
    /// A prober for this tunnel and for those made from it by [`Tunnel::with_peers`]. It does
    /// nothing if the tunnel has no [`ProbeOptions`](crate::ProbeOptions).
    pub fn new(tunnel: &Tunnel) -> Prober {
        let count = if tunnel.config().probe.is_some() { tunnel.peer_slots() } else { 0 };
        Prober {
            peers: (0..count).map(|_| Path::default()).collect(),
            asking: Vec::new(),
            out: VecDeque::new(),
            confirmed: Vec::new(),
            searches: TokenBucket::new(),
            next_look: Instant::ZERO,
            first: 0,
            last_timeout: Instant::ZERO,
        }
    }

    /// Follows a change of peers, or of the machine.
    pub fn follow(&mut self, tunnel: &Tunnel) {
        // The address that probes are sent from may have come or gone.
        let count = if tunnel.config().probe.is_some() { tunnel.peer_slots() } else { 0 };
        self.peers.resize_with(count, Path::default);
        for (index, path) in (0..).zip(&mut self.peers) {
            if path.asked.is_some() && tunnel.peer_state(PeerIndex::new(index)).is_none() {
                *path = Path::default();
            }
        }
        self.asking.retain(|peer| peer.index() < count && tunnel.peer_state(*peer).is_some());
    }

    /// The time of the next [`Prober::handle_timeout`]; `None`: never.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let round_check =
            (!self.asking.is_empty()).then(|| self.last_timeout.saturating_add(ROUND_CHECK_INTERVAL));
        round_check.into_iter().chain([self.next_look]).min()
    }

    /// Evaluates answers and begins the rounds that are due. `sent` returns the number of datagrams
    /// sent to a peer. Cost: linear in the number of peers every [`CONFIRM_INTERVAL`], else in that
    /// of open rounds.
    pub fn handle_timeout(
        &mut self,
        tunnel: &Tunnel,
        now: Instant,
        counters: &Counters,
        sent: impl Fn(PeerIndex) -> u64,
    ) {
        self.last_timeout = now;
        for peer in std::mem::take(&mut self.asking) {
            if let (Some(path), Some(state)) = (self.peers.get_mut(peer.index()), tunnel.peer_state(peer)) {
                let step = path.answer(state, now);
                if let Some(held) = step.held {
                    match held {
                        Ok(genuine) => self.confirmed.push(genuine.message),
                        Err(()) => counters.count_drop(DropReason::IcmpDisproved, Some(peer), 1),
                    }
                }
                if let Some(search) = step.ask {
                    self.ask(peer, search, now);
                } else if step.is_waiting {
                    self.asking.push(peer);
                }
            }
        }
        if now >= self.next_look {
            self.next_look = now.saturating_add(CONFIRM_INTERVAL);
            self.look(tunnel, now, sent);
        }
    }

    /// Begins the searches that are due.
    fn look(&mut self, tunnel: &Tunnel, now: Instant, sent: impl Fn(PeerIndex) -> u64) {
        let count = self.peers.len();
        // The first peer that got no token is the first to get one the next time.
        let mut first_without = None;
        for index in (self.first..count).chain(0..self.first) {
            let peer = PeerIndex::new(index as u32);
            let Some((path, state)) = self.peers.get_mut(index).zip(tunnel.peer_state(peer)) else {
                continue;
            };
            if path.asked.is_some() {
                continue;
            }
            let total = sent(peer);
            let Some(search) = path.due(state, total != path.sent, now) else { continue };
            if !self.searches.take(now) {
                first_without = first_without.or(Some(index));
                continue;
            }
            path.sent = total;
            self.ask(peer, search, now);
        }
        self.first = first_without.unwrap_or(0);
    }

    fn ask(&mut self, peer: PeerIndex, search: Search, now: Instant) {
        let Some(path) = self.peers.get_mut(peer.index()) else { return };
        path.round = path.round.wrapping_add(1);
        path.asked = Some(Asked { search, deadline: now.saturating_add(PROBE_TIMER) });
        let sizes: Sizes = search.sizes();
        let round = path.round;
        self.out.extend(sizes.as_slice().iter().map(|&size| (peer, Probe { round, size })));
        self.asking.push(peer);
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
    /// a probe has tested it.
    pub fn handle_icmp(
        &mut self,
        tunnel: &Tunnel,
        packet: &[u8],
        now: Instant,
        counters: &Counters,
    ) -> UnderlayIcmp {
        let outcome = tunnel.on_underlay_icmp(packet, now, counters);
        match outcome {
            UnderlayIcmp::Doubtful { peer, refuted_by }
                if !self.hold(tunnel, peer, packet, refuted_by, now) =>
            {
                counters.count_drop(DropReason::IcmpDisproved, Some(peer), 1);
                return UnderlayIcmp::Ignored(DropReason::IcmpDisproved);
            }
            // Only a router on the path can quote a probe.
            UnderlayIcmp::AboutProbe { peer } => {
                let held = self.peers.get_mut(peer.index()).and_then(|path| path.held.take());
                self.confirmed.extend(held.map(|held| held.message));
            }
            _ => {}
        }
        outcome
    }

    /// The next held error that is genuine, for [`Tunnel::on_confirmed_icmp`].
    pub fn poll_confirmed(&mut self) -> Option<Box<[u8]>> {
        self.confirmed.pop()
    }

    /// Holds an error and begins a round about it. Returns true if the error is held.
    fn hold(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        packet: &[u8],
        refuted_by: u16,
        now: Instant,
    ) -> bool {
        let path = self.peers.get_mut(peer.index()).zip(tunnel.peer_state(peer));
        let Some((path, state)) = path else { return false };
        if path.held.is_some() || now < path.quiet_until || packet.len() > MAX_HELD_LEN {
            return false;
        }
        path.held = Some(Held { message: packet.into(), refuted_by });
        // Probes from before the error prove nothing about it.
        if path.asked.is_some() {
            self.asking.retain(|asking| *asking != peer);
        }
        let mtu = state.soft.path_mtu.mtu(now);
        self.ask(peer, Search::Verify { mtu, refuted_by }, now);
        true
    }
}

/// The result of evaluating a round.
#[derive(Default)]
struct Evaluated {
    ask: Option<Search>,
    is_waiting: bool,
    /// The error that was held: `Ok` if it is genuine, `Err` if it is forged.
    held: Option<Result<Held, ()>>,
}

impl Path {
    /// The search that is due for a peer that is not being asked.
    fn due(&mut self, state: &PeerState, is_active: bool, now: Instant) -> Option<Search> {
        let path_mtu = &state.soft.path_mtu;
        let known = path_mtu.get();
        let has_grown = path_mtu.underlay() > std::mem::replace(&mut self.underlay, path_mtu.underlay());
        let raise = known.learned.map(|_| match self.raise {
            Some(raise) if has_grown => Raise { at: now, ..raise },
            Some(raise) => raise,
            None => Raise { at: now.saturating_add(FIRST_RAISE), after: FIRST_RAISE },
        });
        self.raise = raise;
        // A path MTU that expires while nothing is sent would have to be found anew, by losses.
        let expires_soon = known.expires.is_some_and(|expires| expires <= now.saturating_add(SILENCE_PAUSE));
        if now >= self.not_before && (expires_soon || raise.is_some_and(|raise| is_active && raise.at <= now))
        {
            return Some(Search::raise(known.mtu, path_mtu.underlay()));
        }
        (is_active && now >= self.not_before).then(|| Search::confirm(path_mtu.mtu(now)))
    }

    /// Evaluates the open round if it is over.
    fn answer(&mut self, state: &PeerState, now: Instant) -> Evaluated {
        let Some(asked) = self.asked.take() else { return Evaluated::default() };
        let best = state.soft.answers.best(self.round);
        if best < asked.search.ends_with() && now < asked.deadline {
            self.asked = Some(asked);
            return Evaluated { is_waiting: true, ..Evaluated::default() };
        }
        let mut evaluated = Evaluated::default();
        if let Some(held) = self.held.take() {
            evaluated.held = Some(if best >= held.refuted_by {
                self.quiet_until = now.saturating_add(VERIFY_INTERVAL);
                Err(())
            } else {
                Ok(held)
            });
        }
        let path_mtu = &state.soft.path_mtu;
        let is_outdated = matches!(asked.search, Search::Confirm { mtu, .. } if mtu != path_mtu.mtu(now));
        if is_outdated {
            return evaluated;
        }
        let step = asked.search.after(best);
        if let Some(learned) = step.learned {
            path_mtu.probed(learned, now);
        }
        match step.next {
            Next::Ask(search) => evaluated.ask = Some(search),
            Next::Silent => {
                self.not_before = now.saturating_add(backoff(SILENCE_PAUSE, self.silences));
                self.silences = self.silences.saturating_add(1);
            }
            Next::Done => {
                self.silences = 0;
                let is_raise = matches!(asked.search, Search::Narrow { .. });
                if path_mtu.get().learned.is_some() {
                    // A confirmed path MTU gets its full lifetime again.
                    path_mtu.probed(path_mtu.mtu(now), now);
                    if let Some(raise) = self.raise.filter(|raise| is_raise && raise.at <= now) {
                        let after = (raise.after * 2).min(RAISE_TIMER);
                        self.raise = Some(Raise { at: now.saturating_add(after), after });
                    }
                }
            }
        }
        evaluated
    }
}

fn backoff(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(5)).min(RAISE_TIMER)
}
