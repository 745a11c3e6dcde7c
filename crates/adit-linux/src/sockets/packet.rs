//! Packet sockets (AF_PACKET) that send: whole frames on one interface, with the virtio-net
//! header, so that checksums stay partial. Receiving is in [`crate::sockets::packet_ring`].

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::sockets::frames::{FrameSender, LINK_HEADER, Sent};
use crate::sockets::virtio_net::{self, Checksum, PartialChecksum, VirtioNetHeader};

// linux/if_packet.h
pub(crate) const PACKET_VNET_HDR: libc::c_int = 15;

/// A packet socket that sends frames on one interface.
pub struct PacketSender {
    socket: OwnedFd,
    frames: FrameBatch,
    sent: Sent,
}

impl PacketSender {
    /// Opens a sender on the interface `index`, in the calling thread's network namespace, for
    /// datagrams of at most `capacity` bytes, `batch` of them in a call.
    ///
    /// # Errors
    /// No CAP_NET_RAW, no such interface.
    pub fn open(index: u32, capacity: usize, batch: usize) -> Result<Self, Error> {
        let socket = packet_socket()?;
        set_option(&socket, PACKET_VNET_HDR, 1u32)
            .map_err(|error| Error::new("cannot enable virtio-net headers on a packet socket", error))?;
        enlarge_send_buffer(&socket);
        // Protocol 0: this socket receives nothing.
        bind(&socket, 0, index).map_err(|error| {
            Error::new(format!("cannot bind a packet socket to interface {index}"), error)
        })?;
        Ok(Self { socket, frames: FrameBatch::new(capacity, batch, virtio_net::LEN), sent: Sent::default() })
    }
}

impl FrameSender for PacketSender {
    fn capacity(&self) -> usize {
        self.frames.capacity
    }

    fn completes_checksums(&self) -> bool {
        true
    }

    #[inline]
    fn frame(&mut self) -> &mut [u8] {
        if self.frames.is_full() {
            self.flush();
        }
        self.frames.frame()
    }

    #[inline]
    fn commit(&mut self, len: usize, checksum: Option<PartialChecksum>) {
        let header = VirtioNetHeader {
            checksum: match checksum {
                Some(partial) => Checksum::Partial(PartialChecksum {
                    start: partial.start + LINK_HEADER as u16,
                    ..partial
                }),
                None => Checksum::Unknown,
            },
            ..VirtioNetHeader::PLAIN
        };
        self.frames.prefix().copy_from_slice(&header.to_bytes());
        self.frames.commit(virtio_net::LEN + LINK_HEADER + len);
    }

    fn flush(&mut self) {
        self.frames.send(&self.socket, &mut self.sent);
    }

    fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }
}

/// Frames of one size in one piece of memory, with the message headers that `sendmmsg` wants
/// already pointing at them.
pub(crate) struct FrameBatch {
    arena: Box<[u8]>,
    vectors: Box<[libc::iovec]>,
    messages: Box<[libc::mmsghdr]>,
    stride: usize,
    /// Bytes that go out before the link header.
    prefix: usize,
    pub(crate) capacity: usize,
    committed: usize,
}

// SAFETY: the raw pointers inside point only to heap memory the batch itself owns (and, where
// `set_name` was called, to memory its owner boxes beside it).
unsafe impl Send for FrameBatch {}

impl FrameBatch {
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

    /// The slot that is being filled.
    pub(crate) fn slot(&self) -> usize {
        self.committed
    }

    #[inline]
    pub(crate) fn frame(&mut self) -> &mut [u8] {
        let start = self.committed * self.stride + self.prefix;
        &mut self.arena[start..start + LINK_HEADER + self.capacity]
    }

    #[inline]
    pub(crate) fn prefix(&mut self) -> &mut [u8] {
        let start = self.committed * self.stride;
        &mut self.arena[start..start + self.prefix]
    }

    /// Lets the messages begin `bytes` into their slots.
    pub(crate) fn skip_front(&mut self, bytes: usize) {
        for (slot, vector) in self.vectors.iter_mut().enumerate() {
            // SAFETY: a slot is longer than the link header that callers skip.
            vector.iov_base = unsafe { self.arena.as_mut_ptr().add(slot * self.stride + bytes) }.cast();
        }
    }

    /// Gives every message its own destination out of `names`, which must stay where it is.
    pub(crate) fn set_names(&mut self, names: &mut [libc::sockaddr_in]) {
        for (message, name) in self.messages.iter_mut().zip(names) {
            message.msg_hdr.msg_name = (name as *mut libc::sockaddr_in).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        }
    }

    #[inline]
    pub(crate) fn commit(&mut self, bytes: usize) {
        self.vectors[self.committed].iov_len = bytes;
        self.committed += 1;
    }

    /// Sends everything; what the kernel refuses is counted and left out.
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
            // The first message of the rest is the one refused; where there is no room, all are.
            let refused = match error.kind() {
                io::ErrorKind::Interrupted => 0,
                io::ErrorKind::WouldBlock => self.committed - next,
                _ => 1,
            };
            (0..refused).for_each(|_| sent.refuse(&error));
            next += refused;
        }
        self.committed = 0;
    }
}

pub(crate) fn packet_socket() -> Result<OwnedFd, Error> {
    // SAFETY: a plain system call; the descriptor it returns is ours alone.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os("cannot open a packet socket").with_hint(
            "CAP_NET_RAW is needed in this network namespace (run as root), and a kernel with CONFIG_PACKET",
        ));
    }
    // SAFETY: `fd` was just returned by the kernel and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn bind(socket: &OwnedFd, protocol: libc::c_int, index: u32) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain old data, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address is a `sockaddr_ll` of the length given and outlives the call.
    let done = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

pub(crate) fn set_option<T>(socket: &OwnedFd, name: libc::c_int, value: T) -> io::Result<()> {
    set_socket_option(socket, libc::SOL_PACKET, name, value)
}

pub(crate) fn set_socket_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the option's value is read from `value`, of its own size, during the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as u32)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Room for bursts; best effort, since only the init namespace's root may pass `rmem_max`.
pub(crate) fn enlarge_receive_buffer(socket: &impl AsRawFd) {
    let bytes: libc::c_int = 8 << 20;
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// The same for what waits to be sent; and a bound on waiting for room, so that an interface that
/// takes nothing cannot hold the thread.
pub(crate) fn enlarge_send_buffer(socket: &impl AsRawFd) {
    let patience = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
    let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, patience);
    let bytes: libc::c_int = 4 << 20;
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
    }
}

pub(crate) fn attach_filter(socket: &OwnedFd, program: &[libc::sock_filter]) -> Result<(), Error> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set_socket_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
        .map_err(|error| Error::new("cannot attach a filter to a socket", error))
}
