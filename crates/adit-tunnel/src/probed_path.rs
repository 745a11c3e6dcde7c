//! The path to one peer as the prober sees it: the open search, when the next is due, and a
//! router's error that waits to be proven or refuted.
//!
//! An error about a datagram of ours can be forged by anybody who guesses a pair of addresses, so
//! it is *held* until something decides:
//!
//! ```text
//!   error ─► held ─┬─ nothing has been sent to the peer lately ─────────────► forged
//!                  ├─ a datagram of the size in question arrives ───────────► forged
//!                  ├─ a router reports the same about a probe ──────────────► true
//!                  ├─ probes show that the path takes less ─────────────────► true
//!                  └─ nothing comes from the peer for three seconds ────────► true
//! ```
//!
//! Errors never cause more probes than there are without them. The peer of an error is in use, so a
//! confirmation is due within [`CONFIRM_INTERVAL`]; the error brings it forward, by one interval at
//! most. A peer that answers no probes is not confirmed; it gets one probe for an error, of no more
//! bytes than the errors about it have brought.

use std::net::IpAddr;
use std::time::Duration;

use adit_policy::DropReason;

use crate::counters::Traffic;
use crate::path_search::{Next, Search, Sizes};
use crate::probe::MIN_SIZE;
use crate::time::Instant;
use crate::tunnel::PeerState;
use crate::underlay_icmp::{Claim, Proof};

/// Time to wait for an answer (RFC 8899 section 5.1.1: at least a second).
pub const PROBE_TIMER: Duration = Duration::from_secs(1);
/// Interval at which a path in use is confirmed.
pub const CONFIRM_INTERVAL: Duration = Duration::from_secs(2);
/// Time from a size that was too large to the next try of a larger one. It doubles up to
/// [`RAISE_TIMER`].
pub const FIRST_RAISE: Duration = Duration::from_secs(15);
/// PMTU_RAISE_TIMER of RFC 8899 section 5.1.1.
pub const RAISE_TIMER: Duration = Duration::from_secs(600);
/// Time after which an error is believed if nothing has come from the peer since: that of three
/// probes.
pub const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after a peer did not answer at all. It doubles up to [`RAISE_TIMER`].
const SILENCE_PAUSE: Duration = Duration::from_secs(30);
/// The longest time from a datagram to an error about it, and from an error to its test.
const MAX_ERROR_DELAY: Duration = Duration::from_secs(10);
/// Longest ICMP message that is held, in bytes: routers quote at most 576 bytes (RFC 1812), some a
/// whole frame.
const MAX_HELD_LEN: usize = 2048;

/// One probe of the smallest size. It introduces us to a peer, or shows the firewalls and NATs on
/// the path that it is in use.
pub(crate) const SMALLEST: Search = Search::Verify { size: MIN_SIZE };

/// One peer's path, beside its soft state.
#[derive(Debug, Default)]
pub(crate) struct ProbedPath {
    round: u32,
    asked: Option<Asked>,
    /// Number of datagrams sent to the peer by its last search.
    searched: u64,
    /// The same by the last look, and when that was found to have grown.
    seen: u64,
    used: Option<Instant>,
    /// The earliest time of the next search, after the peer has answered nothing.
    not_before: Instant,
    silences: u32,
    /// When the path is to be confirmed next.
    next_confirm: Instant,
    raise: Option<Raise>,
    /// The underlay's MTU at the last look.
    underlay: u16,
    held: Option<Held>,
    /// Bytes of doubtful errors, less those of the probes that they have caused.
    credit: u16,
    /// The address that the configuration says.
    configured: Option<IpAddr>,
    /// The learned address that is probed instead of the underlay address.
    learned: Option<IpAddr>,
    /// When something was last sent to the peer.
    last_sent: Option<Instant>,
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

/// An error that nothing proves yet.
#[derive(Debug)]
struct Held {
    message: Box<[u8]>,
    claim: Claim,
    /// The error is forged if a datagram of so many bytes arrives.
    refuted_by: u16,
    since: Instant,
    /// The last datagram from the peer before the error.
    last_rx: Option<Instant>,
    /// The first round whose probes were sent after the error.
    round: u32,
}

/// A doubtful error, as [`Tunnel::on_underlay_icmp`](crate::Tunnel::on_underlay_icmp) found it.
pub(crate) struct Doubtful<'a> {
    pub(crate) message: &'a [u8],
    pub(crate) claim: Claim,
    pub(crate) refuted_by: u16,
}

/// The end of a held error.
#[derive(Debug)]
pub(crate) enum Verdict {
    True(Box<[u8]>, Proof),
    Dropped(DropReason),
}

/// The result of evaluating a path.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    pub(crate) ask: Option<Search>,
    pub(crate) verdict: Option<Verdict>,
}

impl ProbedPath {
    /// Returns true while something is open: a search, or an error.
    pub(crate) fn is_open(&self) -> bool {
        self.asked.is_some() || self.held.is_some()
    }

    /// Takes in how many datagrams have been sent to the peer.
    pub(crate) fn note_sent(&mut self, sent: u64, now: Instant) {
        if sent != self.seen {
            self.seen = sent;
            self.used = Some(now);
            self.last_sent = Some(now);
        }
    }

