//! Busy polling: a packet thread looks again for a moment before it sleeps. A sleep and a wake-up
//! add some 20 µs to the round trip where the processor goes idle, and cost the thread that wakes
//! it as well. Between two looks other threads get the processor.

use std::time::{Duration, Instant};

/// Longer than the gap between two packets of a busy flow, and shorter than a tick of the
/// scheduler, so that a thread without traffic sleeps.
const SPIN_TIMEOUT: Duration = Duration::from_micros(50);

/// The time that a thread has been looking in vain.
pub(super) struct BusyPoll {
    since: Option<Instant>,
}

impl BusyPoll {
    pub(super) fn new() -> Self {
        Self { since: None }
    }

    /// Call this when there was work.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// Call this when there was none. Yields the processor, then returns true to look again and
    /// false to sleep.
    #[inline]
    pub(super) fn spin(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        std::thread::yield_now();
        since.elapsed() < SPIN_TIMEOUT
    }
}
