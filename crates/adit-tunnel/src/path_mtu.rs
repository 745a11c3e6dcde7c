//! The path MTU to a peer: the MTU of the underlay's interface, unless a router or a probe has
//! shown that the path takes less. It is in atomics, because every thread reads it for every
//! datagram.
//!
//! ```text
//!             Too Big, or a lost probe               another Too Big: expires in 5 min or later
//!  underlay ────────────────────────────► learned ───────────┐
//!    MTU    ◄──────────────────────────── expires in 10 min ◄┘ a probe confirms it: expires in 10 min
//!             a larger probe is answered, or expiry
//! ```

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::tagged_time::TaggedTime;
use crate::time::Instant;

/// Time after which a learned path MTU is forgotten. It starts anew with each decrease (RFC 1191
/// section 6.3) and with each probe that confirms the value.
pub const PATH_MTU_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Time after a Datagram Too Big in which the path MTU does not expire (RFC 1191 section 6.3: it
/// MUST NOT be raised sooner).
pub const PATH_MTU_HOLD: Duration = Duration::from_secs(5 * 60);

/// The smallest path MTU in bytes, outer header included, that routers may set, unless the
/// configuration says another: that of Linux (`net.ipv4.route.min_pmtu`).
pub const DEFAULT_MTU_FLOOR: u16 = 552;

/// The smallest path MTU in bytes, outer header included. Smaller values are raised to it. It
/// leaves the inner datagram the 68 bytes that every IPv4 link must carry (RFC 791 section 3.2, RFC
/// 1191 section 3).
pub const PATH_MTU_FLOOR: u16 = 68 + 20;

/// The common MTUs of RFC 1191 section 7.1, for old routers whose errors do not contain the MTU.
const PLATEAUS: [u16; 10] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, PATH_MTU_FLOOR];

/// The largest common MTU below a datagram of `total_len` bytes (RFC 1191 section 5).
pub(crate) fn plateau_below(total_len: u16) -> u16 {
    PLATEAUS.into_iter().find(|plateau| *plateau < total_len).unwrap_or(PATH_MTU_FLOOR)
}

/// The path MTU to a peer, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// Size in bytes of the largest outer datagram, its header included.
    pub mtu: u16,
    /// The source of a value below the underlay's own MTU; `None`: `mtu` is the underlay's.
    pub learned: Option<LearnedBy>,
    /// The time at which a learned value is forgotten.
    pub expires: Option<Instant>,
}

/// The source of a path MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LearnedBy {
    /// A router's Datagram Too Big (RFC 1191).
    Router,
    /// Probes: the size of the largest answered one (RFC 8899).
    Probe,
}

/// The path MTU state of one peer, shared by all threads. The common path of a datagram costs two
/// reads.
#[derive(Debug)]
pub(crate) struct PathMtuState {
    /// The learned MTU and its expiry; marked if a probe has found it.
    learned: AtomicU64,
    /// The MTU of the underlay's interface, in bytes.
    underlay: AtomicU16,
}

impl PathMtuState {
    pub(crate) fn new(underlay: u16) -> PathMtuState {
        PathMtuState {
            learned: AtomicU64::new(TaggedTime::NONE.0),
            underlay: AtomicU16::new(underlay.max(PATH_MTU_FLOOR)),
        }
    }

    /// Takes over the learned path MTU of `previous`.
    pub(crate) fn inherit(&self, previous: &PathMtuState) {
        self.learned.store(previous.learned.load(Relaxed), Relaxed);
    }

    /// The MTU to use now, in bytes, outer header included.
    #[inline]
    pub(crate) fn mtu(&self, now: Instant) -> u16 {
        effective(TaggedTime(self.learned.load(Relaxed)), self.underlay(), now)
    }

    /// The MTU of the underlay's interface, in bytes.
    #[inline]
    pub(crate) fn underlay(&self) -> u16 {
        self.underlay.load(Relaxed)
    }

    pub(crate) fn get(&self) -> PathMtu {
        let underlay = self.underlay();
        let learned = TaggedTime(self.learned.load(Relaxed));
        if learned == TaggedTime::NONE || learned.value() >= underlay {
            return PathMtu { mtu: underlay, learned: None, expires: None };
        }
        let by = if learned.is_marked() { LearnedBy::Probe } else { LearnedBy::Router };
        PathMtu { mtu: learned.value(), learned: Some(by), expires: Some(learned.at()) }
    }