    /// The address that is probed; `None`: the underlay address is.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.configured.or(self.learned)
    }

    /// Takes over the configured address. A new one is tried at once.
    pub(crate) fn set_configured(&mut self, address: Option<IpAddr>) {
        if self.configured != address {
            self.configured = address;
            (self.silences, self.not_before) = (0, Instant::ZERO);
        }
    }

    /// Begins a round. Returns its number and the sizes of its probes.
    pub(crate) fn ask(&mut self, search: Search, state: &PeerState, now: Instant) -> (u32, Sizes) {
        if search.tries_other_address() {
            self.change_address(state);
        }
        self.last_sent = Some(now);
        self.round = self.round.wrapping_add(1);
        self.asked = Some(Asked { search, deadline: now.saturating_add(PROBE_TIMER) });
        (self.round, search.sizes())
    }

    /// Probes the learned address instead of the underlay address, or the other way round. An
    /// address that answers stays, whatever is learned meanwhile.
    fn change_address(&mut self, state: &PeerState) {
        self.learned = match self.learned {
            Some(_) => None,
            None => state.probe_address.learned(),
        };
    }

    /// The address of the peer to which we introduce ourselves, if it does not know where to probe
    /// us. Its probes come from there, so it can answer there: two gateways behind NAT would
    /// introduce themselves for ever otherwise.
    pub(crate) fn introduction(&self, state: &PeerState) -> Option<IpAddr> {
        let address = state.probe_address.learned().filter(|_| !self.is_open())?;
        state.probe_address.take_introduction().then_some(address)
    }

    /// Whether nothing was sent to the peer for the interval of its keepalives. If nothing ever
    /// was, the first one is sent after `phase` of it.
    pub(crate) fn is_keepalive_due(&mut self, interval: Option<Duration>, phase: u16, now: Instant) -> bool {
        let Some(interval) = interval else { return false };
        let last = *self.last_sent.get_or_insert_with(|| {
            let left = interval.saturating_sub(interval * u32::from(phase) / (1 << 16));
            Instant::from_millis(now.as_millis().saturating_sub(left.as_millis() as u64))
        });
        !self.is_open() && now >= last.saturating_add(interval)
    }

    /// When the next keepalive is due, if nothing is sent before.
    pub(crate) fn next_keepalive(&self, interval: Option<Duration>) -> Option<Instant> {
        Some(self.last_sent?.saturating_add(interval?))
    }

    /// The search that is due, unless one is open.
    pub(crate) fn due(&mut self, state: &PeerState, now: Instant) -> Option<Search> {
        if self.asked.is_some() {
            return None;
        }
        let path_mtu = &state.soft.path_mtu;
        let known = path_mtu.get();
        let has_grown = path_mtu.underlay() > std::mem::replace(&mut self.underlay, path_mtu.underlay());
        let raise = known.learned.map(|_| match self.raise {
            Some(raise) if has_grown => Raise { at: now, ..raise },
            Some(raise) => raise,
            None => Raise { at: now.saturating_add(FIRST_RAISE), after: FIRST_RAISE },
        });
        self.raise = raise;
        let is_active = self.searched != self.seen || self.awaits_test();
        // A path MTU that expires while nothing is sent would have to be found anew, by losses.
        let expires_soon = known.expires.is_some_and(|expires| expires <= now.saturating_add(SILENCE_PAUSE));
        let is_raise_due = expires_soon || raise.is_some_and(|raise| is_active && raise.at <= now);
        let search = if now < self.not_before {
            return None;
        } else if is_raise_due {
            Search::raise(known.mtu, path_mtu.underlay())
        } else if is_active && now >= self.next_confirm {
            Search::confirm(path_mtu.mtu(now))
        } else {
            return None;
        };
        self.next_confirm = now.saturating_add(CONFIRM_INTERVAL);
        self.searched = self.seen;
        Some(search)
    }

    /// Holds an error until it is decided.
    ///
    /// # Errors
    ///
    /// The error is forged, or another is held.
    pub(crate) fn hold(
        &mut self,
        error: &Doubtful<'_>,
        traffic: Traffic,
        now: Instant,
    ) -> Result<(), DropReason> {
        self.note_sent(traffic.sent, now);
        if self.used.is_none_or(|used| now.since(used) > MAX_ERROR_DELAY) {
            return Err(DropReason::IcmpUnbelievable);
        }
        let bytes = u16::try_from(error.message.len()).unwrap_or(u16::MAX);
        self.credit = self.credit.saturating_add(bytes);
        if self.held.is_some() || error.message.len() > MAX_HELD_LEN {
            return Err(DropReason::IcmpUnproven);
        }
        self.held = Some(Held {
            message: error.message.into(),
            claim: error.claim,
            refuted_by: error.refuted_by,
            since: now,
            last_rx: traffic.last_rx,
            round: self.round.wrapping_add(1),
        });
        Ok(())
    }

    /// Whether an error is held about which no probe has been sent yet. Probes from before it prove
    /// nothing about it.
    fn awaits_test(&self) -> bool {
        self.held.as_ref().is_some_and(|held| self.round.wrapping_sub(held.round).cast_signed() < 0)
    }

    /// The search that tests the held error, if there is one to test and it may begin now.
    pub(crate) fn test(
        &mut self,
        state: &PeerState,
        may_begin: impl FnOnce() -> bool,
        now: Instant,
    ) -> Option<Search> {
        if self.asked.is_some() || !self.awaits_test() {
            return None;
        }
        if now >= self.not_before {
            let is_early = self.next_confirm > now.saturating_add(CONFIRM_INTERVAL);
            if is_early || !may_begin() {
                return None;
            }
            self.next_confirm = self.next_confirm.max(now).saturating_add(CONFIRM_INTERVAL);
            self.searched = self.seen;
            return Some(Search::confirm(state.soft.path_mtu.mtu(now)));
        }
        let size = self.held.as_ref()?.refuted_by.max(MIN_SIZE).min(self.credit);
        (size >= MIN_SIZE).then(|| {
            self.credit -= size;
            Search::Verify { size }
        })
    }

    /// The held error, if a router has just said the same about a probe.
    pub(crate) fn take_proven(&mut self, claim: Claim) -> Option<Box<[u8]>> {
        self.held.take_if(|held| held.claim == claim).map(|held| held.message)
    }

    /// Evaluates the open round, if it is over, and the held error. `last_rx` returns the time of
    /// the last datagram from the peer.
    pub(crate) fn evaluate(
        &mut self,
        state: &PeerState,
        last_rx: impl FnOnce() -> Option<Instant>,
        now: Instant,
    ) -> Evaluated {
        let mut evaluated = Evaluated::default();
        let best = state.soft.answers.best(self.round);
        if !self.awaits_test() && self.held.take_if(|held| best >= held.refuted_by).is_some() {
            evaluated.verdict = Some(Verdict::Dropped(DropReason::IcmpDisproved));
        }
        if let Some(asked) =
            self.asked.take_if(|asked| best >= asked.search.ends_with() || now >= asked.deadline)
        {
            self.finish(asked.search, best, state, &mut evaluated, now);
        }
        if evaluated.ask.is_none() && self.asked.is_none() && evaluated.verdict.is_none() {
            evaluated.verdict = self.silence(last_rx, now);
        }
        evaluated
    }

    /// Decides about the held error once no search is open.
    fn silence(&mut self, last_rx: impl FnOnce() -> Option<Instant>, now: Instant) -> Option<Verdict> {
        let awaits_test = self.awaits_test();
        let limit = if awaits_test { MAX_ERROR_DELAY } else { UNANSWERED_TIMEOUT };
        let held = self.held.take_if(|held| now.since(held.since) >= limit)?;
        Some(if awaits_test {
            Verdict::Dropped(DropReason::IcmpUnproven)
        } else if last_rx() != held.last_rx {
            Verdict::Dropped(DropReason::IcmpDisproved)
        } else {
            Verdict::True(held.message, Proof::Silence)
        })
    }

    /// Draws the conclusions from a round that is over.
    fn finish(
        &mut self,
        search: Search,
        best: u16,
        state: &PeerState,
        evaluated: &mut Evaluated,
        now: Instant,
    ) {
        let path_mtu = &state.soft.path_mtu;
        let is_outdated = matches!(search, Search::Confirm { mtu, .. } if mtu != path_mtu.mtu(now));
        if is_outdated {
            return;
        }
        let step = search.after(best);
        if let Some(learned) = step.learned {
            path_mtu.probed(learned, now);
            let is_tested = !self.awaits_test();
            let held = self.held.take_if(|held| is_tested && learned < held.refuted_by);
            evaluated.verdict = held.map(|held| Verdict::True(held.message, Proof::Silence));
        }
        match step.next {
            Next::Ask(search) => evaluated.ask = Some(search),
            Next::Inconclusive => {}
            Next::Silent => {
                state.probe_address.set_silent(true);
                if !matches!(search, Search::Confirm { .. }) {
                    self.change_address(state);
                }
                self.not_before = now.saturating_add(backoff(SILENCE_PAUSE, self.silences));
                self.silences = self.silences.saturating_add(1);
            }
            Next::Done => {
                state.probe_address.set_silent(false);
                (self.silences, self.not_before) = (0, now);
                if let (Search::Verify { .. }, Some(held)) = (search, &mut self.held) {
                    // The peer answers after all: the error is tested like that of any such peer.
                    (held.round, held.since) = (self.round.wrapping_add(1), now);
                }
                let is_raise = matches!(search, Search::Narrow { .. });
                if path_mtu.get().learned.is_some() && !matches!(search, Search::Verify { .. }) {
                    // A confirmed path MTU gets its full lifetime again.
                    path_mtu.probed(path_mtu.mtu(now), now);
                    if let Some(raise) = self.raise.filter(|raise| is_raise && raise.at <= now) {
                        let after = (raise.after * 2).min(RAISE_TIMER);
                        self.raise = Some(Raise { at: now.saturating_add(after), after });
                    }
                }
            }
        }
    }
}

fn backoff(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(5)).min(RAISE_TIMER)
}
