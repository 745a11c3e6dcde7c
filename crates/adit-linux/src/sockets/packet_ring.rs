//! A packet socket's receive ring (AF_PACKET, TPACKET_V2).
//!
//! The kernel writes datagrams into shared memory, so that receiving one costs no system call. With
//! the virtio-net header, checksums stay partial and GSO packets stay whole.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;
use crate::family::Family;
use crate::sockets::arena::Arena;
use crate::sockets::mmap::Mapping;
use crate::sockets::options::{attach_filter, enlarge_receive_buffer, get_socket_option, set_receive_buffer};
use crate::sockets::packet::{PACKET_VNET_HDR, bind, bound_to, packet_socket, set_option};
use crate::sockets::ring_filter::tunneled_to;
use crate::sockets::virtio_net::{self, VirtioNetHeader};
use crate::tunnel_protocol::TunnelProtocol;

// linux/if_packet.h
const PACKET_RX_RING: libc::c_int = 5;
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_COPY_THRESH: libc::c_int = 7;
const PACKET_VERSION: libc::c_int = 10;
const PACKET_FANOUT: libc::c_int = 18;
const PACKET_FANOUT_HASH: u32 = 0;
const PACKET_FANOUT_CPU: u32 = 2;
const PACKET_FANOUT_FLAG_UNIQUEID: u32 = 0x2000;
const PACKET_FANOUT_FLAG_DEFRAG: u32 = 0x8000;
const TPACKET_V2: u32 = 1;
const TP_STATUS_KERNEL: u32 = 0;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_COPY: u32 = 2;

/// `struct tpacket_req`.
#[repr(C)]
struct RingRequest {
    block_size: u32,
    block_count: u32,
    frame_size: u32,
    frame_count: u32,
}

/// `struct tpacket2_hdr`, at the front of every frame of the ring, behind its first word: that is
/// the status, which is only ever accessed atomically.
#[repr(C)]
#[derive(Clone, Copy)]
struct FrameHeader {
    /// Bytes of the packet, and bytes of it in the frame.
    len: u32,
    captured: u32,
    /// Offsets in the frame of the link header and of the network header.
    link: u16,
    network: u16,
    seconds: u32,
    nanoseconds: u32,
    vlan: [u16; 2],
    padding: [u8; 4],
}

/// Bytes of the status, and of the whole header.
const STATUS_LEN: usize = size_of::<AtomicU32>();
const HEADER_LEN: usize = STATUS_LEN + size_of::<FrameHeader>();

/// Frames of a ring: they hold what a peer sends while the thread is not scheduled for some
/// milliseconds.
const FRAMES: usize = 2048;
/// Bytes of each piece of kernel memory that a ring consists of.
const BLOCK: usize = 1 << 16;
/// Bytes in a frame before the datagram: the headers of the ring, of virtio-net and of the link,
/// and their alignment.
const FRAME_OVERHEAD: usize = 128;

/// Bytes of GSO packets that may wait beside a ring on an interface into which this host's own TCP
/// sends: about the windows of several streams. They cost memory only while they wait.
const GSO_BUFFER: libc::c_int = 64 << 20;

/// A packet socket with a receive ring.
pub struct PacketRing {
    socket: OwnedFd,
    mapping: Mapping,
    frame_size: usize,
    /// The number of the frame that the kernel fills next, and how many frames before it are taken
    /// and not yet released.
    next: usize,
    held: usize,
}

/// How a ring is opened.
struct Options<'a> {
    filter: Option<&'a [libc::sock_filter]>,
    ethertype: libc::c_int,
    device: Option<u32>,
    mtu: usize,
}

/// A datagram in the ring.
#[derive(Clone, Debug)]
pub struct Received {
    /// What the kernel knows about it. Offsets count from the datagram's first byte.
    pub header: VirtioNetHeader,
    /// Its bytes in the [`Arena`].
    pub datagram: Range<usize>,
}

/// The content of the next frame.
#[derive(Clone, Debug)]
pub enum Ready {
    /// A datagram.
    Datagram(Received),
    /// A datagram too large for a frame: fetch it with [`PacketRing::receive_large`].
    Large {
        /// Bytes of the link header before it.
        link: usize,
    },
    /// Bytes that are not a datagram.
    Nothing,
}

impl PacketRing {
    /// Opens `count` rings in the calling thread's network namespace that share the datagrams of
    /// these protocols to `local`, flow by flow.
    ///
    /// The kernel reassembles those of IPv4. It does not reassemble those of IPv6: their fragments
    /// are received as they are, whatever they carry, and so are datagrams with Destination
    /// Options.
    ///
    /// With `device`, the rings receive from that interface only, and also the datagrams that an
    /// eBPF program there has marked as another host's (`PACKET_OTHERHOST`) to keep them from the
    /// host's IP input. Datagrams of up to `mtu` bytes are received in the ring. Larger ones (GSO
    /// packets, reassembled datagrams) cost a system call each.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, there is no memory, or the kernel has no packet sockets.
    pub fn open_group(
        local: impl Into<IpAddr>,
        protocols: &[TunnelProtocol],
        device: Option<u32>,
        count: usize,
        mtu: usize,
    ) -> Result<Vec<Self>, Error> {
        let local = local.into();
        let family = Family::of(local);
        let filter = tunneled_to(local, protocols, device.is_some());
        let options = Options { filter: Some(&filter), ethertype: family.ethertype(), device, mtu };
        let rings = Self::open_many(count, &options)?;
        // With one member there is nothing to spread, and no flow to be hashed for it.
        let spread = if count > 1 { PACKET_FANOUT_HASH } else { PACKET_FANOUT_CPU };
        match family {
            Family::V4 => join(&rings, spread | PACKET_FANOUT_FLAG_DEFRAG)?,
            Family::V6 if count > 1 => join(&rings, spread)?,
            Family::V6 => {}
        }
        Ok(rings)
    }

