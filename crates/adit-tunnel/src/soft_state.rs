//! The soft state of a peer (RFC 2003 section 5): path MTU, reachability and the rate limit of
//! ICMP. It is in atomics, which every thread reads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use adit_policy::IdRange;

use crate::path_mtu::PathMtuState;
use crate::probe::Answers;
use crate::tagged_time::TaggedTime;
use crate::time::Instant;
use crate::token_bucket::TokenBucket;

/// ICMP errors per second and peer after the burst is used up (RFC 1812 section 4.3.2.8).
pub const ICMP_PER_SECOND: u32 = 100;

/// ICMP errors that may be sent at once to the senders of one peer.
pub const ICMP_BURST: u32 = 50;

/// The rate limit of ICMP errors on behalf of one peer.
pub(crate) type IcmpLimit = TokenBucket<ICMP_PER_SECOND, ICMP_BURST>;

/// Time after a report that the decapsulator is unreachable in which every sender gets an error,
/// unless a datagram comes from the peer. Routers limit their reports, usually to one per second.
pub const UNREACHABLE_WINDOW: Duration = Duration::from_secs(1);

/// Time for which an error that could not be relayed waits for the next datagram to its peer.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(10);

/// The reason why a peer is taken as unreachable (RFC 2003 sections 4.1 and 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnreachableCause {
    /// Network Unreachable came back.
    Network,
    /// Host Unreachable came back.
    Host,
    /// Protocol Unreachable came back: the peer exists, but does not accept IP in IP.
    Protocol,
    /// Time Exceeded came back: the outer TTL is too small for the path, or it has a loop.
    TimeExceeded,
}

/// Whether a peer is reachable, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reachability {
    /// There is no report to the contrary, or a datagram has come from the peer since.
    Assumed,
    /// A router inside the tunnel, or the peer, reported it.
    Unreachable {
        /// The kind of the report.
        cause: UnreachableCause,
        /// The time of the last report.
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

/// The soft state of one peer. It is one cache line, and the common path of a datagram only reads
/// it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct SoftState {
    pub(crate) path_mtu: PathMtuState,
    /// The answers to probes.
    pub(crate) answers: Answers,
    /// The cause and the time of a report about which senders get errors; marked until the first
    /// has one.
    pending: AtomicU64,
    /// The cause and the time of the last report that the peer is unreachable.
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

    /// Takes over the state of `previous`.
    pub(crate) fn inherit(&self, previous: &SoftState) {
        self.path_mtu.inherit(&previous.path_mtu);
        self.pending.store(previous.pending.load(Relaxed), Relaxed);
        self.unreachable.store(previous.unreachable.load(Relaxed), Relaxed);
        self.icmp.inherit(&previous.icmp);
        self.identification.store(previous.identification.load(Relaxed), Relaxed);
    }

    /// Records a report that the peer is unreachable. `is_told`: the sender that it is about has
    /// its error.
    pub(crate) fn report_unreachable(&self, cause: UnreachableCause, is_told: bool, now: Instant) {
        let report = TaggedTime::new(cause.number() as u16, now);
        self.unreachable.store(report.0, Relaxed);
        self.pending.store(report.marked(!is_told).0, Relaxed);
    }

    /// Restores a report from before a restart; no error is pending for it.
    pub(crate) fn recall_unreachable(&self, cause: UnreachableCause, since: Instant) {
        self.unreachable.store(TaggedTime::new(cause.number() as u16, since).0, Relaxed);
    }

    /// Marks the peer as reachable: a datagram came from it. Writes only after a report.
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

    /// Returns true while senders get errors about the peer. Costs one read.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != TaggedTime::NONE.0
    }

    /// The cause to report to the sender of a datagram instead of sending it; `None`: there is
    /// none.
    pub(crate) fn pending(&self, now: Instant) -> Option<UnreachableCause> {
        let word = TaggedTime(self.pending.load(Relaxed));
        let age = now.since(word.at());
        let is_due = age < UNREACHABLE_WINDOW || word.is_marked() && age < PENDING_LIFETIME;
        let cause = UnreachableCause::from_number(u64::from(word.value())).filter(|_| is_due);
        if cause.is_none() {
            // If the exchange fails, a router has just reported it again.
            let _ = self.pending.compare_exchange(word.0, TaggedTime::NONE.0, Relaxed, Relaxed);
        }
        cause
    }

    /// Records that a sender has its error; the window goes on for others.
    pub(crate) fn clear_pending(&self) {
        let word = self.pending.load(Relaxed);
        let _ = self.pending.compare_exchange(word, TaggedTime(word).marked(false).0, Relaxed, Relaxed);
    }

    /// Returns true if one more ICMP error may be sent on behalf of this peer, and counts it as
    /// sent.
    pub(crate) fn may_send_icmp(&self, now: Instant) -> bool {
        self.icmp.take(now)
    }

    /// Reserves `segments` consecutive identifications and returns the first (RFC 6864 section 4:
    /// they repeat only after all 65,536 have been used, or all of our half).
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
    fn rfc2003_s5_unreachability_lasts_until_a_datagram_comes_from_the_peer() {
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
