//! Waiting for descriptors, and the event descriptors that end such a wait.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Error;

/// The most descriptors one call waits for.
const MAX_SOURCES: usize = 8;

/// A stop signal for threads: once woken, it stays readable and ends every wait, now and later.
/// Clones share the signal.
#[derive(Clone, Debug)]
pub struct Waker {
    event: EventFd,
}

impl Waker {
    /// Creates one that has not been woken.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { event: EventFd::new()? })
    }

    /// Ends the waits of all threads, now and later.
    pub fn wake(&self) {
        self.event.notify();
    }
}

/// An eventfd (`eventfd(2)`): readable from a [`notify`](Self::notify) until the next
/// [`drain`](Self::drain). Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct EventFd {
    fd: Arc<OwnedFd>,
}

impl EventFd {
    /// Creates one that is not readable.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: a plain system call; the descriptor it returns belongs to this value alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last_os("cannot create an eventfd"));
        }
        // SAFETY: `fd` was just returned by the kernel and has no other owner.
        Ok(Self { fd: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Makes the descriptor readable.
    pub fn notify(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of `one`, which outlives the call. It fails only when the counter is
        // full, and then the descriptor is readable anyway.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes the descriptor unreadable. Call it before looking at what was notified about, so that
    /// a notification in between is not lost.
    pub fn drain(&self) {
        let mut count = [0; 8];
        // SAFETY: eight bytes of `count`, which outlives the call. It fails when nothing notified.
        let _ = unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until one of `sources` is readable, `waker` has been woken, or `timeout` has passed. A
/// signal ends the wait too. Only the first seven sources are watched. Allocates nothing.
///
/// # Errors
/// The kernel refuses to wait. Whoever tries again at once never sleeps.
pub fn wait_readable(sources: &[impl AsFd], waker: &Waker, timeout: Duration) -> io::Result<()> {
    let mut fds = [waker.event.fd.as_raw_fd(); MAX_SOURCES];
    let count = sources.len().min(MAX_SOURCES - 1);
    for (fd, source) in fds.iter_mut().zip(&sources[..count]) {
        *fd = source.as_fd().as_raw_fd();
    }
    wait_any(&fds[..=count], timeout).map(drop)
}

/// Waits until `source` is readable. Returns false if `timeout` passes first; a signal does not end
/// the wait.
///
/// # Errors
/// The kernel refuses to wait.
pub fn readable_within(source: &impl AsFd, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up to milliseconds, so that the last one is not spent spinning.
        let rounded = Duration::from_millis(left.as_micros().div_ceil(1000) as u64);
        let ready = wait_any(&[source.as_fd().as_raw_fd()], rounded)?;
        if ready || left.is_zero() {
            return Ok(ready);
        }
    }
}

/// Returns true if one of `fds` is ready, false after `timeout` or a signal.
fn wait_any(fds: &[i32], timeout: Duration) -> io::Result<bool> {
    let mut polls = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_SOURCES];
    for (poll, &fd) in polls.iter_mut().zip(fds) {
        poll.fd = fd;
    }
    let timeout = timeout.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: `polls` holds at least the number of entries given and outlives the call.
    let done = unsafe { libc::poll(polls.as_mut_ptr(), fds.len().min(MAX_SOURCES) as libc::nfds_t, timeout) };
    if done >= 0 {
        return Ok(done > 0);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
}
