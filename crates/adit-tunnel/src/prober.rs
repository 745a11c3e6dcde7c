//! Packetization layer path MTU discovery for tunnels (RFC 8899), without I/O: whoever owns a [`Prober`] tells it the
//! time, what was sent to each peer, and what ICMP has come, and sends the probes that it makes.
//!
//! - A peer to which something is sent is asked every two seconds whether a full-size datagram still arrives. When
//!   three in a row do not, while smaller ones do, the path is a black hole: what it takes is found and used.
//! - While a path is known to take less than the underlay, larger sizes are tried, after 15 s and then ever less
//!   often, up to every 10 min.
//! - A router's error about a path over which the peer has just answered is held until a probe has asked whether it
//!   can be true (RFC 5927 section 7), at once if a router says the same of the probe.
//!
//! A peer that answers nothing (it, or a filter before it, ignores echoes) proves nothing: all is as without probes.

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

/// How long an answer is waited for (RFC 8899 section 5.1.1: no less than a second).
pub const PROBE_TIMER: Duration = Duration::from_secs(1);
/// How often a path in use is confirmed.
pub const CONFIRM_INTERVAL: Duration = Duration::from_secs(2);
/// When a larger size is tried first after one was found too large; then after twice the time, and so on,
/// up to [`RAISE_TIMER`].
pub const FIRST_RAISE: Duration = Duration::from_secs(15);
/// RFC 8899 section 5.1.1: PMTU_RAISE_TIMER.
pub const RAISE_TIMER: Duration = Duration::from_secs(600);
/// How long a peer is left alone that did not answer at all; twice as long each time, up to [`RAISE_TIMER`].
const SILENCE: Duration = Duration::from_secs(30);
/// Between two questions whether a router's errors about one peer's path are true.
const QUIET: Duration = Duration::from_secs(1);
/// How often a round that is out is looked at.
const GLANCE: Duration = Duration::from_millis(10);
/// The longest ICMP message that is held: routers quote at most 576 bytes (RFC 1812), some a whole frame.
const LONGEST_HELD: usize = 2048;

/// Asks peers what their paths take.
#[derive(Debug)]
pub struct Prober {
    peers: Vec<Path>,
    /// Peers with a round out.
    asking: Vec<PeerIndex>,
    /// Probes to be sent.
    out: VecDeque<(PeerIndex, Probe)>,
    /// Errors that have turned out to be true.
    proven: Vec<Box<[u8]>>,
    /// Searches begun, for all peers together.
    searches: TokenBucket<100, 50>,
    /// When peers are looked at next, and with which of them to begin.
    next_look: Instant,
    first: usize,
    last_advance: Instant,
}

/// What is known of one peer's path, beside its soft state.
#[derive(Debug, Default)]
struct Path {
    round: u32,
    asked: Option<Asked>,
    /// What had been sent to it when it was last asked.
    sent: u64,
    /// Not to be asked before.
    not_before: Instant,
    silences: u32,
    raise: Option<Raise>,
    /// What the underlay took, when last looked.
    underlay: u16,
    held: Option<Held>,
    /// No doubtful error is asked about before.
    quiet_until: Instant,
}

#[derive(Debug)]
struct Asked {
    search: Search,
    deadline: Instant,
}

/// When something larger is tried.
#[derive(Debug, Clone, Copy)]
struct Raise {
    at: Instant,
    after: Duration,
}

/// An error that waits for the answer to a probe.
#[derive(Debug)]
struct Held {
    message: Box<[u8]>,
    /// The error is not true if a datagram of so many bytes arrives.
    refuted_by: u16,
}

impl Prober {
    /// One for this tunnel, and for what it is amended to. Where the tunnel has no [`ProbeOptions`](crate::ProbeOptions) it asks nothing.
    pub fn new(tunnel: &Tunnel) -> Prober {
        let count = if tunnel.config().probe.is_some() { tunnel.peer_slots() } else { 0 };
        Prober {
            peers: (0..count).map(|_| Path::default()).collect(),
            asking: Vec::new(),
            out: VecDeque::new(),
            proven: Vec::new(),
            searches: TokenBucket::new(),
            next_look: Instant::ZERO,
            first: 0,
            last_advance: Instant::ZERO,
        }
    }

