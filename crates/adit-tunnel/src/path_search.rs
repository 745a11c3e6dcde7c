//! The search for a path MTU (RFC 8899 section 5), without I/O and without a clock, so that it can
//! be tested exhaustively. A search sends a round of probe sizes at once, takes the largest size
//! that was answered, and then starts the next round or ends.
//!
//! ```text
//!   Confirm  1: mtu ─lost─► 2: mtu twice, 1200, 576, 128 ─lost─► 3: mtu thrice, sizes below ─lost─┐
//!      ├── mtu is answered: the path takes it                                                     │
//!      └── nothing is answered: the peer is silent, and nothing is known                          │
//!   Narrow ◄──────────────────────────────────────────────────────────────────────────────────────┘
//!      nine sizes between an answered and an unanswered size, until the two are adjacent
//! ```
//!
//! A size counts as too large only if it was lost while a smaller one of the same round was
//! answered. The path MTU itself counts as too large only after six lost probes of that size, and
//! it is probed again while the search narrows. On a path that loses every tenth datagram in each
//! direction, one search in 20,000 is wrong; the next answer corrects it.

/// The size that every path should take (RFC 8899 section 5.1.2), and smaller ones for paths that
/// do not.
const BASES: [u16; 3] = [1200, 576, 128];
/// Number of sizes between the two ends of a round.
const BETWEEN: u16 = 7;
/// Number of probes of the path MTU itself in the second and the third round.
const COPIES: [usize; 2] = [2, 3];
/// Largest number of sizes in a round.
const MAX_SIZES: usize = BETWEEN as usize + 1 + COPIES[1];
/// Largest number of rounds that narrow. Narrowing 65,535 bytes down to one takes six.
const ROUNDS: u8 = 8;

/// The state of a search before its next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// Checks that the path still takes `mtu`, the value in use.
    Confirm {
        mtu: u16,
        /// The number of this attempt, 1 to 3 (RFC 8899 section 5.1.3: MAX_PROBES).
        attempt: u8,
        /// The largest size below `mtu` that was answered so far; 0: none.
        floor: u16,
    },
    /// Searches between `low`, which was answered, and `high`, which was not or is above the
    /// largest size to try.
    Narrow {
        low: u16,
        high: u16,
        rounds: u8,
        /// The value in use before, whose probes were lost; 0: there is none.
        lost: u16,
    },
    /// One probe, which says nothing about larger sizes. It tests a router's error about a peer
    /// that answers nothing, or keeps a path open.
    Verify { size: u16 },
}

/// The result of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// The size that the path takes, found below a larger one that it does not take.
    pub(crate) learned: Option<u16>,
    /// The continuation of the search.
    pub(crate) next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another round.
    Ask(Search),
    /// The peer has answered, and the search is complete.
    Done,
    /// The peer has answered no probe.
    Silent,
    /// The round proves nothing.
    Inconclusive,
}

/// The probe sizes of a round, smallest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    sizes: [u16; MAX_SIZES],
    len: usize,
}

impl Sizes {
    fn add(&mut self, size: u16) {
        if let Some(place) = self.sizes.get_mut(self.len) {
            *place = size;
            self.len += 1;
        }
    }

    pub(crate) fn as_slice(&self) -> &[u16] {
        self.sizes.get(..self.len).unwrap_or_default()
    }

    /// The smallest size above `size`.
    fn above(&self, size: u16) -> Option<u16> {
        self.as_slice().iter().copied().find(|other| *other > size)
    }
}

impl Search {
    /// A search that checks the value in use.
    pub(crate) const fn confirm(mtu: u16) -> Search {
        Search::Confirm { mtu, attempt: 1, floor: 0 }
    }

    /// A search for a size above `low`, up to `top`.
    pub(crate) const fn raise(low: u16, top: u16) -> Search {
        Search::Narrow { low, high: top.saturating_add(1), rounds: ROUNDS, lost: 0 }
    }

    /// Whether the round tries another address of the peer, because nothing has answered so far.
    pub(crate) fn tries_other_address(&self) -> bool {
        matches!(self, Search::Confirm { attempt: 3, floor: 0, .. })
    }

