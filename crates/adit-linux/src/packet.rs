//! Packet sockets (AF_PACKET): whole frames to and from the underlay's interfaces, with the
//! virtio-net header, so that checksums stay partial and superpackets stay whole.

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::frames::{FrameSender, LINK_HEADER, Sent};
use crate::virtio_net::{self, Checksum, PartialChecksum, VirtioNetHeader};

// linux/if_packet.h
const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_FANOUT: libc::c_int = 18;
const PACKET_FANOUT_HASH: u32 = 0;
const PACKET_FANOUT_FLAG_UNIQUEID: u32 = 0x2000;
const PACKET_FANOUT_FLAG_DEFRAG: u32 = 0x8000;

/// Packet sockets that take every IP-in-IP datagram for one address, from whichever interface,
/// reassembled by the kernel.
#[derive(Debug)]
pub struct PacketReceiver {
    socket: OwnedFd,
}

impl PacketReceiver {
    /// Opens `count` sockets in the calling thread's network namespace that share the datagrams
    /// of protocol 4 addressed to `local`, flow by flow.
    ///
    /// # Errors
    /// No CAP_NET_RAW, or a kernel without packet sockets.
    pub fn open_group(local: Ipv4Addr, count: usize) -> Result<Vec<Self>, Error> {
        let mut sockets: Vec<Self> = Vec::with_capacity(count);
        let mut group = None;
        for _ in 0..count.max(1) {
            let receiver = Self::open(local)?;
            let kind = PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_DEFRAG;
            let argument = match group {
                None => (kind | PACKET_FANOUT_FLAG_UNIQUEID) << 16,
                Some(id) => (kind << 16) | id,
            };
            set_option(&receiver.socket, PACKET_FANOUT, argument).map_err(|error| {
                Error::new("cannot have the kernel reassemble what packet sockets receive", error)
            })?;
            if group.is_none() {
                let joined: u32 = get_option(&receiver.socket, PACKET_FANOUT)
                    .map_err(|error| Error::new("cannot read the id of a group of packet sockets", error))?;
                group = Some(joined & 0xffff);
            }
            sockets.push(receiver);
        }
        Ok(sockets)
    }

    fn open(local: Ipv4Addr) -> Result<Self, Error> {
        // Protocol 0: nothing is received before the filter is in place.
        let socket = packet_socket()?;
        attach_filter(&socket, &ipip_to(local))?;
        set_option(&socket, PACKET_VNET_HDR, 1u32)
            .map_err(|error| Error::new("cannot enable virtio-net headers on a packet socket", error))?;
        enlarge_receive_buffer(&socket);
        bind(&socket, libc::ETH_P_IP, 0)
            .map_err(|error| Error::new("cannot bind a packet socket to IPv4", error))?;
        Ok(Self { socket })
    }

    /// Receives what waits, up to the batch's size, without waiting for more. Returns how many.
    ///
    /// # Errors
    /// `WouldBlock` when nothing waits; `ENETDOWN` once after an interface went down.
    #[inline]
    pub fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<usize> {
        for message in &mut batch.messages {
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
        }
        // SAFETY: every message points to one iovec and one address of `batch`, which own their
        // memory and outlive the call; the kernel writes no more than the lengths given.
        let received = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                batch.messages.as_mut_ptr(),
                batch.messages.len() as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if received < 0 {
            batch.received = 0;
            return Err(io::Error::last_os_error());
        }
        batch.received = received as usize;
        Ok(batch.received)
    }
}

impl AsFd for PacketReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Room for a batch of received datagrams, allocated once.
pub struct ReceiveBatch {
    arena: Box<[u8]>,
    // Pointed to by `messages`; boxed slices do not move.
    _vectors: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_ll]>,
    messages: Box<[libc::mmsghdr]>,
    received: usize,
}

// SAFETY: the raw pointers inside point only to heap memory the batch itself owns.
unsafe impl Send for ReceiveBatch {}

/// A datagram in a [`ReceiveBatch`].
#[derive(Clone, Debug)]
pub struct Received {
    /// What the kernel knows of it; offsets count from the datagram's first byte.
    pub header: VirtioNetHeader,
    /// Where it lies in the arena.
    pub datagram: Range<usize>,
}

/// Bytes of a batch's slot: the virtio-net header, a link header, and the largest IPv4
/// datagram; not a power of two, so that slots do not share cache sets.
const SLOT: usize = 65_536 + 128;

