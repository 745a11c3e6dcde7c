//! Batches of UDP datagrams, sent or received in one system call, for load generators.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::sockets::options::enlarge_receive_buffer;

const RECEIVE_TIMEOUT: Duration = Duration::from_millis(20);

/// A sender of the same datagram, many times in a call.
pub struct UdpBatchSender<'a> {
    socket: &'a UdpSocket,
    // Pointed to by `messages`.
    _vector: Box<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

impl<'a> UdpBatchSender<'a> {
    /// Prepares batches of `count` datagrams with this payload, over a connected socket.
    #[must_use]
    pub fn new(socket: &'a UdpSocket, count: usize, payload: &'a [u8]) -> Self {
        let mut vector =
            Box::new(libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() });
        let messages = (0..count)
            .map(|_| {
                // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = &raw mut *vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { socket, _vector: vector, messages }
    }

    /// Sends a batch and returns how many datagrams the kernel took. Waits while the socket's
    /// buffer is full.
    pub fn send(&mut self) -> usize {
        // SAFETY: the messages point to one iovec that `self` owns, which points to a payload
        // that outlives `self`; sending only reads it.
        let sent = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), self.messages.as_mut_ptr(), self.messages.len() as u32, 0)
        };
        usize::try_from(sent).unwrap_or(0)
    }
}

/// A receiver of many datagrams in a call.
pub struct UdpBatchReceiver<'a> {
    socket: &'a UdpSocket,
    arena: Box<[u8]>,
    // Pointed to by `messages`.
    _vectors: Box<[libc::iovec]>,
    messages: Vec<libc::mmsghdr>,
    room: usize,
}

impl<'a> UdpBatchReceiver<'a> {
    /// Prepares batches of `count` datagrams of at most `room` bytes. Enlarges the socket's buffer
    /// and sets a receive timeout of 20 ms, so that [`Self::receive`] returns when nothing arrives.
    #[must_use]
    pub fn new(socket: &'a UdpSocket, count: usize, room: usize) -> Self {
        enlarge_receive_buffer(socket);
        let _ = socket.set_read_timeout(Some(RECEIVE_TIMEOUT));
        let mut arena = vec![0u8; count * room].into_boxed_slice();
        let base = arena.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..count)
            .map(|slot| libc::iovec {
                // SAFETY: slot * room lies inside the arena, which has count * room bytes.
                iov_base: unsafe { base.add(slot * room) }.cast(),
                iov_len: room,
            })
            .collect();
        let messages = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: `mmsghdr` is plain old data, for which all zeros is a value.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        Self { socket, arena, _vectors: vectors, messages, room }
    }

    /// Waits for a datagram and takes all that are there. Returns none after the timeout.
    pub fn receive(&mut self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: the messages point to iovecs and memory that `self` owns, and the kernel
        // writes no more than the lengths given.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                self.messages.as_mut_ptr(),
                self.messages.len() as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).unwrap_or(0);
        let room = self.room;
        self.messages[..received]
            .iter()
            .zip(self.arena.chunks_exact(room))
            .map(move |(message, bytes)| &bytes[..(message.msg_len as usize).min(room)])
    }
}
