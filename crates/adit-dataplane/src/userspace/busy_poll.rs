//! How long a packet thread looks again before it sleeps. A sleep and a wake-up cost some 20 µs of
//! round trip where the processor goes idle, and cost the one who wakes it, too; between packets of
//! a busy flow they are not worth it. Whoever else wants the processor gets it meanwhile.

use std::time::{Duration, Instant};

/// Longer than the gap between two packets of a busy flow, shorter than a tick of the scheduler:
/// a thread without traffic sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// A bound on looking again.
pub(super) struct BusyPoll {
    since: Option<Instant>,
}

impl BusyPoll {
    pub(super) fn new() -> Self {
        Self { since: None }
    }

    /// There was work.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// There was none: `true` to look again, after others had their turn; `false` to sleep.
    #[inline]
    pub(super) fn spin(&mut self) -> bool {
        let since = *self.since.get_or_insert_with(Instant::now);
        std::thread::yield_now();
        since.elapsed() < SPIN
    }
}
