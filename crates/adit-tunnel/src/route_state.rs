//! Whether this host has a route to a peer's underlay address, as the data plane last saw it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Instant;

/// Since when there is no route, in milliseconds plus one; 0: there is one.
#[derive(Debug, Default)]
pub(crate) struct RouteState(AtomicU64);

impl RouteState {
    /// Records whether there is a route. Without one, the time of the first such call stays.
    pub(crate) fn set(&self, has_route: bool, now: Instant) {
        let is_missing = self.0.load(Relaxed) != 0;
        if is_missing == has_route {
            let since = if has_route { 0 } else { now.as_millis().saturating_add(1) };
            self.0.store(since, Relaxed);
        }
    }

    /// Since when there is none; `None`: there is one.
    pub(crate) fn missing_since(&self) -> Option<Instant> {
        self.0.load(Relaxed).checked_sub(1).map(Instant::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_a_route_is_missing_stays_until_it_is_back() {
        let at = Instant::from_millis;
        let route = RouteState::default();
        assert_eq!(route.missing_since(), None);
        for (has_route, now, expected) in
            [(true, 1, None), (false, 2, Some(at(2))), (false, 3, Some(at(2))), (true, 4, None)]
        {
            route.set(has_route, at(now));
            assert_eq!(route.missing_since(), expected, "at {now}");
        }
    }
}
