//! Which entries of the map of paths are in use. Pure.
//!
//! A program may go on with an entry for a moment after the last peer has left it, so an entry is
//! written again only when every program that can have seen it has ended.

use adit_policy::PeerIndex;

/// See the module.
#[derive(Debug)]
pub(super) struct PathSlots {
    /// By peer.
    current: Vec<u32>,
    free: Vec<u32>,
    /// Left by their peers since the last wait.
    left: Vec<u32>,
}

impl PathSlots {
    /// Entries of a map for so many peers: one for each, and one for each to change to.
    pub(super) fn count_for(peers: usize) -> usize {
        peers * 2
    }

    /// Each peer has the entry with its own number.
    pub(super) fn new(peers: usize) -> Self {
        let peers = peers as u32;
        Self { current: (0..peers).collect(), free: (peers..peers * 2).rev().collect(), left: Vec::new() }
    }

    /// The entry of a peer.
    pub(super) fn of(&self, peer: PeerIndex) -> Option<u32> {
        self.current.get(peer.index()).copied()
    }

    /// An entry that no program can see. `wait` returns when all programs have ended that run now;
    /// it is called only if no other entry is free.
    pub(super) fn free(&mut self, wait: impl FnOnce()) -> Option<u32> {
        if self.free.is_empty() {
            wait();
            self.free.append(&mut self.left);
        }
        self.free.last().copied()
    }

    /// The peer has left its entry for the one that [`PathSlots::free`] named.
    pub(super) fn change(&mut self, peer: PeerIndex) {
        if let (Some(current), Some(next)) = (self.current.get_mut(peer.index()), self.free.pop()) {
            self.left.push(std::mem::replace(current, next));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of what programs may still see.
        #[test]
        fn no_entry_is_given_away_that_a_program_may_see(
            changes in proptest::collection::vec(0..5u32, 1..60)
        ) {
            let mut slots = PathSlots::new(5);
            let mut visible: BTreeSet<u32> = (0..5).collect();
            for peer in changes.into_iter().map(PeerIndex::new) {
                let in_use: Vec<u32> = (0..5).filter_map(|peer| slots.of(PeerIndex::new(peer))).collect();
                let next = slots.free(|| visible = in_use.into_iter().collect());
                let next = next.expect("there is one for each peer");
                prop_assert!(visible.insert(next), "{} is in use", next);
                prop_assert!((next as usize) < PathSlots::count_for(5));
                slots.change(peer);
                prop_assert_eq!(slots.of(peer), Some(next));
            }
        }
    }
}
