//! The interface of a sender of frames to the underlay, many in one system call.
//!
//! A sender lends a frame. The caller writes a datagram behind the room for the link header,
//! commits the frame, and flushes when it has nothing more to send for now.

use std::io;

use crate::error::is_no_route;
use crate::sockets::virtio_net::PartialChecksum;

/// Bytes before the datagram in every frame: an Ethernet header.
pub const LINK_HEADER: usize = 14;

/// Bytes that are kept of a refused datagram: two IPv6 headers.
pub const REFUSED_LEN: usize = 80;

/// The outcome of the frames committed since the last [`FrameSender::take_sent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames the kernel took.
    pub taken: u64,
    /// Frames the kernel refused, whatever for.
    pub refused: u64,
    /// Those of them for which it has no route.
    pub without_route: u64,
    /// The `errno` of the last refusal; 0 if there was none.
    pub last_errno: i32,
    /// The first bytes of the last datagram that was refused, where the sender knows it.
    pub last_refused: Option<[u8; REFUSED_LEN]>,
}

impl Sent {
    pub(crate) fn refuse(&mut self, error: &io::Error) {
        self.refused += 1;
        self.last_errno = error.raw_os_error().unwrap_or(libc::EIO);
        self.without_route += u64::from(is_no_route(self.last_errno));
    }
}

/// A sender of frames to the underlay. It is not shared: each thread has its own.
pub trait FrameSender {
    /// Returns the longest datagram a frame holds, in bytes.
    fn capacity(&self) -> usize;

    /// Returns true if the kernel completes partial checksums. If not, the caller completes them
    /// before it commits.
    fn completes_checksums(&self) -> bool;

    /// Lends the next free frame: [`LINK_HEADER`] bytes, then the datagram. Sends the committed
    /// frames first if none is free.
    fn frame(&mut self) -> &mut [u8];

    /// Queues the frame lent last. `len` counts the bytes of the datagram only, and the offsets of
    /// `checksum` count from its first byte. The caller has written the link header, unless the
    /// kernel routes the datagram itself.
    fn commit(&mut self, len: usize, checksum: Option<PartialChecksum>);

    /// Sends all committed frames: one system call for many frames.
    fn flush(&mut self);

    /// Returns the outcome of the frames since the last call.
    fn take_sent(&mut self) -> Sent;
}