    /// Opens `count` rings that share everything of one family that arrives by the interface
    /// `device`, flow by flow, whichever host it is marked for. Fragments stay fragments. Datagrams
    /// of up to `mtu` bytes are received in the ring, larger ones as by [`Self::open_group`].
    ///
    /// # Errors
    /// As [`Self::open_group`], or there is no such interface.
    pub fn open_interface(device: u32, family: Family, count: usize, mtu: usize) -> Result<Vec<Self>, Error> {
        let options = Options { filter: None, ethertype: family.ethertype(), device: Some(device), mtu };
        let rings = Self::open_many(count, &options)?;
        for ring in &rings {
            set_receive_buffer(&ring.socket, GSO_BUFFER);
        }
        if count > 1 {
            join(&rings, PACKET_FANOUT_HASH)?;
        }
        Ok(rings)
    }

    fn open_many(count: usize, options: &Options<'_>) -> Result<Vec<Self>, Error> {
        std::iter::repeat_with(|| Self::open(options)).take(count.max(1)).collect()
    }

    fn open(options: &Options<'_>) -> Result<Self, Error> {
        let Options { filter, ethertype, device, mtu } = *options;
        // The socket receives nothing before it is bound, so the filter sees every datagram.
        let socket = packet_socket()?;
        let what = |step: &str| format!("cannot {step} of a packet socket");
        if let Some(filter) = filter {
            attach_filter(&socket, filter).map_err(|error| Error::new(what("attach the filter"), error))?;
        }
        set_option(&socket, PACKET_VERSION, TPACKET_V2)
            .map_err(|error| Error::new(what("set the version"), error))?;
        set_option(&socket, PACKET_VNET_HDR, 1u32)
            .map_err(|error| Error::new(what("enable the virtio-net headers"), error))?;
        set_option(&socket, PACKET_COPY_THRESH, 1u32)
            .map_err(|error| Error::new(what("enable the queue for large packets"), error))?;
        let frame_size = (mtu + FRAME_OVERHEAD).next_power_of_two().clamp(2048, BLOCK);
        let request = RingRequest {
            block_size: BLOCK as u32,
            block_count: (FRAMES * frame_size / BLOCK) as u32,
            frame_size: frame_size as u32,
            frame_count: FRAMES as u32,
        };
        set_option(&socket, PACKET_RX_RING, request)
            .map_err(|error| Error::new(what("create the ring"), error))?;
        let mapping = Mapping::shared(FRAMES * frame_size, &socket, 0)
            .map_err(|error| Error::new(what("map the ring"), error))?;
        enlarge_receive_buffer(&socket);
        bind(&socket, ethertype, device.unwrap_or(0))
            .map_err(|error| Error::new("cannot bind a packet socket to a protocol", error))?;
        Ok(Self { socket, mapping, frame_size, next: 0, held: 0 })
    }

    /// Returns the number of datagrams received since the last call, or since the start, including
    /// those for which there was no room.
    ///
    /// # Errors
    /// The kernel does not return the statistics.
    pub fn count(&self) -> Result<usize, Error> {
        // The first word of `struct tpacket_stats`.
        let count = get_option(&self.socket, PACKET_STATISTICS)
            .map_err(|error| Error::new("cannot read the statistics of a packet socket", error))?;
        Ok(count as usize)
    }

    /// Takes the next frame, if the kernel has filled it. The kernel leaves it alone until
    /// [`Self::release`].
    #[inline]
    pub fn take(&mut self) -> Option<Ready> {
        if self.held == FRAMES {
            return None;
        }
        let start = self.next * self.frame_size;
        let status = self.status(start).load(Ordering::Acquire);
        if status & TP_STATUS_USER == 0 {
            return None;
        }
        self.next = (self.next + 1) % FRAMES;
        self.held += 1;
        if status & TP_STATUS_COPY != 0 {
            // `recv` returns no offset of the datagram for these; the frame's header has it.
            let frame = self.header(start);
            let link = usize::from(frame.network).saturating_sub(usize::from(frame.link));
            return Some(Ready::Large { link });
        }
        Some(self.read(start).map_or(Ready::Nothing, Ready::Datagram))
    }

