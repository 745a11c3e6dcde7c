//! The end of a process whose threads stand still, which nobody could end otherwise. Two threads
//! look, the runtime and the reconciler, so that each is seen by the other.
//!
//! Whoever supervises the process starts it again. Programs in the kernel forward on, and what the
//! process has made stays, as after a kill.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use adit_dataplane::liveness::Liveness;

/// How long writing the reason to the log may take: a pipe that nobody reads may be what a thread
/// waits for.
const LOG_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks at the threads of this process again and again.
pub(crate) struct ThreadCheck {
    liveness: Liveness,
    interval: Duration,
    looked: Instant,
}

impl ThreadCheck {
    /// For a caller that looks once per `interval`, or more often.
    pub(crate) fn every(interval: Duration) -> Self {
        Self { liveness: Liveness::default(), interval, looked: Instant::now() }
    }

    /// Ends the process if a thread has stood still for longer than it may.
    pub(crate) fn check(&mut self) {
        // A process that was stopped as a whole has no thread that stands still.
        let elapsed = std::mem::replace(&mut self.looked, Instant::now()).elapsed();
        if let Some(stuck) = self.liveness.look(elapsed.min(2 * self.interval)) {
            let limit = stuck.limit.as_secs();
            end_process(format!("the thread {} has not moved for {limit} s", stuck.name));
        }
    }
}

/// Ends the process, to be started again.
pub(crate) fn end_process(why: String) -> ! {
    let (logged, is_logged) = mpsc::channel();
    // If there is no room for a thread, it ends without a word.
    let logger = thread::Builder::new().spawn(move || {
        tracing::error!(why, "the daemon ends, to be started again");
        let _ = logged.send(());
    });
    if logger.is_ok() {
        let _ = is_logged.recv_timeout(LOG_TIMEOUT);
    }
    std::process::exit(1);
}
