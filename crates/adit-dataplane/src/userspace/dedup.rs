//! Removes duplicates while reception moves from one socket to another: for a moment both get the
//! same datagrams.

use std::hash::{BuildHasher, RandomState};

use adit_wire::Validation;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{self, Ipv6Packet};

/// Datagrams without a duplicate after which the moment is over. More than one, because several
/// processors deliver, each in its own order.
const MAX_UNMATCHED: usize = 64;

/// Datagrams that the first socket has delivered since the second receives too.
#[derive(Clone, Debug, Default)]
pub(super) struct HandoverDedup {
    hasher: RandomState,
    delivered: Vec<u64>,
    unmatched: usize,
}

impl HandoverDedup {
    /// Records an outer datagram that the first socket delivers.
    pub(super) fn record(&mut self, outer: &[u8]) {
        self.delivered.push(self.mark(outer));
    }

    /// Number of datagrams that are recorded.
    pub(super) fn len(&self) -> usize {
        self.delivered.len()
    }

    /// Forgets all but the last `queued` of those after the first `before`. `queued` is the number
    /// of datagrams that wait in the second socket: no others can have a duplicate there. Without
    /// this, the second of two equal datagrams might count as a duplicate.
    pub(super) fn keep_last(&mut self, queued: usize, before: usize) {
        let kept_from = self.delivered.len().saturating_sub(queued).max(before);
        self.delivered.drain(before..kept_from);
    }

    /// Whether the first socket has delivered this datagram of the second one.
    #[inline]
    pub(super) fn is_duplicate(&mut self, outer: &[u8]) -> bool {
        !self.delivered.is_empty() && self.is_recorded(outer)
    }

    #[cold]
    fn is_recorded(&mut self, outer: &[u8]) -> bool {
        let mark = self.mark(outer);
        if let Some(at) = self.delivered.iter().position(|delivered| *delivered == mark) {
            self.delivered.swap_remove(at);
            return true;
        }
        self.unmatched += 1;
        if self.unmatched == MAX_UNMATCHED {
            self.delivered = Vec::new();
        }
        false
    }

    /// The hash of a datagram without its padding, which only one of the sockets receives.
    fn mark(&self, outer: &[u8]) -> u64 {
        let len = if ipv6::is_ipv6(outer) {
            Ipv6Packet::parse(outer, Validation::Lenient).ok().map(|packet| packet.total_len())
        } else {
            Ipv4Packet::parse(outer, Validation::Lenient).ok().map(|datagram| datagram.total_len())
        };
        let len = len.unwrap_or(outer.len());
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
    fn a_delivered_datagram_is_a_duplicate_once() {
        let mut dedup = HandoverDedup::default();
        for number in 0..4 {
            dedup.record(&datagram(number));
        }
        assert!(dedup.is_duplicate(&datagram(2)));
        assert!(!dedup.is_duplicate(&datagram(2)), "the sender has repeated itself");
        assert!(dedup.is_duplicate(&datagram(3)[..40]), "padding is not part of the datagram");
        assert!(!dedup.is_duplicate(&datagram(4)));
    }

    #[test]
    fn a_sender_may_repeat_a_datagram() {
        let mut dedup = HandoverDedup::default();
        for number in [7, 7, 7, 8] {
            dedup.record(&datagram(number));
        }
        dedup.keep_last(2, 0);
        dedup.record(&datagram(9));
        dedup.keep_last(2, 2);
        assert!([7, 8, 9].into_iter().all(|number| dedup.is_duplicate(&datagram(number))));
        assert!(!dedup.is_duplicate(&datagram(7)), "one more of the same");
    }

    #[test]
    fn records_are_forgotten_when_the_handover_is_over() {
        let mut dedup = HandoverDedup::default();
        dedup.record(&datagram(200));
        for number in 0..MAX_UNMATCHED as u8 {
            assert!(!dedup.is_duplicate(&datagram(number)));
        }
        assert!(!dedup.is_duplicate(&datagram(200)));
    }
}
