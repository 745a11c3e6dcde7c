//! Time as an argument: the tunnel reads no clock, its caller does.

use std::time::Duration;

/// A point in time, in milliseconds since any fixed point that the caller chose and never changes
/// (the process's start, the boot of the machine). All times given to one [`Tunnel`](crate::Tunnel)
/// count from the same point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The fixed point itself.
    pub const ZERO: Instant = Instant(0);

    /// `millis` milliseconds after the fixed point.
    #[inline]
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis)
    }

    /// Milliseconds since the fixed point.
    #[inline]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant `duration` later, or `None` past the end of time. Parts of a millisecond are cut
    /// off.
    #[inline]
    pub fn checked_add(self, duration: Duration) -> Option<Instant> {
        let millis = u64::try_from(duration.as_millis()).ok()?;
        self.0.checked_add(millis).map(Instant)
    }

    /// The instant `duration` later, at most the end of time.
    #[inline]
    pub fn saturating_add(self, duration: Duration) -> Instant {
        self.checked_add(duration).unwrap_or(Instant(u64::MAX))
    }

    /// How long after `earlier` this is; zero if it is not after it (two threads may have read the
    /// clock in either order).
    #[inline]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_never_panics() {
        let late = Instant::from_millis(u64::MAX - 1);
        assert_eq!(late.checked_add(Duration::from_millis(2)), None);
        assert_eq!(late.saturating_add(Duration::MAX), Instant::from_millis(u64::MAX));
        assert_eq!(Instant::ZERO.since(late), Duration::ZERO);
        assert_eq!(Instant::from_millis(1500).since(Instant::from_millis(500)), Duration::from_secs(1));
    }
}
