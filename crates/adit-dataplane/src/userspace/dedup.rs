//! Two sockets that hear the same for a moment: what one has handed up the other must not hand up again.

use std::hash::{BuildHasher, RandomState};

use adit_wire::Validation;
use adit_wire::ipv4::Ipv4Packet;

/// So many datagrams that the first socket has not had show that the moment is over. More than one, because
/// several processors deliver, each in its own order.
const FOREIGN: usize = 64;

/// What the first socket has handed up since the second hears too.
#[derive(Debug, Default)]
pub(super) struct HandoverDedup {
    hasher: RandomState,
    handed_up: Vec<u64>,
    foreign: usize,
}

impl HandoverDedup {
    /// The first socket hands up this outer datagram.
    pub(super) fn note(&mut self, outer: &[u8]) {
        self.handed_up.push(self.mark(outer));
    }

    /// The second socket has heard so many by now: only as many of those noted can be among them. Without that,
    /// one of two equal datagrams might be taken for the other's echo.
    pub(super) fn keep_last(&mut self, heard: usize) {
        self.handed_up.drain(..self.handed_up.len().saturating_sub(heard));
    }

    /// Whether the second socket has got what the first has handed up.
    #[inline]
    pub(super) fn is_duplicate(&mut self, outer: &[u8]) -> bool {
        !self.handed_up.is_empty() && self.is_noted(outer)
    }

    #[cold]
    fn is_noted(&mut self, outer: &[u8]) -> bool {
        let mark = self.mark(outer);
        if let Some(at) = self.handed_up.iter().position(|noted| *noted == mark) {
            self.handed_up.swap_remove(at);
            return true;
        }
        self.foreign += 1;
        if self.foreign == FOREIGN {
            self.handed_up = Vec::new();
        }
        false
    }

    /// Without padding, which only one of them gets to see.
    fn mark(&self, outer: &[u8]) -> u64 {
        let datagram = Ipv4Packet::parse(outer, Validation::Lenient).ok();
        let len = datagram.map_or(outer.len(), |datagram| datagram.total_len());
        self.hasher.hash_one(outer.get(..len).unwrap_or(outer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(number: u8) -> Vec<u8> {
        let mut bytes = vec![0; 46];
        bytes[0] = 0x45;
        bytes[3] = 40;
        bytes[39] = number;
        bytes
    }

    #[test]
    fn what_was_handed_up_comes_once_again_at_most() {
        let mut dedup = HandoverDedup::default();
        for number in 0..4 {
            dedup.note(&datagram(number));
        }
        assert!(dedup.is_duplicate(&datagram(2)));
        assert!(!dedup.is_duplicate(&datagram(2)), "the sender has repeated itself");
        assert!(dedup.is_duplicate(&datagram(3)[..40]), "padding is none of the datagram's");
        assert!(!dedup.is_duplicate(&datagram(4)));
    }

    #[test]
    fn equal_datagrams_are_told_apart() {
        let mut dedup = HandoverDedup::default();
        for number in [7, 7, 7, 8] {
            dedup.note(&datagram(number));
        }
        dedup.keep_last(2);
        assert!(dedup.is_duplicate(&datagram(7)) && dedup.is_duplicate(&datagram(8)));
        assert!(!dedup.is_duplicate(&datagram(7)), "one more of the same");
    }

    #[test]
    fn the_moment_ends() {
        let mut dedup = HandoverDedup::default();
        dedup.note(&datagram(200));
        for number in 0..FOREIGN as u8 {
            assert!(!dedup.is_duplicate(&datagram(number)));
        }
        assert!(!dedup.is_duplicate(&datagram(200)));
    }
}
