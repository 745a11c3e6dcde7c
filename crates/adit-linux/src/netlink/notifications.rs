//! Notice that something has changed, from a multicast group of any netlink protocol. What has
//! changed is for the reader to look up.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::error::{Error, Result};

/// Bytes of the kernel's memory for notifications that wait to be read.
const RECEIVE_BUFFER: usize = 1 << 20;
/// Bytes of a notification that are read; the rest is dropped.
const READ_LEN: usize = 64;
/// Notifications that one call reads, so that a storm of changes does not hold the caller.
const MAX_READS: usize = 4096;

/// A subscription to a multicast group. Subscribe first and read the state after it; then no change
/// in between is missed.
#[derive(Debug)]
pub struct Notifications(netlink_sys::Socket);

impl Notifications {
    /// Subscribes to a group in the calling thread's network namespace.
    pub(crate) fn open(protocol: isize, group: u32) -> Result<Self> {
        let failed = |error| Error::new("cannot subscribe to changes", error).needing("CAP_NET_ADMIN");
        let mut socket = netlink_sys::Socket::new(protocol).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        socket.set_non_blocking(true).map_err(failed)?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER).map_err(failed)?;
        socket.add_membership(group).map_err(failed)?;
        Ok(Self(socket))
    }

    /// Reads what is queued, up to a bound. Returns true if something may have changed since the
    /// last call.
    pub fn any(&mut self) -> bool {
        let mut any = false;
        let mut buffer = [0; READ_LEN];
        for _ in 0..MAX_READS {
            match self.0.recv(&mut &mut buffer[..], 0) {
                Ok(_) => any = true,
                // Notifications were lost.
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => any = true,
                Err(_) => break,
            }
        }
        any
    }
}

impl AsFd for Notifications {
    /// The descriptor is readable when [`Notifications::any`] returns true.
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open as long as `self`, which the result borrows.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}
