//! A sender over AF_XDP.
//!
//! Frames are written into memory shared with the kernel, and one call sends them all, without a
//! message header and an I/O vector for each. It uses copy mode, which works on every interface and
//! needs no BPF program. It does not receive.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::sockets::frames::{FrameSender, LINK_HEADER, Sent};
use crate::sockets::mmap::Mapping;
use crate::sockets::options::{enlarge_send_buffer, set_mark, set_socket_option};
use crate::sockets::virtio_net::PartialChecksum;

// linux/if_xdp.h
const AF_XDP: libc::c_int = 44;
const SOL_XDP: libc::c_int = 283;
const XDP_MMAP_OFFSETS: libc::c_int = 1;
const XDP_TX_RING: libc::c_int = 3;
const XDP_UMEM_REG: libc::c_int = 4;
const XDP_UMEM_FILL_RING: libc::c_int = 5;
const XDP_UMEM_COMPLETION_RING: libc::c_int = 6;
const XDP_COPY: u16 = 1 << 1;
const XDP_UMEM_TX_METADATA_LEN: u32 = 1 << 2;
const XDP_PGOFF_TX_RING: libc::off_t = 0x8000_0000;
const XDP_UMEM_PGOFF_COMPLETION_RING: libc::off_t = 0x1_8000_0000;
const XDP_TX_METADATA: u32 = 1 << 1;
const XDP_TXMD_FLAGS_CHECKSUM: u64 = 1 << 1;

/// Bytes of `struct xsk_tx_metadata`, which precedes each frame.
const METADATA: usize = 24;
/// Bytes of a chunk, which holds one frame: the smallest power of two that holds a frame of an
/// Ethernet with an MTU of 1500. Two fill a page.
const CHUNK: usize = 2048;
/// Chunks, and entries of each ring. There are more than a batch needs, because the kernel gives a
/// chunk back only when the interface is done with it.
const FRAMES: usize = 1024;
/// The chunks are locked memory, which the kernel counts per user.
const RAISE_THE_LIMIT: &str = "raise the limit of locked memory (`ulimit -l`), or grant CAP_IPC_LOCK";

