//! The clock of the packet path. Nothing else there reads one.
//!
//! It counts from the machine's boot, as the programs in the kernel do. So a time that a program or
//! an earlier process has noted can be compared with now.
//!
//! It does not count the time in which the machine sleeps (`CLOCK_MONOTONIC`, not
//! `CLOCK_BOOTTIME`). RFC 1191 section 6.3 sets the earliest time at which a path MTU may be
//! forgotten, and the slower clock keeps to it. The path may have changed after hours: a smaller
//! MTU is found as always, and a larger one is not urgent. And no peer appears to have been silent
//! for hours in which nobody could receive from it.

use adit_linux::clock::monotonic;
use adit_tunnel::Instant;

/// `CLOCK_MONOTONIC` in milliseconds. A reading costs some 20 ns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// The time now.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::from_millis(monotonic().as_millis() as u64)
    }
}
