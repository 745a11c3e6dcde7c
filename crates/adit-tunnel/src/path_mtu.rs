//! The path MTU to a peer: what the underlay's interface takes, unless a router or a probe has told less.
//!
//! ```text
//!              Too Big, or a probe that was lost        Too Big once more: no sooner than in 5 min
//!  underlay ──────────────────────────────────► learned ──────────────┐
//!    MTU    ◄────────────────────────────────── expires in 10 min ◄───┘ a probe confirms it: in 10 min
//!              a larger probe was answered, or expiry
//! ```

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::tagged_time::TaggedTime;
use crate::time::Instant;

/// A learned path MTU is forgotten this long after its last decrease (RFC 1191 section 6.3), or after a probe
/// has found it to be still so.
pub const PATH_MTU_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// And never sooner than this after a Datagram Too Big (RFC 1191 section 6.3, a MUST NOT).
pub const PATH_MTU_HOLD: Duration = Duration::from_secs(5 * 60);

/// The smallest path MTU that is validated, outer header included: the inner datagram keeps the 68 bytes
/// that every IPv4 link must carry (RFC 791 section 3.2, RFC 1191 section 3).
pub const PATH_MTU_FLOOR: u16 = 68 + 20;

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
    /// Who told that it is less than the underlay's own MTU; `None`: nobody did.
    pub learned: Option<LearnedBy>,
    /// When it will be forgotten, if learned.
    pub expires: Option<Instant>,
}

/// How a path MTU came to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LearnedBy {
    /// A router's Datagram Too Big (RFC 1191).
    Router,
    /// Probes: the largest that was answered (RFC 8899).
    Probe,
}

/// One peer's, shared by all threads. Two reads on the usual way of a datagram.
#[derive(Debug)]
pub(crate) struct PathMtuState {
    /// The learned MTU and when it expires; marked if a probe has found it.
    learned: AtomicU64,
    underlay: AtomicU16,
}

impl PathMtuState {
    pub(crate) fn new(underlay: u16) -> PathMtuState {
        PathMtuState {
            learned: AtomicU64::new(TaggedTime::NONE.0),
            underlay: AtomicU16::new(underlay.max(PATH_MTU_FLOOR)),
        }
    }

    /// Takes over what `previous` had learned.
    pub(crate) fn inherit(&self, previous: &PathMtuState) {
        self.learned.store(previous.learned.load(Relaxed), Relaxed);
    }

    /// The MTU to use now, outer header included.
    #[inline]
    pub(crate) fn mtu(&self, now: Instant) -> u16 {
        effective(TaggedTime(self.learned.load(Relaxed)), self.underlay(), now)
    }

    /// What the underlay's interface takes.
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

    /// A router said that the path takes at most `mtu` bytes; returns whether that is less than thought.
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

    /// Probes have found that the path takes `mtu` bytes and no more: more or less than thought, or just that.
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

    /// Takes over what was learned before a restart, unless it has expired.
    pub(crate) fn recall(&self, known: PathMtu, now: Instant) {
        if let (Some(by), Some(expires)) = (known.learned, known.expires)
            && expires > now
        {
            // No one lives longer than if it had been learned just now.
            let expires = expires.min(now.saturating_add(PATH_MTU_LIFETIME));
            let word = TaggedTime::new(known.mtu.max(PATH_MTU_FLOOR), expires).marked(by == LearnedBy::Probe);
            self.learned.store(word.0, Relaxed);
        }
    }

    /// When the learned path MTU expires.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let learned = TaggedTime(self.learned.load(Relaxed));
        (learned != TaggedTime::NONE).then_some(learned.at())
    }

    /// Forgets a path MTU that has expired.
    pub(crate) fn expire(&self, now: Instant) {
        let word = self.learned.load(Relaxed);
        if word != TaggedTime::NONE.0 && TaggedTime(word).at() <= now {
            // Losing the race means that a router has just told a new one: that one stays.
            let _ = self.learned.compare_exchange(word, TaggedTime::NONE.0, Relaxed, Relaxed);
        }
    }
}

/// The smaller of what was learned and what the underlay takes, until the former expires.
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
    fn rfc1191_s6_3_path_mtu_comes_back_ten_minutes_after_the_last_decrease() {
        let state = PathMtuState::new(1500);
        assert_eq!(state.get(), UNKNOWN);
        assert!(state.told(1400, at(100)));
        assert_eq!(state.get(), learned(1400, LearnedBy::Router, 700));
        assert!(state.told(1300, at(200)));
        assert_eq!(state.mtu(at(799)), 1300);
        state.expire(at(799));
        assert_eq!(state.deadline(), Some(at(800)));
        assert_eq!(state.mtu(at(800)), 1500, "expired even before on_deadline");
        state.expire(at(800));
        assert_eq!(state.deadline(), None);
        assert_eq!(state.get(), UNKNOWN);
    }

    #[test]
    fn rfc1191_s6_3_no_increase_within_five_minutes_of_a_too_big() {
        let state = PathMtuState::new(1500);
        assert!(state.told(1400, at(0)));
        assert!(!state.told(1400, at(400)), "the same MTU is no decrease");
        assert_eq!(state.deadline(), Some(at(700)), "five minutes after the report at 400");
        assert!(!state.told(1450, at(500)), "a report never raises");
        assert_eq!(state.mtu(at(799)), 1400);
        assert_eq!(state.mtu(at(800)), 1500);
    }

    #[test]
    fn rfc1191_s3_no_mtu_below_the_floor() {
        let state = PathMtuState::new(1500);
        assert!(state.told(0, at(0)));
        assert_eq!(state.mtu(at(1)), PATH_MTU_FLOOR);
        assert_eq!(PathMtuState::new(20).mtu(at(0)), PATH_MTU_FLOOR);
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
        let state = PathMtuState::new(1500);
        state.told(1400, at(0));
        state.set_underlay(1280);
        assert_eq!(state.mtu(at(1)), 1280);
        assert_eq!(state.get(), PathMtu { mtu: 1280, learned: None, expires: None });
        assert!(!state.told(1400, at(2)));
    }

    #[test]
    fn rfc8899_s5_1_4_probes_lower_raise_and_confirm() {
        let state = PathMtuState::new(1500);
        state.probed(1320, at(10));
        assert_eq!(state.get(), learned(1320, LearnedBy::Probe, 610));
        state.probed(1400, at(20));
        assert_eq!(state.get(), learned(1400, LearnedBy::Probe, 620), "probes may raise it");
        state.probed(1500, at(30));
        assert_eq!(state.get(), UNKNOWN, "the underlay's own MTU is nothing to remember");
        state.told(1400, at(40));
        state.probed(1400, at(50));
        assert_eq!(state.get(), learned(1400, LearnedBy::Router, 650), "found to be still so");
    }

    #[test]
    fn what_was_known_before_a_restart_is_taken_over_until_it_expires() {
        let state = PathMtuState::new(1500);
        state.recall(learned(1400, LearnedBy::Probe, 100), at(50));
        assert_eq!(state.get(), learned(1400, LearnedBy::Probe, 100));
        let expired = PathMtuState::new(1500);
        expired.recall(learned(1400, LearnedBy::Probe, 100), at(100));
        assert_eq!(expired.get(), UNKNOWN);
        expired.recall(learned(1400, LearnedBy::Router, 9_999_999), at(100));
        assert_eq!(expired.get(), learned(1400, LearnedBy::Router, 700), "nobody learns for a hundred days");
    }

    #[test]
    fn threads_that_learn_at_once_end_at_the_smallest() {
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