#[repr(C)]
struct UmemReg {
    addr: u64,
    len: u64,
    chunk_size: u32,
    headroom: u32,
    flags: u32,
    tx_metadata_len: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RingOffset {
    producer: u64,
    consumer: u64,
    desc: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MmapOffsets {
    rx: RingOffset,
    tx: RingOffset,
    fill: RingOffset,
    completion: RingOffset,
}

#[repr(C)]
struct SockaddrXdp {
    family: u16,
    flags: u16,
    ifindex: u32,
    queue_id: u32,
    shared_umem_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    addr: u64,
    len: u32,
    options: u32,
}

/// A sender over AF_XDP, bound to one queue of one interface.
pub struct XdpSender {
    // Fields are dropped in this order: the socket before the memory it uses.
    socket: OwnedFd,
    tx: Ring<Descriptor>,
    completion: Ring<u64>,
    umem: Mapping,
    /// The numbers of the chunks that are not in use.
    free: Vec<u32>,
    /// The chunk that was lent last.
    lent: Option<u32>,
    /// Lent while the interface takes nothing: a frame written here is counted as refused.
    spare: Box<[u8]>,
    /// Frames committed since the last flush, and the number at which one is due.
    queued: usize,
    batch: usize,
    sent: Sent,
}

impl XdpSender {
    /// Opens a sender on queue `queue` of the interface `index`, in the calling thread's network
    /// namespace, that sends `batch` frames in a call.
    ///
    /// # Errors
    /// The kernel has no AF_XDP or no transmit metadata (before Linux 6.8), another program holds
    /// the queue, CAP_NET_RAW is missing, or the limit of locked memory is too small. The caller
    /// then uses a [`crate::sockets::packet::PacketSender`].
    pub fn open(index: u32, queue: u32, batch: usize) -> Result<Self, Error> {
        let what = |step: &str| format!("cannot {step} for AF_XDP on interface {index}");
        // SAFETY: a plain system call; the descriptor it returns belongs to this value alone.
        let fd = unsafe { libc::socket(AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(Error::last_os(what("open a socket")));
        }
        // SAFETY: `fd` was just returned by the kernel and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let umem =
            Mapping::anonymous(FRAMES * CHUNK).map_err(|error| Error::new(what("map memory"), error))?;
        let registration = UmemReg {
            addr: umem.at(0) as u64,
            len: umem.len() as u64,
            chunk_size: CHUNK as u32,
            headroom: 0,
            flags: XDP_UMEM_TX_METADATA_LEN,
            tx_metadata_len: METADATA as u32,
        };
        set_socket_option(&socket, SOL_XDP, XDP_UMEM_REG, registration).map_err(|error| {
            let is_limit = error.raw_os_error() == Some(libc::ENOBUFS);
            let error = Error::new(what("register memory"), error);
            if is_limit { error.with_hint(RAISE_THE_LIMIT) } else { error }
        })?;
        // The kernel requires a fill ring, although nothing is received.
        for ring in [XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING] {
            set_socket_option(&socket, SOL_XDP, ring, FRAMES as u32)
                .map_err(|error| Error::new(what("size a ring"), error))?;
        }
        let offsets =
            mmap_offsets(&socket).map_err(|error| Error::new(what("read the rings' layout"), error))?;
        let tx = Ring::map(&socket, XDP_PGOFF_TX_RING, offsets.tx)
            .map_err(|error| Error::new(what("map the transmit ring"), error))?;
        let completion = Ring::map(&socket, XDP_UMEM_PGOFF_COMPLETION_RING, offsets.completion)
            .map_err(|error| Error::new(what("map the completion ring"), error))?;
        let address = SockaddrXdp {
            family: AF_XDP as u16,
            flags: XDP_COPY,
            ifindex: index,
            queue_id: queue,
            shared_umem_fd: 0,
        };
        // SAFETY: the address is a `sockaddr_xdp` of the length given and outlives the call.
        let done = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<SockaddrXdp>() as u32)
        };
        if done < 0 {
            return Err(Error::last_os(what("bind")));
        }
        enlarge_send_buffer(&socket);
        let free = (0..FRAMES as u32).rev().collect();
        Ok(Self {
            socket,
            tx,
            completion,
            umem,
            free,
            lent: None,
            spare: vec![0; CHUNK].into_boxed_slice(),
            queued: 0,
            batch,
            sent: Sent::default(),
        })
    }

    /// The same sender, whose frames have this firewall mark (0: none).
    ///
    /// # Errors
    /// As [`PacketSender::with_mark`](crate::sockets::packet::PacketSender::with_mark).
    pub fn with_mark(self, mark: u32) -> Result<Self, Error> {
        set_mark(&self.socket, mark)?;
        Ok(self)
    }

    /// Takes back the chunks that the interface is done with.
    fn reclaim(&mut self) {
        while let Some(address) = self.completion.consume() {
            self.free.push((address / CHUNK as u64) as u32);
        }
    }

    /// Makes the kernel send the frames in the transmit ring; it sends some in each call.
    fn kick(&mut self) {
        // The bound: if a congested interface takes nothing, the frames wait for the next call.
        for _ in 0..4 * FRAMES / 32 {
            // SAFETY: a null buffer of no length; the kernel reads only the ring.
            let done = unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            if done >= 0 {
                break;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR | libc::EBUSY) => {
                    if self.tx.is_drained() {
                        break;
                    }
                    self.reclaim();
                }
                // The kernel has consumed the frame that it could not send.
                Some(libc::ENOBUFS) => self.sent.refuse(&error),
                _ => {
                    self.sent.refuse(&error);
                    break;
                }
            }
        }
        self.reclaim();
    }

    /// Waits a moment for the interface to give a chunk back. An interface that is down never does,
    /// and must not hold the thread.
    #[cold]
    fn wait_for_chunk(&mut self) -> Option<u32> {
        self.kick();
        if self.free.is_empty() {
            wait_writable(&self.socket);
            self.kick();
        }
        self.free.pop()
    }

    fn chunk(&mut self, number: u32) -> &mut [u8] {
        let start = number as usize * CHUNK;
        // SAFETY: chunk `number` lies in the mapping, is neither in the transmit ring nor awaiting
        // completion, so the kernel does not use it, and is borrowed only once.
        unsafe { std::slice::from_raw_parts_mut(self.umem.at(start), CHUNK) }
    }
}

impl FrameSender for XdpSender {
    fn capacity(&self) -> usize {
        CHUNK - METADATA - LINK_HEADER
    }

    fn completes_checksums(&self) -> bool {
        true
    }

    #[inline]
    fn frame(&mut self) -> &mut [u8] {
        if self.lent.is_none() {
            self.lent = self.free.pop().or_else(|| self.wait_for_chunk());
        }
        match self.lent {
            Some(number) => &mut self.chunk(number)[METADATA..],
            None => &mut self.spare[METADATA..],
        }
    }