    pub(crate) fn set_underlay(&self, mtu: u16) {
        self.underlay.store(mtu.max(PATH_MTU_FLOOR), Relaxed);
    }

    /// Records a router's report that the path takes at most `mtu` bytes. Returns true if that is
    /// less than the value in use.
    pub(crate) fn told(&self, mtu: u16, now: Instant) -> bool {
        let mtu = mtu.max(PATH_MTU_FLOOR);
        let mut word = self.learned.load(Relaxed);
        loop {
            let old = TaggedTime(word);
            let current = effective(old, self.underlay(), now);
            let next = if mtu < current {
                TaggedTime::new(mtu, now.saturating_add(PATH_MTU_LIFETIME))
            } else if old != TaggedTime::NONE && old.at() > now {
                let expires = old.at().max(now.saturating_add(PATH_MTU_HOLD));
                TaggedTime::new(old.value(), expires).marked(old.is_marked())
            } else {
                return false;
            };
            match self.learned.compare_exchange_weak(word, next.0, Relaxed, Relaxed) {
                Ok(_) => return mtu < current,
                Err(found) => word = found,
            }
        }
    }

    /// Records that, by probes, the path takes exactly `mtu` bytes. This may raise, lower or
    /// confirm the value in use.
    pub(crate) fn probed(&self, mtu: u16, now: Instant) {
        let mtu = mtu.max(PATH_MTU_FLOOR);
        let current = TaggedTime(self.learned.load(Relaxed));
        let next = if mtu >= self.underlay() {
            TaggedTime::NONE
        } else {
            let is_probes = current.is_marked() || mtu != effective(current, self.underlay(), now);
            TaggedTime::new(mtu, now.saturating_add(PATH_MTU_LIFETIME)).marked(is_probes)
        };
        self.learned.store(next.0, Relaxed);
    }

    /// Restores a path MTU that was learned before a restart, unless it has expired.
    pub(crate) fn recall(&self, known: PathMtu, now: Instant) {
        if let (Some(by), Some(expires)) = (known.learned, known.expires)
            && expires > now
        {
            // It must not outlive a value that is learned now.
            let expires = expires.min(now.saturating_add(PATH_MTU_LIFETIME));
            let word = TaggedTime::new(known.mtu.max(PATH_MTU_FLOOR), expires).marked(by == LearnedBy::Probe);
            self.learned.store(word.0, Relaxed);
        }
    }

    /// The time at which the learned path MTU expires; `None`: none is learned.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let learned = TaggedTime(self.learned.load(Relaxed));
        (learned != TaggedTime::NONE).then_some(learned.at())
    }

    /// Forgets a path MTU that has expired.
    pub(crate) fn expire(&self, now: Instant) {
        let word = self.learned.load(Relaxed);
        if word != TaggedTime::NONE.0 && TaggedTime(word).at() <= now {
            // If the exchange fails, a router has just reported a new value, which stays.
            let _ = self.learned.compare_exchange(word, TaggedTime::NONE.0, Relaxed, Relaxed);
        }
    }
}