    /// The sizes of the next round.
    pub(crate) fn sizes(&self) -> Sizes {
        let mut sizes = Sizes::default();
        match *self {
            Search::Confirm { mtu, attempt: 1, .. } => sizes.add(mtu),
            Search::Confirm { mtu, floor: 0, .. } => {
                BASES.iter().rev().filter(|base| **base < mtu).for_each(|base| sizes.add(*base));
                (0..COPIES[0]).for_each(|_| sizes.add(mtu));
            }
            Search::Confirm { mtu, floor, .. } => {
                sizes.add(floor);
                spread(floor, mtu, &mut sizes);
                (0..COPIES[1]).for_each(|_| sizes.add(mtu));
            }
            Search::Narrow { low, high, lost, .. } => {
                sizes.add(low);
                spread(low, high.saturating_sub(1), &mut sizes);
                if high.saturating_sub(1) > low {
                    sizes.add(high - 1);
                }
                if lost > 0 {
                    (0..COPIES[0]).for_each(|_| sizes.add(lost));
                }
            }
            Search::Verify { size } => sizes.add(size),
        }
        sizes
    }

    /// The answered size that ends the round before its time.
    pub(crate) fn ends_with(&self) -> u16 {
        match *self {
            Search::Confirm { mtu, .. } => mtu,
            Search::Narrow { high, lost, .. } => lost.max(high.saturating_sub(1)),
            Search::Verify { size } => size,
        }
    }

    /// Evaluates a round that is over. `best` is the largest size that was answered; 0: none.
    pub(crate) fn after(&self, best: u16) -> Step {
        let done = Step { learned: None, next: Next::Done };
        let ask = |search| Step { learned: None, next: Next::Ask(search) };
        let silent = Step { learned: None, next: Next::Silent };
        match *self {
            Search::Confirm { mtu, .. } if best >= mtu => done,
            Search::Confirm { mtu, attempt, .. } if attempt < 3 => {
                ask(Search::Confirm { mtu, attempt: attempt + 1, floor: best })
            }
            Search::Confirm { .. } if best == 0 => silent,
            Search::Confirm { floor: 0, .. } => {
                // The peer was silent and begins to answer only now, so nothing is proven yet.
                done
            }
            Search::Confirm { .. } => self.narrow(best, best, ROUNDS, Some(best)),
            Search::Narrow { .. } if best == 0 => silent,
            Search::Narrow { lost, .. } if lost > 0 && best >= lost => {
                Step { learned: Some(lost), next: Next::Done }
            }
            Search::Narrow { low, rounds, .. } => {
                let found = best.max(low);
                self.narrow(low, found, rounds - 1, (found > low).then_some(found))
            }
            Search::Verify { .. } if best == 0 => Step { learned: None, next: Next::Inconclusive },
            Search::Verify { .. } => done,
        }
    }

    /// The step to a narrower interval above `found`, or the end of the search.
    fn narrow(&self, low: u16, found: u16, rounds: u8, learned: Option<u16>) -> Step {
        let (beyond, lost) = match *self {
            Search::Narrow { high, lost, .. } => (high, lost),
            Search::Confirm { mtu: size, .. } | Search::Verify { size } => (size, size),
        };
        let high = self.sizes().above(found.max(low)).unwrap_or(beyond).min(beyond);
        let is_over = rounds == 0 || high.saturating_sub(found) <= 1;
        let next =
            if is_over { Next::Done } else { Next::Ask(Search::Narrow { low: found, high, rounds, lost }) };
        Step { learned, next }
    }
}

