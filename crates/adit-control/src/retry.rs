//! When to try again what has failed: soon at first, then less and less often.

use std::time::Duration;

use adit_tunnel::Instant;

/// How long after the first failure: soon, since the kernel may be half way through a change.
pub(crate) const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// The longest time between two attempts.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(30);

/// How long to wait after a failure that came after so many others. It doubles up to
/// [`LONGEST_INTERVAL`].
pub(crate) fn interval(failures: u32) -> Duration {
    FIRST_INTERVAL.saturating_mul(1 << failures.min(8)).min(LONGEST_INTERVAL)
}

/// The attempts at one thing.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    failures: u32,
    not_before: Option<Instant>,
}

impl Retry {
    /// Returns true if an attempt is due at `now`.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    /// Takes note of a failure at `now`.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.not_before = Some(now.saturating_add(interval(self.failures)));
        self.failures = self.failures.saturating_add(1);
    }

    /// Takes note of a success.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_failing_is_tried_less_and_less_often() {
        let milliseconds: Vec<u128> = (0..9).map(|failures| interval(failures).as_millis()).collect();
        assert_eq!(milliseconds, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert_eq!(interval(u32::MAX), LONGEST_INTERVAL);
    }

    #[test]
    fn a_success_ends_the_waiting() {
        let mut retry = Retry::default();
        let now = Instant::from_millis(1_000);
        assert!(retry.is_due(now));
        retry.failed(now);
        assert!(!retry.is_due(now));
        let later = now.saturating_add(FIRST_INTERVAL);
        assert!(retry.is_due(later));
        retry.failed(later);
        assert!(!retry.is_due(later.saturating_add(FIRST_INTERVAL)), "it waits longer");
        retry.succeeded();
        assert!(retry.is_due(later));
    }
}
