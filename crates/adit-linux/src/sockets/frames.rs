//! Frames on their way to the underlay, many in one system call. A sender lends a frame, the
//! caller writes a datagram behind the room for the link header, commits it, and flushes when
//! there is nothing more to send for now.

use std::io;

use crate::sockets::virtio_net::PartialChecksum;

/// Bytes before the datagram in every frame: an Ethernet header.
pub const LINK_HEADER: usize = 14;

/// What became of committed frames since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames the kernel took.
    pub taken: u64,
    /// Frames it refused.
    pub refused: u64,
    /// The `errno` of the last refusal, 0 when there was none.
    pub last_errno: i32,
}

impl Sent {
    pub(crate) fn refuse(&mut self, error: &io::Error) {
        self.refused += 1;
        self.last_errno = error.raw_os_error().unwrap_or(libc::EIO);
    }
}

/// A way out to the underlay. Not shared: each thread has its own.
pub trait FrameSender {
    /// The longest datagram a frame holds, in bytes.
    fn capacity(&self) -> usize;

    /// Whether the kernel completes checksums; where not, the caller does before it commits.
    fn completes_checksums(&self) -> bool;

    /// The next free frame, [`LINK_HEADER`] bytes before the datagram. Sends what has been
    /// committed when no frame is free.
    fn frame(&mut self) -> &mut [u8];

    /// Queues the frame that was last lent. `len` counts the datagram only, and so do the
    /// offsets of `checksum`. The link header is ours to have been written, unless the kernel
    /// routes the datagram itself.
    fn commit(&mut self, len: usize, checksum: Option<PartialChecksum>);

    /// Sends all that was committed: one system call for many frames.
    fn flush(&mut self);

    /// What became of the frames since the last call.
    fn take_sent(&mut self) -> Sent;
}
