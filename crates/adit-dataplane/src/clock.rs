//! The one place on the packet path that reads a clock.
//!
//! It counts from the machine's boot, as the kernel's programs do: what one of them, or an earlier process,
//! has noted can be compared with now.

use adit_linux::clock::monotonic;
use adit_tunnel::Instant;

/// `CLOCK_MONOTONIC`, in milliseconds. Reading costs some 20 ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// What it shows.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(monotonic().as_millis() as u64)
    }
}
