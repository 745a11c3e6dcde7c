//! The one place on the packet path that reads a clock.
//!
//! It counts from the machine's boot, as the kernel's programs do: what one of them, or an earlier process,
//! has noted can be compared with now.
//!
//! Time in which the machine sleeps is not counted (`CLOCK_MONOTONIC`, not `CLOCK_BOOTTIME`). RFC 1191 section 6.3 sets
//! how soon a path MTU may be forgotten at the earliest, so the slower clock keeps to it; the path may be another one
//! after hours, but that a path takes less is found as ever, and that it takes more is not urgent. And at the first look
//! after waking, peers have not been silent for hours in which nobody could have heard them.

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
