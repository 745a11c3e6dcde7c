//! Measuring how a transfer survives a path MTU black hole
//! ([`adit_lab::router::Router::black_hole`]).

use std::time::{Duration, Instant};

use crate::transfer::Transfer;
use adit_lab::LabError;
use adit_lab::host::Host;

/// Bytes that a receiver may queue, see [`limit_receive_buffer`].
const RECEIVE_BUFFER: u64 = 256 << 10;
/// Bytes of progress that must include some sent after the hole opened.
const PROGRESS: u64 = 4 * RECEIVE_BUFFER;
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Limits the receive buffers of this host's TCP, so that bytes which passed before a hole opened
/// do not count as progress after it. Call it before a transfer starts.
///
/// # Errors
/// Fails if the kernel refuses the sysctl.
pub fn limit_receive_buffer(host: &Host) -> Result<(), LabError> {
    host.sysctl("ipv4/tcp_rmem", &format!("4096 131072 {RECEIVE_BUFFER}"))
}

/// Waits until the transfer has made progress since the call, and returns how long that took, or
/// `None` if it takes longer than `timeout`. Call it right after the hole opens.
#[must_use]
pub fn time_to_recover(transfer: &Transfer, timeout: Duration) -> Option<Duration> {
    let (start, from) = (Instant::now(), transfer.received());
    while transfer.received() < from + PROGRESS {
        if start.elapsed() > timeout {
            return None;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Some(start.elapsed())
}