    #[inline]
    fn commit(&mut self, len: usize, checksum: Option<PartialChecksum>) {
        let Some(number) = self.lent.take() else {
            self.sent.refuse(&io::Error::from_raw_os_error(libc::ENOBUFS));
            return;
        };
        let mut options = 0;
        if let Some(partial) = checksum {
            options = XDP_TX_METADATA;
            let start = partial.start + LINK_HEADER as u16;
            let metadata = &mut self.chunk(number)[..METADATA];
            metadata[..8].copy_from_slice(&XDP_TXMD_FLAGS_CHECKSUM.to_ne_bytes());
            metadata[8..10].copy_from_slice(&start.to_ne_bytes());
            metadata[10..12].copy_from_slice(&partial.offset.to_ne_bytes());
            metadata[12..].fill(0);
        }
        let addr = number as u64 * CHUNK as u64 + METADATA as u64;
        // The ring has an entry for every chunk, so it has room.
        self.tx.produce(Descriptor { addr, len: (LINK_HEADER + len) as u32, options });
        self.sent.taken += 1;
        self.queued += 1;
        if self.queued == self.batch {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.queued == 0 && self.tx.is_drained() {
            return;
        }
        self.queued = 0;
        self.kick();
    }

    fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }
}

/// Waits at most a millisecond for a congested interface.
fn wait_writable(socket: &OwnedFd) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one `pollfd`, which outlives the call.
    let _ = unsafe { libc::poll(&raw mut poll, 1, 1) };
}

fn mmap_offsets(socket: &OwnedFd) -> io::Result<MmapOffsets> {
    let mut offsets = MmapOffsets::default();
    let mut len = size_of::<MmapOffsets>() as u32;
    // SAFETY: the kernel writes at most `len` bytes into `offsets`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            SOL_XDP,
            XDP_MMAP_OFFSETS,
            (&raw mut offsets).cast(),
            &raw mut len,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < size_of::<MmapOffsets>() {
        // Before Linux 5.4 the offsets had no flags; such a kernel has no metadata either.
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok(offsets)
}

/// A ring shared with the kernel. This is the only user of its own side.
struct Ring<T> {
    mapping: Mapping,
    offset: RingOffset,
    marker: std::marker::PhantomData<T>,
}

impl<T: Copy> Ring<T> {
    fn map(socket: &OwnedFd, page_offset: libc::off_t, offset: RingOffset) -> io::Result<Self> {
        let len = offset.desc as usize + FRAMES * size_of::<T>();
        let mapping = Mapping::shared(len, socket, page_offset)?;
        Ok(Self { mapping, offset, marker: std::marker::PhantomData })
    }

    fn index(&self, at: u64) -> &AtomicU32 {
        // SAFETY: the kernel reported an aligned u32 at this offset of the mapping. The kernel and
        // this process access it atomically only.
        unsafe { &*self.mapping.at(at as usize).cast::<AtomicU32>() }
    }

    fn entry(&self, position: u32) -> *mut T {
        let slot = position as usize & (FRAMES - 1);
        // SAFETY: FRAMES entries of T follow `desc` in the mapping.
        unsafe { self.mapping.at(self.offset.desc as usize).cast::<T>().add(slot) }
    }

    /// Returns true if the kernel has consumed all entries.
    fn is_drained(&self) -> bool {
        let produced = self.index(self.offset.producer).load(Ordering::Relaxed);
        produced == self.index(self.offset.consumer).load(Ordering::Acquire)
    }

    /// Gives the kernel an entry. The ring must have room, as a ring with an entry for each chunk
    /// has.
    fn produce(&self, value: T) {
        let producer = self.index(self.offset.producer);
        let position = producer.load(Ordering::Relaxed);
        // SAFETY: the kernel does not read the slot until the producer index moves past it.
        unsafe { self.entry(position).write_volatile(value) };
        producer.store(position.wrapping_add(1), Ordering::Release);
    }

    /// Takes the next entry that the kernel has produced.
    fn consume(&self) -> Option<T> {
        let consumer = self.index(self.offset.consumer);
        let position = consumer.load(Ordering::Relaxed);
        if position == self.index(self.offset.producer).load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the kernel has produced this slot and leaves it alone until it is consumed.
        let value = unsafe { self.entry(position).read_volatile() };
        consumer.store(position.wrapping_add(1), Ordering::Release);
        Some(value)
    }
}