impl ReceiveBatch {
    /// Room for `count` datagrams of any size. The memory is only touched where it is used.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut arena = vec![0u8; count * SLOT].into_boxed_slice();
        let base = arena.as_mut_ptr();
        let mut vectors: Box<[libc::iovec]> = (0..count)
            .map(|slot| libc::iovec {
                // SAFETY: slot * SLOT lies inside the arena, which has count * SLOT bytes.
                iov_base: unsafe { base.add(slot * SLOT) }.cast(),
                iov_len: SLOT,
            })
            .collect();
        // SAFETY: `sockaddr_ll` and `mmsghdr` are plain old data, for which all zeros is a value.
        let (mut addresses, mut messages): (Box<[libc::sockaddr_ll]>, Box<[libc::mmsghdr]>) = unsafe {
            (
                (0..count).map(|_| std::mem::zeroed()).collect(),
                (0..count).map(|_| std::mem::zeroed()).collect(),
            )
        };
        for (slot, message) in messages.iter_mut().enumerate() {
            message.msg_hdr.msg_iov = &raw mut vectors[slot];
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_name = (&raw mut addresses[slot]).cast();
        }
        Self { arena, _vectors: vectors, addresses, messages, received: 0 }
    }

    /// The received datagram number `index`; `None` for one without a datagram in it.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Received> {
        if index >= self.received {
            return None;
        }
        let start = index * SLOT;
        let len = (self.messages[index].msg_len as usize).min(SLOT);
        let link = match self.addresses[index].sll_hatype {
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => LINK_HEADER,
            _ => 0,
        };
        let front = virtio_net::LEN + link;
        if len <= front {
            return None;
        }
        let header: &[u8; virtio_net::LEN] = self.arena.get(start..)?.first_chunk()?;
        let header = VirtioNetHeader::from_bytes(header).without_front(link as u16)?;
        Some(Received { header, datagram: start + front..start + len })
    }

    /// The memory that [`Received::datagram`] lies in.
    #[inline]
    pub fn arena(&mut self) -> &mut [u8] {
        &mut self.arena
    }
}

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
            if error.kind() != io::ErrorKind::Interrupted {
                // The first message of the rest is the one refused.
                sent.refuse(&error);
                next += 1;
            }
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

fn set_option<T>(socket: &OwnedFd, name: libc::c_int, value: T) -> io::Result<()> {
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

fn get_option(socket: &OwnedFd, name: libc::c_int) -> io::Result<u32> {
    let mut value = 0u32;
    let mut len = size_of::<u32>() as u32;
    // SAFETY: the kernel writes at most `len` bytes into `value`.
    let done = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, name, (&raw mut value).cast(), &raw mut len)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Room for bursts; best effort, since only the init namespace's root may pass `rmem_max`.
pub(crate) fn enlarge_receive_buffer(socket: &impl AsRawFd) {
    let bytes: libc::c_int = 8 << 20;
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// The same for what waits to be sent.
pub(crate) fn enlarge_send_buffer(socket: &impl AsRawFd) {
    let bytes: libc::c_int = 4 << 20;
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
    }
}

/// A classic BPF program: protocol 4, to `local`, addressed to this host.
fn ipip_to(local: Ipv4Addr) -> [libc::sock_filter; 8] {
    // linux/filter.h: offsets from here on count from the network header, whatever the link.
    const SKF_NET_OFF: u32 = (-0x10_0000_i32).cast_unsigned();
    const SKF_AD_OFF: u32 = (-0x1000_i32).cast_unsigned();
    const SKF_AD_PKTTYPE: u32 = 4;
    let load_byte = |k| libc::sock_filter { code: 0x30, jt: 0, jf: 0, k };
    let load_word = |k| libc::sock_filter { code: 0x20, jt: 0, jf: 0, k };
    let unless_equal = |k, jf| libc::sock_filter { code: 0x15, jt: 0, jf, k };
    let answer = |k| libc::sock_filter { code: 0x06, jt: 0, jf: 0, k };
    [
        load_byte(SKF_NET_OFF.wrapping_add(9)),
        unless_equal(4, 5),
        load_word(SKF_NET_OFF.wrapping_add(16)),
        unless_equal(u32::from(local), 3),
        load_byte(SKF_AD_OFF.wrapping_add(SKF_AD_PKTTYPE)),
        unless_equal(u32::from(libc::PACKET_HOST), 1),
        answer(u32::MAX),
        answer(0),
    ]
}

pub(crate) fn attach_filter(socket: &OwnedFd, program: &[libc::sock_filter]) -> Result<(), Error> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set_socket_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
        .map_err(|error| Error::new("cannot attach a filter to a socket", error))
}
