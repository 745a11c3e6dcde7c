//! Ending another process, first by asking and then by force.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};

/// Ends a process: sends SIGTERM, and SIGKILL if it still runs after `timeout`. Returns when it has
/// ended, and at once if there is no such process.
///
/// # Errors
/// This process may not signal it, or `pid` is not positive.
pub fn end(pid: i32, timeout: Duration) -> Result<()> {
    let failed = |error| Error::new(format!("cannot end process {pid}"), error);
    if pid <= 0 {
        // For kill(2), 0 and negative numbers are process groups.
        return Err(
            failed(io::Error::from_raw_os_error(libc::EINVAL)).with_hint("a process has a positive number")
        );
    }
    // A pidfd keeps meaning this process, even if its number is reused.
    // SAFETY: a plain system call without memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(failed(error)) };
    }
    // SAFETY: `fd` was just returned by the kernel and has no other owner.
    let process = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    for (signal, timeout) in [(libc::SIGTERM, Some(timeout)), (libc::SIGKILL, None)] {
        // SAFETY: a plain system call; with a null `siginfo` it acts as kill(2).
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(()),
                Some(libc::EPERM) => Err(failed(error).with_hint("run as its user or as root")),
                _ => Err(failed(error)),
            };
        }
        if has_ended_within(&process, timeout).map_err(failed)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until the process has ended: its pidfd is then readable. Returns false if `timeout` passes
/// first.
fn has_ended_within(process: &OwnedFd, timeout: Option<Duration>) -> io::Result<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up, so that the last millisecond is not spent spinning.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
