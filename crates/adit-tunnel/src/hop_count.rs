//! The number of routers on the path to a peer (RFC 2003 section 5), from the TTL of what arrives.

/// The usual initial TTLs of hosts and routers.
const INITIAL: [u8; 4] = [32, 64, 128, 255];

/// The length of the path from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopCount {
    /// Number of routers, if the peer sends with one of the usual TTLs (32, 64, 128, 255).
    pub hops: u8,
}

impl HopCount {
    /// The count that follows from the TTL of an outer header on arrival.
    #[must_use]
    pub fn of_ttl(ttl: u8) -> HopCount {
        let initial = INITIAL.into_iter().find(|initial| *initial >= ttl).unwrap_or(u8::MAX);
        HopCount { hops: initial - ttl }
    }

    /// The least outer TTL that reaches the peer, if the path there has as many routers: one more
    /// than there are, because the last one must not decrement it to 0.
    #[must_use]
    pub const fn ttl_needed(self) -> u8 {
        self.hops.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2003_s5_the_hop_count_follows_from_the_ttl_that_is_left() {
        for (ttl, hops, needed) in
            [(64, 0, 1), (63, 1, 2), (30, 2, 3), (65, 63, 64), (255, 0, 1), (129, 126, 127), (0, 32, 33)]
        {
            let length = HopCount::of_ttl(ttl);
            assert_eq!((length.hops, length.ttl_needed()), (hops, needed), "{ttl}");
        }
    }
}
