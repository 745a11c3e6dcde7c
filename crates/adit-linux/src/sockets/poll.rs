//! Waiting for something to read, or to be told to stop.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;

/// Wakes every thread that waits with it, for good: it is never reset.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// One that has not been woken.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, Error> {
        // SAFETY: a plain system call; the descriptor it returns is ours alone.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last_os("cannot make an eventfd"));
        }
        // SAFETY: `fd` was just returned by the kernel and belongs to nobody else.
        Ok(Self { event: Arc::new(unsafe { OwnedFd::from_raw_fd(fd) }) })
    }

    /// Wakes all who wait, now and later.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes of `one`, which outlives the call. It can only fail when the
        // counter is full, and then everybody is awake.
        let _ = unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// Tells one thread that something waits for it, as often as there is something.
#[derive(Clone, Debug)]
pub struct Bell {
    event: Waker,
}

impl Bell {
    /// One that nobody has rung.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn new() -> Result<Self, Error> {
        Ok(Self { event: Waker::new()? })
    }

    /// It can be read from now on, until it is heard.
    pub fn ring(&self) {
        self.event.wake();
    }

    /// Waits for the next time. To be called before what waits is looked at.
    pub fn hear(&self) {
        let mut count = [0; 8];
        // SAFETY: eight bytes of `count`, which outlives the call. It fails where nobody has rung.
        let _ = unsafe { libc::read(self.event.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.event.as_fd()
    }
}

/// Waits until `source` can be read or `waker` has been woken.
pub fn wait_readable(source: &impl AsFd, waker: &Waker) {
    let _ = wait_any(&[source.as_fd().as_raw_fd(), waker.event.as_raw_fd()], None);
}

/// Waits until one of `sources` can be read, `waker` has been woken, or the time is up.
///
/// # Errors
/// What the kernel says; never `EINTR`, which counts as a wake-up.
pub fn wait_readable_any(
    sources: &[std::os::fd::BorrowedFd<'_>],
    waker: &Waker,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let mut fds: Vec<i32> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    fds.push(waker.event.as_raw_fd());
    wait_any(&fds, timeout).map(drop)
}

/// Waits until one of `sources` can be read, or the time is up.
///
/// # Errors
/// What the kernel says; never `EINTR`, at which it returns.
pub fn readable_any_within(sources: &[std::os::fd::BorrowedFd<'_>], patience: Duration) -> io::Result<bool> {
    let fds: Vec<i32> = sources.iter().map(AsRawFd::as_raw_fd).collect();
    wait_any(&fds, Some(patience))
}

/// Waits until `source` can be read; `false` when the time is up first.
///
/// # Errors
/// What the kernel says.
pub fn readable_within(source: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let deadline = std::time::Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let ready = wait_any(&[source.as_fd().as_raw_fd()], Some(left))?;
        if ready || left.is_zero() {
            return Ok(ready);
        }
    }
}

/// Whether one of them is ready; not so when the time is up, or at a signal.
fn wait_any(fds: &[i32], timeout: Option<Duration>) -> io::Result<bool> {
    const MOST: usize = 8;
    let mut polls = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MOST];
    for (poll, &fd) in polls.iter_mut().zip(fds) {
        poll.fd = fd;
    }
    let timeout = timeout.map_or(-1, |timeout| timeout.as_millis().try_into().unwrap_or(i32::MAX));
    // SAFETY: `polls` holds at least the number of entries given and outlives the call.
    let done = unsafe { libc::poll(polls.as_mut_ptr(), fds.len().min(MOST) as libc::nfds_t, timeout) };
    if done >= 0 {
        return Ok(done > 0);
    }
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
}