/// The smaller of the learned and the underlay's MTU, or the underlay's once the learned one
/// expires.
#[inline]
fn effective(learned: TaggedTime, underlay: u16, now: Instant) -> u16 {
    if learned == TaggedTime::NONE || learned.at() <= now { underlay } else { learned.value().min(underlay) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn learned(mtu: u16, by: LearnedBy, expires: u64) -> PathMtu {
        PathMtu { mtu, learned: Some(by), expires: Some(at(expires)) }
    }

    const UNKNOWN: PathMtu = PathMtu { mtu: 1500, learned: None, expires: None };

    #[test]
    fn rfc1191_s6_3_the_path_mtu_rises_again_ten_minutes_after_the_last_decrease() {
        let state = PathMtuState::new(1500);
        assert_eq!(state.get(), UNKNOWN);
        assert!(state.told(1400, at(100)));
        assert_eq!(state.get(), learned(1400, LearnedBy::Router, 700));
        assert!(state.told(1300, at(200)));
        assert_eq!(state.mtu(at(799)), 1300);
        state.expire(at(799));
        assert_eq!(state.deadline(), Some(at(800)));
        assert_eq!(state.mtu(at(800)), 1500, "an expired value is not used, even before on_deadline");
        state.expire(at(800));
        assert_eq!(state.deadline(), None);
        assert_eq!(state.get(), UNKNOWN);
    }

    #[test]
    fn rfc1191_s6_3_the_path_mtu_does_not_rise_within_five_minutes_of_a_too_big() {
        let state = PathMtuState::new(1500);
        assert!(state.told(1400, at(0)));
        assert!(!state.told(1400, at(400)), "the same MTU is no decrease");
        assert_eq!(state.deadline(), Some(at(700)), "five minutes after the report at 400");
        assert!(!state.told(1450, at(500)), "a report never raises");
        assert_eq!(state.mtu(at(799)), 1400);
        assert_eq!(state.mtu(at(800)), 1500);
    }

    #[test]
    fn rfc1191_s3_the_path_mtu_stays_at_or_above_the_floor() {
        let state = PathMtuState::new(1500);
        assert!(state.told(0, at(0)));
        assert_eq!(state.mtu(at(1)), PATH_MTU_FLOOR);
        assert_eq!(PathMtuState::new(20).mtu(at(0)), PATH_MTU_FLOOR);
    }

    #[test]
    fn rfc1191_s7_1_the_plateau_is_below_the_datagrams_size() {
        assert_eq!(plateau_below(65535), 32000);
        assert_eq!(plateau_below(1500), 1492);
        assert_eq!(plateau_below(1492), 1006);
        assert_eq!(plateau_below(60), PATH_MTU_FLOOR);
    }

    #[test]
    fn an_underlay_mtu_below_the_learned_one_wins() {
        let state = PathMtuState::new(1500);
        state.told(1400, at(0));
        state.set_underlay(1280);
        assert_eq!(state.mtu(at(1)), 1280);
        assert_eq!(state.get(), PathMtu { mtu: 1280, learned: None, expires: None });
        assert!(!state.told(1400, at(2)));
    }

    #[test]
    fn rfc8899_s5_1_4_probes_lower_raise_and_confirm_the_path_mtu() {
        let state = PathMtuState::new(1500);
        state.probed(1320, at(10));
        assert_eq!(state.get(), learned(1320, LearnedBy::Probe, 610));
        state.probed(1400, at(20));
        assert_eq!(state.get(), learned(1400, LearnedBy::Probe, 620), "probes may raise it");
        state.probed(1500, at(30));
        assert_eq!(state.get(), UNKNOWN, "the underlay's own MTU is not stored as learned");
        state.told(1400, at(40));
        state.probed(1400, at(50));
        assert_eq!(state.get(), learned(1400, LearnedBy::Router, 650), "a confirmed value keeps its source");
    }

    #[test]
    fn a_path_mtu_from_before_a_restart_is_restored_unless_it_has_expired() {
        let state = PathMtuState::new(1500);
        state.recall(learned(1400, LearnedBy::Probe, 100), at(50));
        assert_eq!(state.get(), learned(1400, LearnedBy::Probe, 100));
        let expired = PathMtuState::new(1500);
        expired.recall(learned(1400, LearnedBy::Probe, 100), at(100));
        assert_eq!(expired.get(), UNKNOWN);
        expired.recall(learned(1400, LearnedBy::Router, 9_999_999), at(100));
        assert_eq!(
            expired.get(),
            learned(1400, LearnedBy::Router, 700),
            "a restored expiry is at most ten minutes away"
        );
    }

    #[test]
    fn concurrent_reports_end_at_the_smallest_mtu() {
        let state = PathMtuState::new(9000);
        std::thread::scope(|scope| {
            for thread in 0..4u16 {
                let state = &state;
                scope.spawn(move || {
                    (0..1000).for_each(|n| {
                        state.told(8000 - n - thread, at(1));
                    })
                });
            }
        });
        assert_eq!(state.mtu(at(2)), 8000 - 999 - 3);
    }
}
