//! What the tunnel knows of the way to a peer until it learns better (RFC 2003 section 5): path MTU,
//! reachability, and how much ICMP it may still send. All of it in atomics, read by every thread.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use adit_policy::IdRange;

use crate::path_mtu::PathMtuState;
use crate::probe::Answers;
use crate::tagged_time::TaggedTime;
use crate::time::Instant;
use crate::token_bucket::TokenBucket;

/// ICMP errors for each second and peer, once the burst is used up (RFC 1812 section 4.3.2.8).
pub const ICMP_PER_SECOND: u32 = 100;

/// ICMP errors that may be sent at once to the senders of one peer.
pub const ICMP_BURST: u32 = 50;

/// How much ICMP may be sent on behalf of one peer.
pub(crate) type IcmpLimit = TokenBucket<ICMP_PER_SECOND, ICMP_BURST>;

/// How long after a report that the exit is unreachable every sender is told so at the entrance, unless the peer is
/// heard: routers limit how often they say it, to once a second as a rule.
pub const UNREACHABLE_WINDOW: Duration = Duration::from_secs(1);

/// How long an error that could not be answered waits for the next datagram of its peer.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(10);

/// Why the exit of a tunnel is held to be out of reach (RFC 2003 sections 4.1 and 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnreachableCause {
    /// Network Unreachable came back.
    Network,
    /// Host Unreachable came back.
    Host,
    /// Protocol Unreachable came back: the peer is there, but does not speak IP in IP.
    Protocol,
    /// Time Exceeded came back: the outer TTL is too small for the path, or it has a loop.
    TimeExceeded,
}

/// Whether the exit of a tunnel is thought to be in reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// Nothing says otherwise, or a datagram has come from there since.
    Assumed,
    /// A router inside the tunnel, or the peer, said so.
    Unreachable {
        /// What it said.
        cause: UnreachableCause,
        /// When it said so last.
        since: Instant,
    },
}

impl UnreachableCause {
    const fn number(self) -> u64 {
        match self {
            UnreachableCause::Network => 1,
            UnreachableCause::Host => 2,
            UnreachableCause::Protocol => 3,
            UnreachableCause::TimeExceeded => 4,
        }
    }

    const fn from_number(number: u64) -> Option<UnreachableCause> {
        match number {
            1 => Some(UnreachableCause::Network),
            2 => Some(UnreachableCause::Host),
            3 => Some(UnreachableCause::Protocol),
            4 => Some(UnreachableCause::TimeExceeded),
            _ => None,
        }
    }
}

/// The soft state of one peer. One cache line, and only read on the usual way of a datagram.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct SoftState {
    pub(crate) path_mtu: PathMtuState,
    /// What probes have found out.
    pub(crate) answers: Answers,
    /// The cause and the time of a report of which senders are told at the entrance; marked if none has been told yet.
    pending: AtomicU64,
    /// The cause and the time of the last report that the exit is unreachable.
    unreachable: AtomicU64,
    icmp: IcmpLimit,
    /// The next identification for outer datagrams that may be fragmented.
    identification: AtomicU32,
}

impl SoftState {
    pub(crate) fn new(underlay_mtu: u16) -> SoftState {
        SoftState {
            path_mtu: PathMtuState::new(underlay_mtu),
            answers: Answers::new(),
            pending: AtomicU64::new(TaggedTime::NONE.0),
            unreachable: AtomicU64::new(TaggedTime::NONE.0),
            icmp: IcmpLimit::new(),
            identification: AtomicU32::new(0),
        }
    }

    /// Takes over what `previous` knew.
    pub(crate) fn inherit(&self, previous: &SoftState) {
        self.path_mtu.inherit(&previous.path_mtu);
        self.pending.store(previous.pending.load(Relaxed), Relaxed);
        self.unreachable.store(previous.unreachable.load(Relaxed), Relaxed);
        self.icmp.inherit(&previous.icmp);
        self.identification.store(previous.identification.load(Relaxed), Relaxed);
    }

    /// A router said that the exit is unreachable; whether the sender that it is about has been told.
    pub(crate) fn report_unreachable(&self, cause: UnreachableCause, is_told: bool, now: Instant) {
        let report = TaggedTime::new(cause.number() as u16, now);
        self.unreachable.store(report.0, Relaxed);
        self.pending.store(report.marked(!is_told).0, Relaxed);
    }

    /// The same before a restart; nobody is owed an answer any more.
    pub(crate) fn recall_unreachable(&self, cause: UnreachableCause, since: Instant) {
        self.unreachable.store(TaggedTime::new(cause.number() as u16, since).0, Relaxed);
    }

