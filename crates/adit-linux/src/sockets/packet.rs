//! Packet sockets (AF_PACKET) that send frames on one interface.
//!
//! The virtio-net header lets checksums stay partial. [`crate::sockets::packet_ring`] receives.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::error::Error;
use crate::sockets::frame_batch::FrameBatch;
use crate::sockets::frames::{FrameSender, LINK_HEADER, Sent};
use crate::sockets::options::{enlarge_send_buffer, set_mark, set_socket_option};
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
    /// CAP_NET_RAW is missing, or there is no such interface.
    pub fn open(index: u32, capacity: usize, batch: usize) -> Result<Self, Error> {
        let socket = packet_socket()?;
        set_option(&socket, PACKET_VNET_HDR, 1u32)
            .map_err(|error| Error::new("cannot enable virtio-net headers on a packet socket", error))?;
        enlarge_send_buffer(&socket);
        // Protocol 0: this socket receives nothing, and the kernel takes the protocol of what it
        // sends from the Ethernet header (Linux 5.1).
        bind(&socket, 0, index).map_err(|error| {
            Error::new(format!("cannot bind a packet socket to interface {index}"), error)
                .with_hint("`ip link` shows the interfaces and their numbers")
        })?;
        Ok(Self { socket, frames: FrameBatch::new(capacity, batch, virtio_net::LEN), sent: Sent::default() })
    }

    /// The same sender, whose frames have this firewall mark (0: none).
    ///
    /// # Errors
    /// CAP_NET_ADMIN is missing (before Linux 5.17), or CAP_NET_RAW.
    pub fn with_mark(self, mark: u32) -> Result<Self, Error> {
        set_mark(&self.socket, mark)?;
        Ok(self)
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

/// Opens a packet socket for whole frames that receives nothing until it is bound to a protocol.
pub(crate) fn packet_socket() -> Result<OwnedFd, Error> {
    // SAFETY: a plain system call; the descriptor it returns belongs to this value alone.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(Error::last_os("cannot open a packet socket").with_hint(
            "CAP_NET_RAW is needed in this network namespace (run as root), and a kernel with CONFIG_PACKET",
        ));
    }
    // SAFETY: `fd` was just returned by the kernel and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to a protocol (`ETH_P_*`; 0 receives nothing) on the interface `index` (0: all).
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

/// Returns the number of the interface that a packet socket is bound to: 0 for all, -1 if it was
/// deleted.
pub(crate) fn bound_to(socket: &OwnedFd) -> io::Result<i32> {
    // SAFETY: `sockaddr_ll` is plain old data, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to the address; both outlive the call.
    let done = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(address.sll_ifindex) }
}

pub(crate) fn set_option<T>(socket: &OwnedFd, name: libc::c_int, value: T) -> io::Result<()> {
    set_socket_option(socket, libc::SOL_PACKET, name, value)
}
