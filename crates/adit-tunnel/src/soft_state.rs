//! What the tunnel knows of the way to a peer until it learns better (RFC 2003 section 5): path MTU,
//! reachability, and how much ICMP it may still send. All of it in atomics, read by every thread.
//!
//! ```text
//!            Too Big (a decrease)                   Too Big, same or larger MTU
//!  underlay ──────────────────────► learned(mtu) ──────────────┐ expires no earlier
//!    MTU    ◄────────────────────── expires in 10 min ◄────────┘ than in 5 min
//!                 expiry
//! ```

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::time::Instant;

/// A learned path MTU is forgotten this long after its last decrease (RFC 1191 section 6.3).
pub const PATH_MTU_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// And never sooner than this after a Datagram Too Big (RFC 1191 section 6.3, a MUST NOT).
pub const PATH_MTU_HOLD: Duration = Duration::from_secs(5 * 60);

/// The smallest path MTU that is believed, outer header included: the inner datagram keeps the 68 bytes
/// that every IPv4 link must carry (RFC 791 section 3.2, RFC 1191 section 3).
pub const PATH_MTU_FLOOR: u16 = 68 + 20;

/// ICMP errors for each second and peer, once the burst is used up (RFC 1812 section 4.3.2.8).
pub const ICMP_PER_SECOND: u32 = 100;

/// ICMP errors that may be sent at once to the senders of one peer.
pub const ICMP_BURST: u32 = 50;

/// How long an error that could not be answered waits for the next datagram of its peer.
pub const PENDING_LIFETIME: Duration = Duration::from_secs(10);

/// RFC 1191 section 7.1: the MTUs that are common, for routers so old that they do not tell theirs.
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, PATH_MTU_FLOOR];

/// The largest common MTU below a datagram of `total_len` bytes (RFC 1191 section 5).
pub(crate) fn plateau_below(total_len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < total_len).unwrap_or(PATH_MTU_FLOOR)
}

/// What is known of the path to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes of the largest outer datagram, its header included.
    pub mtu: u16,
    /// Whether a router told so; otherwise it is the underlay's own MTU.
    pub learned: bool,
    /// When it will be forgotten, if learned.
    pub expires: Option<Instant>,
}

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

/// 16 bits of a small value (0: none) and 48 bits of a time in milliseconds (8,900 years), in one word,
/// so that neither is ever seen without the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timed(u64);

impl Timed {
    const NONE: Timed = Timed(0);
    const TIME: u64 = (1 << 48) - 1;

    const fn new(value: u16, at: Instant) -> Timed {
        let millis = if at.as_millis() > Timed::TIME { Timed::TIME } else { at.as_millis() };
        Timed((value as u64) << 48 | millis)
    }

    const fn value(self) -> u16 {
        (self.0 >> 48) as u16
    }

    const fn at(self) -> Instant {
        Instant::from_millis(self.0 & Timed::TIME)
    }

    /// Read as a learned MTU: the smaller of it and the underlay's, until it expires.
    #[inline]
    fn mtu(self, underlay: u16, now: Instant) -> u16 {
        if self == Timed::NONE || self.at() <= now { underlay } else { self.value().min(underlay) }
    }
}

/// The soft state of one peer. One cache line, and only read on the usual way of a datagram.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct SoftState {
    /// The learned path MTU and when it expires.
    learned: AtomicU64,
    /// The cause and the time of an error whose sender could not be told yet.
    pending: AtomicU64,
    /// The cause and the time of the last report that the exit is unreachable.
    unreachable: AtomicU64,
    icmp: TokenBucket,
    /// The next identification for outer datagrams that may be fragmented.
    identification: AtomicU32,
    underlay_mtu: AtomicU16,
}