/// Adds up to [`BETWEEN`] sizes between two others, evenly spaced.
fn spread(low: u16, high: u16, sizes: &mut Sizes) {
    let gap = high.saturating_sub(low).saturating_sub(1);
    let count = gap.min(BETWEEN);
    for n in 1..=count {
        sizes.add(low + (u32::from(gap + 1) * u32::from(n) / u32::from(count + 1)) as u16);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a search on a path that takes `takes` bytes. Returns the size that was learned last,
    /// the end of the search, and the number of rounds.
    fn run(mut search: Search, takes: u16) -> (Option<u16>, Next, usize) {
        let mut learned = None;
        for round in 1.. {
            let sizes = search.sizes();
            let best = sizes.as_slice().iter().copied().filter(|size| *size <= takes).max().unwrap_or(0);
            let step = search.after(best);
            learned = step.learned.or(learned);
            match step.next {
                Next::Ask(next) => search = next,
                end => return (learned, end, round),
            }
        }
        (learned, Next::Silent, usize::MAX)
    }

    #[test]
    fn rfc8899_s5_2_a_path_that_takes_the_mtu_is_confirmed_in_one_round() {
        assert_eq!(run(Search::confirm(1500), 1500), (None, Next::Done, 1));
        assert_eq!(Search::confirm(1500).sizes().as_slice(), [1500]);
    }

    #[test]
    fn rfc8899_s4_3_a_black_hole_is_found_after_three_lost_rounds_with_smaller_answers() {
        let mut search = Search::confirm(1500);
        for expected in [&[1500][..], &[128, 576, 1200, 1500, 1500]] {
            assert_eq!(search.sizes().as_slice(), expected);
            let best = if expected.len() == 1 { 0 } else { 1200 };
            let step = search.after(best);
            assert_eq!(step.learned, None, "nothing is learned before the third round");
            assert!(matches!(step.next, Next::Ask(_)), "{step:?}");
            if let Next::Ask(next) = step.next {
                search = next;
            }
        }
        let sizes = search.sizes();
        assert_eq!(sizes.as_slice().iter().filter(|size| **size == 1500).count(), 3, "{sizes:?}");
        let step = search.after(1387);
        assert_eq!(step.learned, Some(1387));
        assert!(matches!(step.next, Next::Ask(Search::Narrow { low: 1387, .. })), "{step:?}");
    }

    #[test]
    fn a_silent_peer_proves_nothing() {
        assert_eq!(run(Search::confirm(1500), 0), (None, Next::Silent, 3));
        assert_eq!(run(Search::raise(1300, 1500), 0), (None, Next::Silent, 1));
        assert_eq!(run(Search::Verify { size: 576 }, 0), (None, Next::Inconclusive, 1));
    }

    #[test]
    fn a_path_that_takes_more_is_found_in_one_round() {
        assert_eq!(run(Search::raise(1300, 1500), 1500), (Some(1500), Next::Done, 1));
        assert_eq!(run(Search::raise(1300, 1500), 9000), (Some(1500), Next::Done, 1));
    }

    proptest! {
        #[test]
        fn every_path_mtu_is_found_to_the_byte(thought in 88u16.., takes in 128u16..) {
            let (learned, end, rounds) = run(Search::confirm(thought), takes);
            prop_assert!(rounds <= 9, "{rounds} rounds");
            prop_assert_eq!(end, Next::Done);
            if takes < thought {
                prop_assert_eq!(learned, Some(takes));
            } else {
                prop_assert_eq!(learned, None);
            }
        }

        #[test]
        fn every_increase_is_found_to_the_byte(low in 88u16..65_534, growth in 0u16.., top in 0u16..) {
            let takes = low.saturating_add(growth).min(65_534);
            let top = low.saturating_add(top).min(65_534).max(low + 1);
            let (learned, end, rounds) = run(Search::raise(low, top), takes);
            prop_assert!(rounds <= ROUNDS as usize, "{rounds} rounds");
            prop_assert_eq!(end, Next::Done);
            prop_assert_eq!(learned.unwrap_or(low), takes.min(top));
        }

        #[test]
        fn only_answered_sizes_are_learned(thought in 88u16.., bests in proptest::collection::vec(any::<prop::sample::Index>(), 12)) {
            let mut search = Search::confirm(thought);
            for best in bests {
                let sizes = search.sizes();
                let answered = [&[0], sizes.as_slice()].concat();
                let best = answered[best.index(answered.len())];
                let step = search.after(best);
                if let Some(learned) = step.learned {
                    prop_assert!(learned <= thought && answered.contains(&learned), "{learned}");
                }
                let Next::Ask(next) = step.next else { break };
                search = next;
            }
        }
    }
}
