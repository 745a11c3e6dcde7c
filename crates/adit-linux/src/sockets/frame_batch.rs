//! A batch of frames for `sendmmsg(2)`: one piece of memory, and the message headers that point
//! into it.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::sockets::frames::{LINK_HEADER, Sent};

/// Frames of one size. The message headers for `sendmmsg` are prepared once.
pub(crate) struct FrameBatch {
    arena: Box<[u8]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
    stride: usize,
    /// Bytes that are sent before the link header.
    prefix: usize,
    pub(crate) capacity: usize,
    committed: usize,
}

// SAFETY: the raw pointers point only to heap memory that the batch owns, and after `set_names` and
// `set_controls` to memory that its owner boxes beside it.
unsafe impl Send for FrameBatch {}

impl FrameBatch {
    /// Allocates `count` frames for datagrams of at most `capacity` bytes, with `prefix` bytes
    /// before the link header.
    pub(crate) fn new(capacity: usize, count: usize, prefix: usize) -> Self {
        let stride = (prefix + LINK_HEADER + capacity).next_multiple_of(64) + 64;
        let mut arena = vec![0u8; stride * count].into_boxed_slice();
        let base = arena.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..count)
            .map(|slot| libc::iovec {
                // SAFETY: slot * stride lies inside the arena, which has count * stride bytes.
                iov_base: unsafe { base.add(slot * stride) }.cast(),
                iov_len: 0,
            })
            .collect();
        // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
        let mut messages: Box<[libc::mmsghdr]> = (0..count).map(|_| unsafe { std::mem::zeroed() }).collect();
        for (slot, message) in messages.iter_mut().enumerate() {
            message.msg_hdr.msg_iov = &raw mut vectors[slot];
            message.msg_hdr.msg_iovlen = 1;
        }
        Self { arena, vectors, messages, stride, prefix, capacity, committed: 0 }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.committed == self.messages.len()
    }

    /// Returns the number of the frame that is being filled.
    pub(crate) fn slot(&self) -> usize {
        self.committed
    }

    #[inline]
    pub(crate) fn frame(&mut self) -> &mut [u8] {
        let start = self.committed * self.stride + self.prefix;
        &mut self.arena[start..start + LINK_HEADER + self.capacity]
    }

    /// The room for a datagram in a frame.
    fn datagram(&self, slot: usize) -> &[u8] {
        let start = slot * self.stride + self.prefix + LINK_HEADER;
        self.arena.get(start..start + self.capacity).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn prefix(&mut self) -> &mut [u8] {
        let start = self.committed * self.stride;
        &mut self.arena[start..start + self.prefix]
    }

    /// Sends the frames without their first `bytes` bytes.
    pub(crate) fn skip_front(&mut self, bytes: usize) {
        for (slot, vector) in self.vectors.iter_mut().enumerate() {
            // SAFETY: a slot is longer than the link header, and callers skip no more than that.
            vector.iov_base = unsafe { self.arena.as_mut_ptr().add(slot * self.stride + bytes) }.cast();
        }
    }

    /// Gives every message its own destination in `names`, socket addresses of one family. The
    /// caller keeps `names` where it is.
    pub(crate) fn set_names<T>(&mut self, names: &mut [T]) {
        for (message, name) in self.messages.iter_mut().zip(names) {
            message.msg_hdr.msg_name = (name as *mut T).cast();
            message.msg_hdr.msg_namelen = size_of::<T>() as u32;
        }
    }

    /// Gives every message its own control message in `controls`. The caller keeps `controls` where
    /// it is.
    pub(crate) fn set_controls<T>(&mut self, controls: &mut [T]) {
        for (message, control) in self.messages.iter_mut().zip(controls) {
            message.msg_hdr.msg_control = (control as *mut T).cast();
            message.msg_hdr.msg_controllen = size_of::<T>() as _;
        }
    }

    #[inline]
    pub(crate) fn commit(&mut self, bytes: usize) {
        self.vectors[self.committed].iov_len = bytes;
        self.committed += 1;
    }

    /// Sends all committed frames. A frame that the kernel refuses is counted and left out.
    pub(crate) fn send(&mut self, socket: &OwnedFd, sent: &mut Sent) {
        let mut next = 0;
        while next < self.committed {
            // SAFETY: messages next..committed point to iovecs and frames that `self` owns and
            // that stay where they are during the call.
            let taken = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.messages[next..].as_mut_ptr(),
                    (self.committed - next) as u32,
                    0,
                )
            };
            if taken > 0 {
                sent.taken += taken as u64;
                next += taken as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            // The error is about the first message left. When there is no room, it holds for all.
            let refused = match error.kind() {
                io::ErrorKind::Interrupted => 0,
                io::ErrorKind::WouldBlock => self.committed - next,
                _ => 1,
            };
            (0..refused).for_each(|_| sent.refuse(&error));
            next += refused;
            if refused > 0 {
                sent.last_refused = self.datagram(next - 1).first_chunk().copied();
            }
        }
        self.committed = 0;
    }
}