    /// A datagram came from the peer. Only a read, but for the first one after a report.
    #[inline]
    pub(crate) fn mark_reachable(&self) {
        if self.unreachable.load(Relaxed) != TaggedTime::NONE.0 {
            self.unreachable.store(TaggedTime::NONE.0, Relaxed);
            self.pending.store(TaggedTime::NONE.0, Relaxed);
        }
    }

    pub(crate) fn reachability(&self) -> Reachability {
        let word = TaggedTime(self.unreachable.load(Relaxed));
        match UnreachableCause::from_number(u64::from(word.value())) {
            Some(cause) => Reachability::Unreachable { cause, since: word.at() },
            None => Reachability::Assumed,
        }
    }

    /// Whether senders are told that the exit is unreachable; one read.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != TaggedTime::NONE.0
    }

    /// What the sender of a datagram is told now, in place of its being sent. `None`: nothing, and neither are later
    /// ones.
    pub(crate) fn pending(&self, now: Instant) -> Option<UnreachableCause> {
        let word = TaggedTime(self.pending.load(Relaxed));
        let age = now.since(word.at());
        let is_due = age < UNREACHABLE_WINDOW || word.is_marked() && age < PENDING_LIFETIME;
        let cause = UnreachableCause::from_number(u64::from(word.value())).filter(|_| is_due);
        if cause.is_none() {
            // Losing the race means that a router has just said it again.
            let _ = self.pending.compare_exchange(word.0, TaggedTime::NONE.0, Relaxed, Relaxed);
        }
        cause
    }

    /// A sender has been told; the window goes on for others.
    pub(crate) fn clear_pending(&self) {
        let word = self.pending.load(Relaxed);
        let _ = self.pending.compare_exchange(word, TaggedTime(word).marked(false).0, Relaxed, Relaxed);
    }

    /// Whether one more ICMP error may be sent on behalf of this peer; if so, it counts as sent.
    pub(crate) fn may_send_icmp(&self, now: Instant) -> bool {
        self.icmp.take(now)
    }

    /// Reserves `segments` consecutive identifications and returns the first (RFC 6864 section 4: they
    /// repeat only after all 65,536 have been used, or all of a half where the other is another's).
    pub(crate) fn identifications(&self, segments: u16, half: Option<IdRange>) -> u16 {
        let segments = u32::from(segments.max(1));
        let count = || self.identification.fetch_add(segments, Relaxed);
        let Some(half) = half else { return count() as u16 };
        let first = half.identifications(count(), segments);
        first.or_else(|| half.identifications(count(), segments)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn rfc6864_s4_identifications_repeat_only_after_all_have_been_used() {
        let state = SoftState::new(1500);
        let mut seen = vec![false; 65536];
        for step in 0..16384u32 {
            let first = state.identifications(4, None);
            assert_eq!(u32::from(first), step * 4);
            for n in 0..4 {
                let id = usize::from(first.wrapping_add(n));
                assert!(!seen[id], "{id} came twice");
                seen[id] = true;
            }
        }
        assert_eq!(state.identifications(1, None), 0);
        let upper: Vec<u16> = (0..40_000).map(|_| state.identifications(1, Some(IdRange::Upper))).collect();
        assert!(upper.iter().all(|id| *id >= 0x8000), "the lower half is the programs'");
    }

    #[test]
    fn rfc2003_s5_reachability_lasts_until_the_peer_is_heard() {
        let state = SoftState::new(1500);
        assert_eq!(state.reachability(), Reachability::Assumed);
        state.report_unreachable(UnreachableCause::TimeExceeded, false, at(3));
        let expected = Reachability::Unreachable { cause: UnreachableCause::TimeExceeded, since: at(3) };
        assert_eq!(state.reachability(), expected);
        assert_eq!(state.pending(at(12)), Some(UnreachableCause::TimeExceeded), "nobody has been told yet");
        state.clear_pending();
        assert_eq!(state.pending(at(12)), None, "somebody has");
        state.report_unreachable(UnreachableCause::TimeExceeded, true, at(20));
        assert_eq!(state.pending(at(20)), Some(UnreachableCause::TimeExceeded), "everybody is, for a second");
        assert_eq!(state.pending(at(21)), None);
        assert!(!state.has_pending());
        state.report_unreachable(UnreachableCause::TimeExceeded, false, at(30));
        assert_eq!(state.pending(at(40)), None, "too old");
        state.report_unreachable(UnreachableCause::TimeExceeded, false, at(50));
        state.mark_reachable();
        assert_eq!(state.reachability(), Reachability::Assumed);
        assert!(!state.has_pending());
    }
}