impl SoftState {
    pub(crate) fn new(underlay_mtu: u16) -> SoftState {
        SoftState {
            learned: AtomicU64::new(Timed::NONE.0),
            pending: AtomicU64::new(Timed::NONE.0),
            unreachable: AtomicU64::new(Timed::NONE.0),
            icmp: TokenBucket::new(),
            identification: AtomicU32::new(0),
            underlay_mtu: AtomicU16::new(underlay_mtu.max(PATH_MTU_FLOOR)),
        }
    }

    /// Takes over what `previous` knew.
    pub(crate) fn inherit(&self, previous: &SoftState) {
        self.learned.store(previous.learned.load(Relaxed), Relaxed);
        self.pending.store(previous.pending.load(Relaxed), Relaxed);
        self.unreachable.store(previous.unreachable.load(Relaxed), Relaxed);
        self.icmp.inherit(&previous.icmp);
        self.identification.store(previous.identification.load(Relaxed), Relaxed);
    }

    /// The MTU to use now, outer header included. Two reads of one cache line.
    #[inline]
    pub(crate) fn mtu(&self, now: Instant) -> u16 {
        Timed(self.learned.load(Relaxed)).mtu(self.underlay_mtu.load(Relaxed), now)
    }

    pub(crate) fn path_mtu(&self) -> PathMtu {
        let underlay = self.underlay_mtu.load(Relaxed);
        let learned = Timed(self.learned.load(Relaxed));
        if learned == Timed::NONE || learned.value() >= underlay {
            PathMtu { mtu: underlay, learned: false, expires: None }
        } else {
            PathMtu { mtu: learned.value(), learned: true, expires: Some(learned.at()) }
        }
    }

    pub(crate) fn set_underlay_mtu(&self, mtu: u16) {
        self.underlay_mtu.store(mtu.max(PATH_MTU_FLOOR), Relaxed);
    }

    /// A router said that the path takes at most `mtu` bytes; returns whether that is less than thought.
    pub(crate) fn learn_mtu(&self, mtu: u16, now: Instant) -> bool {
        let mtu = mtu.max(PATH_MTU_FLOOR);
        let mut word = self.learned.load(Relaxed);
        loop {
            let old = Timed(word);
            let current = old.mtu(self.underlay_mtu.load(Relaxed), now);
            let next = if mtu < current {
                Timed::new(mtu, now.saturating_add(PATH_MTU_LIFETIME))
            } else if old != Timed::NONE && old.at() > now {
                Timed::new(old.value(), old.at().max(now.saturating_add(PATH_MTU_HOLD)))
            } else {
                return false;
            };
            match self.learned.compare_exchange_weak(word, next.0, Relaxed, Relaxed) {
                Ok(_) => return mtu < current,
                Err(found) => word = found,
            }
        }
    }

