//! The soft state of a peer (RFC 2003 section 5): path MTU, reachability and the rate limit of
//! ICMP. It is in atomics, which every thread reads.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use adit_policy::IdRange;
use adit_wire::icmpv4::{types, unreachable};

use crate::atomic_address::AtomicAddress;
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
    /// An error that says "administratively prohibited" came back: a filter refuses it.
    Prohibited,
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
        /// The ICMP error.
        error: UnreachableError,
        /// The address that it came from.
        router: IpAddr,
        /// The time of the last report.
        since: Instant,
    },
}

/// The ICMP error by which a router reports that a peer is unreachable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnreachableError {
    /// The ICMP type: 3 (Destination Unreachable) or 11 (Time Exceeded).
    pub icmp_type: u8,
    /// The ICMP code.
    pub icmp_code: u8,
}

impl UnreachableError {
    /// Destination Unreachable with this code.
    pub const fn destination(icmp_code: u8) -> UnreachableError {
        UnreachableError { icmp_type: types::DESTINATION_UNREACHABLE, icmp_code }
    }

    /// Time Exceeded with this code.
    pub const fn time_exceeded(icmp_code: u8) -> UnreachableError {
        UnreachableError { icmp_type: types::TIME_EXCEEDED, icmp_code }
    }

    /// What it says. The codes from 6 on are in RFC 1812 section 5.2.7.1.
    pub const fn cause(self) -> UnreachableCause {
        match (self.icmp_type, self.icmp_code) {
            (types::TIME_EXCEEDED, _) => UnreachableCause::TimeExceeded,
            (_, unreachable::NET | 6 | 11) => UnreachableCause::Network,
            (_, unreachable::PROTOCOL) => UnreachableCause::Protocol,
            (_, unreachable::NETWORK_PROHIBITED | unreachable::HOST_PROHIBITED | unreachable::PROHIBITED) => {
                UnreachableCause::Prohibited
            }
            _ => UnreachableCause::Host,
        }
    }

    const fn number(self) -> u16 {
        u16::from_be_bytes([self.icmp_type, self.icmp_code])
    }

    const fn from_number(number: u16) -> Option<UnreachableError> {
        let [icmp_type, icmp_code] = number.to_be_bytes();
        if icmp_type == 0 { None } else { Some(UnreachableError { icmp_type, icmp_code }) }
    }
}

/// The soft state of one peer. The common path of a datagram only reads it, and only its first
/// cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct SoftState {
    pub(crate) path_mtu: PathMtuState,
    /// The answers to probes.
    pub(crate) answers: Answers,
    /// The error and the time of a report about which senders get errors; marked until the first
    /// has one.
    pending: AtomicU64,
    /// The error and the time of the last report that the peer is unreachable.
    unreachable: AtomicU64,
    icmp: IcmpLimit,
    /// The next identification for outer datagrams that may be fragmented.
    identification: AtomicU32,
    /// The router that sent it.
    router: AtomicAddress,
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
            router: AtomicAddress::default(),
        }
    }

    /// Takes over the state of `previous`.
    pub(crate) fn inherit(&self, previous: &SoftState) {
        self.path_mtu.inherit(&previous.path_mtu);
        self.pending.store(previous.pending.load(Relaxed), Relaxed);
        if let Some(router) = previous.router.get() {
            self.router.set(router);
        }
        self.unreachable.store(previous.unreachable.load(Relaxed), Relaxed);
        self.icmp.inherit(&previous.icmp);
        self.identification.store(previous.identification.load(Relaxed), Relaxed);
    }

    /// Records a report that the peer is unreachable. `is_told`: the sender that it is about has
    /// its error.
    pub(crate) fn report_unreachable(
        &self,
        error: UnreachableError,
        router: IpAddr,
        is_told: bool,
        now: Instant,
    ) {
        let report = TaggedTime::new(error.number(), now);
        self.recall_unreachable(error, router, now);
        self.pending.store(report.marked(!is_told).0, Relaxed);
    }

    /// Restores a report from before a restart; no error is pending for it.
    pub(crate) fn recall_unreachable(&self, error: UnreachableError, router: IpAddr, since: Instant) {
        self.router.set(router);
        self.unreachable.store(TaggedTime::new(error.number(), since).0, Relaxed);
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
        let router = self.router.get().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        match UnreachableError::from_number(word.value()) {
            Some(error) => Reachability::Unreachable { error, router, since: word.at() },
            None => Reachability::Assumed,
        }
    }

    /// Returns true while senders get errors about the peer. Costs one read.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != TaggedTime::NONE.0
    }

    /// The error to report to the sender of a datagram instead of sending it; `None`: there is
    /// none.
    pub(crate) fn pending(&self, now: Instant) -> Option<UnreachableError> {
        let word = TaggedTime(self.pending.load(Relaxed));
        let age = now.since(word.at());
        let is_due = age < UNREACHABLE_WINDOW || word.is_marked() && age < PENDING_LIFETIME;
        let error = UnreachableError::from_number(word.value()).filter(|_| is_due);
        if error.is_none() {
            // If the exchange fails, a router has just reported it again.
            let _ = self.pending.compare_exchange(word.0, TaggedTime::NONE.0, Relaxed, Relaxed);
        }
        error
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

    /// Counts an outer packet of IPv6 that is sent in fragments.
    pub(crate) fn count_fragmented(&self) -> u32 {
        self.identification.fetch_add(1, Relaxed)
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
    use std::net::Ipv6Addr;

    const EXPIRED: UnreachableError = UnreachableError::time_exceeded(0);
    const ROUTER: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9));

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn the_common_path_reads_one_cache_line_of_soft_state() {
        assert_eq!(std::mem::offset_of!(SoftState, router), 64);
    }

    #[test]
    fn rfc1812_s5_2_7_1_each_code_has_its_cause() {
        use UnreachableCause::{Host, Network, Prohibited, Protocol, TimeExceeded};
        let table: [(UnreachableCause, &[u8]); 4] = [
            (Network, &[0, 6, 11]),
            (Host, &[1, 7, 8, 12, 14, 15]),
            (Protocol, &[2]),
            (Prohibited, &[9, 10, 13]),
        ];
        for (cause, codes) in table {
            for &code in codes {
                assert_eq!(UnreachableError::destination(code).cause(), cause, "code {code}");
            }
        }
        for code in [0, 1] {
            assert_eq!(UnreachableError::time_exceeded(code).cause(), TimeExceeded);
        }
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
        state.report_unreachable(EXPIRED, ROUTER, false, at(3));
        let expected = Reachability::Unreachable { error: EXPIRED, router: ROUTER, since: at(3) };
        assert_eq!(state.reachability(), expected);
        assert_eq!(state.pending(at(12)), Some(EXPIRED), "nobody has been told yet");
        state.clear_pending();
        assert_eq!(state.pending(at(12)), None, "somebody has");
        state.report_unreachable(EXPIRED, ROUTER, true, at(20));
        assert_eq!(state.pending(at(20)), Some(EXPIRED), "everybody is, for a second");
        assert_eq!(state.pending(at(21)), None);
        assert!(!state.has_pending());
        state.report_unreachable(EXPIRED, ROUTER, false, at(30));
        assert_eq!(state.pending(at(40)), None, "too old");
        state.report_unreachable(EXPIRED, ROUTER, false, at(50));
        state.mark_reachable();
        assert_eq!(state.reachability(), Reachability::Assumed);
        assert!(!state.has_pending());
    }
}
