//! The one place on the packet path that reads a clock.

use adit_tunnel::Instant;

/// A monotonic clock in milliseconds since it was made. Reading costs some 20 ns.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    /// A clock that stands at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// What it shows.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(self.start.elapsed().as_millis() as u64)
    }
}