    /// The tunnel has been amended: it has peers more, or fewer.
    pub fn follow(&mut self, tunnel: &Tunnel) {
        if tunnel.config().probe.is_some() {
            self.peers.resize_with(tunnel.peer_slots(), Path::default);
        }
        for (index, path) in (0..).zip(&mut self.peers) {
            if path.asked.is_some() && tunnel.peer_state(PeerIndex::new(index)).is_none() {
                *path = Path::default();
            }
        }
        self.asking.retain(|peer| tunnel.peer_state(*peer).is_some());
    }

    /// When [`Prober::advance`] has something to do; `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.peers.is_empty() {
            return None;
        }
        let glance = (!self.asking.is_empty()).then(|| self.last_advance.saturating_add(GLANCE));
        glance.into_iter().chain([self.next_look]).min()
    }

    /// Evaluates what was answered, and asks what is to be asked. `sent` tells how many datagrams were sent to a
    /// peer. Linear in the number of peers every [`CONFIRM_INTERVAL`], else in that of those being asked.
    pub fn advance(
        &mut self,
        tunnel: &Tunnel,
        now: Instant,
        counters: &Counters,
        sent: impl Fn(PeerIndex) -> u64,
    ) {
        self.last_advance = now;
        for peer in std::mem::take(&mut self.asking) {
            if let (Some(path), Some(state)) = (self.peers.get_mut(peer.index()), tunnel.peer_state(peer)) {
                let step = path.answer(state, now);
                if let Some(held) = step.held {
                    match held {
                        Ok(true_one) => self.proven.push(true_one.message),
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

    /// Begins searches where they are due.
    fn look(&mut self, tunnel: &Tunnel, now: Instant, sent: impl Fn(PeerIndex) -> u64) {
        let count = self.peers.len();
        // Whoever found no token is the first to find one the next time.
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

    /// Writes the next probe to be sent into `out`, outer header first, and gives its length. It must leave as it
    /// is, whatever the kernel has heard of the path.
    pub fn transmit(&mut self, tunnel: &Tunnel, counters: &Counters, out: &mut [u8]) -> Option<usize> {
        while let Some((peer, probe)) = self.out.pop_front() {
            if let Some(len) = tunnel.write_probe(peer, probe, out) {
                counters.count_probe_sent();
                return Some(len);
            }
        }
        None
    }

    /// Takes in an ICMP message as [`Tunnel::on_underlay_icmp`] does, but holds it where a probe is to ask first
    /// whether it is true.
    pub fn on_icmp(
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
            // Nobody else could have said so.
            UnderlayIcmp::AboutProbe { peer } => {
                let held = self.peers.get_mut(peer.index()).and_then(|path| path.held.take());
                self.proven.extend(held.map(|held| held.message));
            }
            _ => {}
        }
        outcome
    }

    /// An error that was held and is true: [`Tunnel::on_proven_icmp`] takes it.
    pub fn take_proven(&mut self) -> Option<Box<[u8]>> {
        self.proven.pop()
    }

    /// Whether an error is held now.
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
        if path.held.is_some() || now < path.quiet_until || packet.len() > LONGEST_HELD {
            return false;
        }
        path.held = Some(Held { message: packet.into(), refuted_by });
        // A round that is out asks nothing about a moment before the error.
        if path.asked.is_some() {
            self.asking.retain(|asking| *asking != peer);
        }
        let mtu = state.soft.path_mtu.mtu(now);
        self.ask(peer, Search::Verify { mtu, refuted_by }, now);
        true
    }
}

/// What became of a round.
#[derive(Default)]
struct Evaluated {
    ask: Option<Search>,
    is_waiting: bool,
    /// What was held: it is true, or it is not.
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
        // One that expires while nothing is sent would have to be found anew, by losses.
        let expires_soon = known.expires.is_some_and(|expires| expires <= now.saturating_add(SILENCE));
        if now >= self.not_before && (expires_soon || raise.is_some_and(|raise| is_active && raise.at <= now))
        {
            return Some(Search::raise(known.mtu, path_mtu.underlay()));
        }
        (is_active && now >= self.not_before).then(|| Search::confirm(path_mtu.mtu(now)))
    }

    /// Looks at what was answered, and whether time is up.
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
                self.quiet_until = now.saturating_add(QUIET);
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
                self.not_before = now.saturating_add(backoff(SILENCE, self.silences));
                self.silences = self.silences.saturating_add(1);
            }
            Next::Done => {
                self.silences = 0;
                let is_raise = matches!(asked.search, Search::Narrow { .. });
                if path_mtu.get().learned.is_some() {
                    // What is so still is known for as long again.
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