    /// When the learned path MTU expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let learned = Timed(self.learned.load(Relaxed));
        (learned != Timed::NONE).then_some(learned.at())
    }

    /// Forgets a path MTU that has expired.
    pub(crate) fn expire(&self, now: Instant) {
        let word = self.learned.load(Relaxed);
        if word != Timed::NONE.0 && Timed(word).at() <= now {
            // Losing the race means that a router has just told a new one: that one stays.
            let _ = self.learned.compare_exchange(word, Timed::NONE.0, Relaxed, Relaxed);
        }
    }

    pub(crate) fn report_unreachable(&self, cause: UnreachableCause, now: Instant) {
        self.unreachable.store(Timed::new(cause.number() as u16, now).0, Relaxed);
    }

    /// A datagram came from the peer. Only a read, but for the first one after a report.
    #[inline]
    pub(crate) fn heard(&self) {
        if self.unreachable.load(Relaxed) != Timed::NONE.0 {
            self.unreachable.store(Timed::NONE.0, Relaxed);
            self.pending.store(Timed::NONE.0, Relaxed);
        }
    }

    pub(crate) fn reachability(&self) -> Reachability {
        let word = Timed(self.unreachable.load(Relaxed));
        match UnreachableCause::from_number(u64::from(word.value())) {
            Some(cause) => Reachability::Unreachable { cause, since: word.at() },
            None => Reachability::Assumed,
        }
    }

    /// Leaves an error for the next datagram of this peer.
    pub(crate) fn set_pending(&self, cause: UnreachableCause, now: Instant) {
        self.pending.store(Timed::new(cause.number() as u16, now).0, Relaxed);
    }

    /// Whether an error waits; one read.
    #[inline]
    pub(crate) fn has_pending(&self) -> bool {
        self.pending.load(Relaxed) != Timed::NONE.0
    }

    /// The error that waits, if it is not too old. It goes on waiting: [`SoftState::clear_pending`].
    pub(crate) fn pending(&self, now: Instant) -> Option<UnreachableCause> {
        let word = Timed(self.pending.load(Relaxed));
        let cause = UnreachableCause::from_number(u64::from(word.value()))?;
        (now.since(word.at()) < PENDING_LIFETIME).then_some(cause)
    }

    pub(crate) fn clear_pending(&self) {
        self.pending.store(Timed::NONE.0, Relaxed);
    }

    /// Whether one more ICMP error may be sent on behalf of this peer; if so, it counts as sent.
    pub(crate) fn may_send_icmp(&self, now: Instant) -> bool {
        self.icmp.take(now)
    }

    /// Reserves `segments` consecutive identifications and returns the first (RFC 6864 section 4: they
    /// repeat only after all 65,536 have been used).
    pub(crate) fn identifications(&self, segments: u16) -> u16 {
        self.identification.fetch_add(u32::from(segments.max(1)), Relaxed) as u16
    }
}

/// A token bucket as one number (GCRA): the time, in microseconds, at which the bucket would be full.
#[derive(Debug)]
pub(crate) struct TokenBucket(AtomicU64);

impl TokenBucket {
    const INTERVAL: u64 = 1_000_000 / ICMP_PER_SECOND as u64;
    const TOLERANCE: u64 = TokenBucket::INTERVAL * (ICMP_BURST as u64 - 1);

    pub(crate) fn new() -> TokenBucket {
        TokenBucket(AtomicU64::new(0))
    }

    fn inherit(&self, previous: &TokenBucket) {
        self.0.store(previous.0.load(Relaxed), Relaxed);
    }

