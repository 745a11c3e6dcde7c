//! The hidden end of a tunnel's veth pair: packet sockets that read what the host routes into the
//! tunnel interface, and hand decapsulated datagrams to the host through it.
//!
//! With the virtio-net header one call moves a GSO packet: up to 64 KiB of a TCP stream, or of UDP
//! datagrams of one size. Each socket is bound to one family, and not to everything, so eBPF
//! programs at the ingress of the interface come first, and the sockets get what those decline.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::error::Error;
use crate::family::Family;
use crate::kernel_version::kernel_version;
use crate::sockets::frames::LINK_HEADER;
use crate::sockets::options::enlarge_send_buffer;
use crate::sockets::packet::{PACKET_VNET_HDR, bind, packet_socket, set_option};
use crate::sockets::packet_ring::PacketRing;
use crate::sockets::virtio_net::VirtioNetHeader;

/// The most pieces of a packet in one call.
pub const MAX_PIECES: usize = 65;
/// Ethertypes, in network byte order.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];

/// How to open the hidden end of a pair.
#[derive(Clone, Copy, Debug)]
pub struct HiddenEndOptions {
    /// Index of the hidden end.
    pub index: u32,
    /// Its link-layer address: the source of what is sent.
    pub mac: [u8; 6],
    /// The visible end's link-layer address: the destination of what is sent.
    pub visible_mac: [u8; 6],
    /// The visible end's MTU, in bytes. Datagrams of up to that size are read without a system
    /// call.
    pub visible_mtu: usize,
    /// The number of receivers, at least one is opened. Each is served by a thread of its own.
    pub queues: usize,
    /// Whether the interface has IPv6.
    pub ipv6: bool,
}

/// The open sockets of a hidden end.
pub struct HiddenEnd {
    /// They share the datagrams, flow by flow. A receiver has a ring for each family that the
    /// interface has, that of IPv4 first.
    pub receivers: Vec<Vec<PacketRing>>,
    /// Sends to the visible end.
    pub sender: HiddenSender,
    /// The GSO packets that both take.
    pub offloads: Offloads,
}

/// The GSO packets that packet sockets exchange with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TCP.
    pub tcp: bool,
    /// UDP (since Linux 6.2).
    pub udp: bool,
}

impl Offloads {
    /// Returns those of this kernel.
    #[must_use]
    pub fn of_this_kernel() -> Self {
        Self { tcp: true, udp: kernel_version().is_some_and(|version| version >= (6, 2)) }
    }
}

impl HiddenEnd {
    /// Opens the sockets in the calling thread's network namespace.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, there is no memory, or there is no such interface.
    pub fn open(options: &HiddenEndOptions) -> Result<Self, Error> {
        let HiddenEndOptions { index, queues, visible_mtu, ipv6, .. } = *options;
        let rings = PacketRing::open_interface(index, Family::V4, queues, visible_mtu)?;
        let mut receivers: Vec<Vec<PacketRing>> = rings.into_iter().map(|ring| vec![ring]).collect();
        if ipv6 {
            let rings = PacketRing::open_interface(index, Family::V6, queues, visible_mtu)?;
            receivers.iter_mut().zip(rings).for_each(|(receiver, ring)| receiver.push(ring));
        }
        Ok(Self { receivers, sender: HiddenSender::open(options)?, offloads: Offloads::of_this_kernel() })
    }
}

/// Sends decapsulated datagrams, which the host receives by the visible end.
#[derive(Debug)]
pub struct HiddenSender {
    socket: OwnedFd,
    /// The link header of each family.
    link_headers: [[u8; LINK_HEADER]; 2],
}

impl HiddenSender {
    fn open(options: &HiddenEndOptions) -> Result<Self, Error> {
        let socket = packet_socket()?;
        set_option(&socket, PACKET_VNET_HDR, 1u32)
            .map_err(|error| Error::new("cannot enable virtio-net headers on a packet socket", error))?;
        enlarge_send_buffer(&socket);
        // Protocol 0: this socket receives nothing.
        bind(&socket, 0, options.index).map_err(|error| {
            Error::new(format!("cannot bind a packet socket to interface {}", options.index), error)
        })?;
        let mut link_header = [0; LINK_HEADER];
        link_header[..6].copy_from_slice(&options.visible_mac);
        link_header[6..12].copy_from_slice(&options.mac);
        let link_headers = [ETHERTYPE_IPV4, ETHERTYPE_IPV6].map(|ethertype| {
            link_header[12..].copy_from_slice(&ethertype);
            link_header
        });
        Ok(Self { socket, link_headers })
    }

    /// Sends one datagram or GSO packet, in at most [`MAX_PIECES`] pieces. Its first byte says its
    /// family. Costs a system call. Offsets in `header` count from the datagram's first byte.
    ///
    /// # Errors
    /// The interface is down (`ENETDOWN`) or gone (`ENXIO`), the datagram is longer than its MTU
    /// (`EMSGSIZE`), or the header does not fit the packet (`EINVAL`).
    #[inline]
    pub fn send<'a>(
        &self,
        header: &VirtioNetHeader,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> io::Result<usize> {
        let header = header.with_front(LINK_HEADER as u16).to_bytes();
        let mut all = [IoSlice::new(&[]); MAX_PIECES + 2];
        all[0] = IoSlice::new(&header);
        let mut used = 2;
        let mut is_v6 = false;
        for (slot, piece) in all[2..].iter_mut().zip(pieces) {
            if used == 2 {
                is_v6 = piece.first().is_some_and(|first| first >> 4 == 6);
            }
            *slot = IoSlice::new(piece);
            used += 1;
        }
        all[1] = IoSlice::new(&self.link_headers[usize::from(is_v6)]);
        // SAFETY: `msghdr` is plain old data, for which all zeros is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        // An `IoSlice` has the layout of an `iovec`, which the kernel does not write here.
        message.msg_iov = all.as_mut_ptr().cast();
        message.msg_iovlen = used;
        // SAFETY: the message refers to `used` pieces of memory that outlive the call.
        let sent = unsafe { libc::sendmsg(self.socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}