    #[inline]
    fn read(&self, start: usize) -> Option<Received> {
        let frame = self.header(start);
        let (link, network) = (usize::from(frame.link), usize::from(frame.network));
        let link_len = network.checked_sub(link)?;
        let end = link + frame.captured as usize;
        if link < HEADER_LEN + virtio_net::LEN || network >= end || end > self.frame_size {
            return None;
        }
        let at = self.mapping.at(start + link - virtio_net::LEN).cast::<[u8; virtio_net::LEN]>();
        // SAFETY: the virtio-net header lies before the link header, inside the frame, which is
        // taken.
        let header = unsafe { at.read() };
        let header = VirtioNetHeader::from_bytes(&header).without_front(link_len as u16)?;
        Some(Received { header, datagram: start + network..start + end })
    }

    /// Returns the address of these bytes if they lie in one frame that is taken, behind its
    /// header.
    #[inline]
    fn taken(&self, range: &Range<usize>) -> Option<*mut u8> {
        let frame = range.start / self.frame_size;
        let oldest = (self.next + FRAMES - self.held) % FRAMES;
        let is_taken = frame < FRAMES && (frame + FRAMES - oldest) % FRAMES < self.held;
        let start = frame * self.frame_size;
        let is_inside = range.start >= start + HEADER_LEN
            && range.start < range.end
            && range.end <= start + self.frame_size;
        (is_taken && is_inside).then(|| self.mapping.at(range.start))
    }

    /// Gives all taken frames back to the kernel.
    #[inline]
    pub fn release(&mut self) {
        while self.held > 0 {
            let oldest = (self.next + FRAMES - self.held) % FRAMES;
            self.status(oldest * self.frame_size).store(TP_STATUS_KERNEL, Ordering::Release);
            self.held -= 1;
        }
    }

    /// Receives the datagram that [`Ready::Large`] announced into `buffer`, which should hold 64
    /// KiB and the headers. `link` is that of [`Ready::Large`]. Returns `None` if there is no whole
    /// datagram.
    #[cold]
    pub fn receive_large(&self, buffer: &mut [u8], link: usize) -> Option<Received> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes into `buffer`.
        let received = unsafe {
            libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        };
        let len = usize::try_from(received).ok()?;
        let front = virtio_net::LEN + link;
        let header = VirtioNetHeader::from_bytes(buffer.first_chunk()?).without_front(link as u16)?;
        (len > front).then_some(Received { header, datagram: front..len })
    }

    /// Takes a pending error, such as that an interface went down. Until then the socket stays
    /// readable.
    pub fn clear_error(&self) {
        let _ = self.take_error();
    }

    /// Returns true if the interface that the socket is bound to has been deleted.
    pub fn is_unbound(&self) -> bool {
        // The kernel then sets the number of the interface to -1.
        bound_to(&self.socket).is_ok_and(|index| index < 0)
    }

    fn take_error(&self) -> io::Result<u32> {
        get_socket_option(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR)
    }

    /// Copies the header of a frame that is taken.
    #[inline]
    fn header(&self, start: usize) -> FrameHeader {
        // SAFETY: every frame begins with its status and this header, aligned (frames are powers of
        // two of at least 2048 bytes), and the kernel leaves it alone while the frame is taken.
        unsafe { self.mapping.at(start + STATUS_LEN).cast::<FrameHeader>().read() }
    }

    fn status(&self, start: usize) -> &AtomicU32 {
        // SAFETY: the status is the first, aligned, u32 of the frame that begins at `start`. The
        // kernel and this process access it atomically only.
        unsafe { &*self.mapping.at(start).cast::<AtomicU32>() }
    }
}

/// Has the datagrams in the frames that are taken.
impl Arena for PacketRing {
    #[inline]
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        let Some(start) = self.taken(&range) else { return &[] };
        // SAFETY: the mapping lives as long as `self`. The bytes are in a frame that is taken: the
        // kernel does not write there before `release`, which needs `self` exclusively, as
        // `bytes_mut` does.
        unsafe { std::slice::from_raw_parts(start, range.len()) }
    }

    #[inline]
    fn bytes_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        let Some(start) = self.taken(&range) else { return &mut [] };
        // SAFETY: as above, and `self` is borrowed exclusively. The kernel does not read a taken
        // frame's datagram either.
        unsafe { std::slice::from_raw_parts_mut(start, range.len()) }
    }
}

impl AsFd for PacketRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes the rings one group, whose members share the datagrams as `kind` says.
fn join(rings: &[PacketRing], kind: u32) -> Result<(), Error> {
    let mut group = None;
    for ring in rings {
        let argument = match group {
            None => (kind | PACKET_FANOUT_FLAG_UNIQUEID) << 16,
            Some(id) => (kind << 16) | id,
        };
        set_option(&ring.socket, PACKET_FANOUT, argument)
            .map_err(|error| Error::new("cannot join packet sockets into a group", error))?;
        if group.is_none() {
            let joined: u32 = get_option(&ring.socket, PACKET_FANOUT)
                .map_err(|error| Error::new("cannot read the number of a group of packet sockets", error))?;
            group = Some(joined & 0xffff);
        }
    }
    Ok(())
}

fn get_option(socket: &OwnedFd, name: libc::c_int) -> io::Result<u32> {
    get_socket_option(socket, libc::SOL_PACKET, name)
}