    /// Takes one token if there is one.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let now = now.as_millis().saturating_mul(1000);
        self.0
            .fetch_update(Relaxed, Relaxed, |full_at| {
                let full_at = full_at.max(now);
                (full_at - now <= TokenBucket::TOLERANCE)
                    .then(|| full_at.saturating_add(TokenBucket::INTERVAL))
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn rfc1191_s6_3_path_mtu_comes_back_ten_minutes_after_the_last_decrease() {
        let state = SoftState::new(1500);
        assert_eq!(state.path_mtu(), PathMtu { mtu: 1500, learned: false, expires: None });
        assert!(state.learn_mtu(1400, at(100)));
        assert_eq!(state.path_mtu(), PathMtu { mtu: 1400, learned: true, expires: Some(at(700)) });
        assert!(state.learn_mtu(1300, at(200)));
        assert_eq!(state.mtu(at(799)), 1300);
        state.expire(at(799));
        assert_eq!(state.deadline(), Some(at(800)));
        assert_eq!(state.mtu(at(800)), 1500, "expired even before on_deadline");
        state.expire(at(800));
        assert_eq!(state.deadline(), None);
        assert_eq!(state.path_mtu(), PathMtu { mtu: 1500, learned: false, expires: None });
    }

    #[test]
    fn rfc1191_s6_3_no_increase_within_five_minutes_of_a_too_big() {
        let state = SoftState::new(1500);
        assert!(state.learn_mtu(1400, at(0)));
        assert!(!state.learn_mtu(1400, at(400)), "the same MTU is no decrease");
        assert_eq!(state.deadline(), Some(at(700)), "five minutes after the report at 400");
        assert!(!state.learn_mtu(1450, at(500)), "a report never raises");
        assert_eq!(state.mtu(at(799)), 1400);
        assert_eq!(state.mtu(at(800)), 1500);
    }

    #[test]
    fn rfc1191_s3_no_mtu_below_the_floor() {
        let state = SoftState::new(1500);
        assert!(state.learn_mtu(0, at(0)));
        assert_eq!(state.mtu(at(1)), PATH_MTU_FLOOR);
        assert_eq!(SoftState::new(20).mtu(at(0)), PATH_MTU_FLOOR);
    }

    #[test]
    fn rfc1191_s7_1_plateaus_descend_from_the_datagram() {
        assert_eq!(plateau_below(65535), 32000);
        assert_eq!(plateau_below(1500), 1492);
        assert_eq!(plateau_below(1492), 1006);
        assert_eq!(plateau_below(60), PATH_MTU_FLOOR);
    }

    #[test]
    fn an_underlay_mtu_below_the_learned_one_wins() {
        let state = SoftState::new(1500);
        state.learn_mtu(1400, at(0));
        state.set_underlay_mtu(1280);
        assert_eq!(state.mtu(at(1)), 1280);
        assert_eq!(state.path_mtu(), PathMtu { mtu: 1280, learned: false, expires: None });
        assert!(!state.learn_mtu(1400, at(2)));
    }

    #[test]
    fn rfc1812_s4_3_2_8_icmp_is_limited_to_a_burst_and_then_a_rate() {
        let bucket = TokenBucket::new();
        let start = at(1000);
        assert_eq!((0..1000).filter(|_| bucket.take(start)).count() as u32, ICMP_BURST);
        let later = (1..=1000).map(|ms| Instant::from_millis(1_000_000 + ms));
        let sent = later.filter(|now| bucket.take(*now)).count() as u32;
        assert_eq!(sent, ICMP_PER_SECOND);
        assert_eq!((0..1000).filter(|_| bucket.take(at(2000))).count() as u32, ICMP_BURST, "full again");
        assert!(!bucket.take(at(1000)), "a clock read earlier by another thread gets nothing more");
    }

    #[test]
    fn rfc6864_s4_identifications_repeat_only_after_all_have_been_used() {
        let state = SoftState::new(1500);
        let mut seen = vec![false; 65536];
        for step in 0..16384u32 {
            let first = state.identifications(4);
            assert_eq!(u32::from(first), step * 4);
            for n in 0..4 {
                let id = usize::from(first.wrapping_add(n));
                assert!(!seen[id], "{id} came twice");
                seen[id] = true;
            }
        }
        assert_eq!(state.identifications(1), 0);
    }

    #[test]
    fn rfc2003_s5_reachability_lasts_until_the_peer_is_heard() {
        let state = SoftState::new(1500);
        assert_eq!(state.reachability(), Reachability::Assumed);
        state.report_unreachable(UnreachableCause::TimeExceeded, at(3));
        state.set_pending(UnreachableCause::TimeExceeded, at(3));
        let expected = Reachability::Unreachable { cause: UnreachableCause::TimeExceeded, since: at(3) };
        assert_eq!(state.reachability(), expected);
        assert_eq!(state.pending(at(12)), Some(UnreachableCause::TimeExceeded));
        assert_eq!(state.pending(at(13)), None, "too old");
        state.heard();
        assert_eq!(state.reachability(), Reachability::Assumed);
        assert!(!state.has_pending());
    }

    #[test]
    fn threads_that_learn_at_once_end_at_the_smallest() {
        let state = SoftState::new(9000);
        std::thread::scope(|scope| {
            for thread in 0..4u16 {
                let state = &state;
                scope.spawn(move || {
                    (0..1000).for_each(|n| {
                        state.learn_mtu(8000 - n - thread, at(1));
                    })
                });
            }
        });
        assert_eq!(state.mtu(at(2)), 8000 - 999 - 3);
    }
}
