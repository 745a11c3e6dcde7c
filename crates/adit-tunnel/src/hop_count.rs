//! How long the way to a peer is (RFC 2003 section 5), by what is left of the TTL of what comes from there.

/// What hosts and routers begin with.
const INITIAL: [u8; 4] = [32, 64, 128, 255];

/// The way from a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HopCount {
    /// Routers on it, if the peer sends with one of the usual TTLs (32, 64, 128, 255).
    pub hops: u8,
}

impl HopCount {
    /// By the TTL that an outer header has left on arrival.
    #[must_use]
    pub fn of_ttl(ttl: u8) -> HopCount {
        let initial = INITIAL.into_iter().find(|initial| *initial >= ttl).unwrap_or(u8::MAX);
        HopCount { hops: initial - ttl }
    }

    /// The least outer TTL that reaches the peer, if the way there is as long: one more than there are routers,
    /// since the last of them must not see it go out.
    #[must_use]
    pub const fn ttl_needed(self) -> u8 {
        self.hops.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc2003_s5_the_path_length_follows_from_the_ttl_that_is_left() {
        for (ttl, hops, needed) in
            [(64, 0, 1), (63, 1, 2), (30, 2, 3), (65, 63, 64), (255, 0, 1), (129, 126, 127), (0, 32, 33)]
        {
            let length = HopCount::of_ttl(ttl);
            assert_eq!((length.hops, length.ttl_needed()), (hops, needed), "{ttl}");
        }
    }
}
