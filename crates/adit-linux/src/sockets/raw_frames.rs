//! A sender of datagrams that the kernel routes: a raw socket that takes our IP header, many
//! datagrams in a call.
//!
//! It is slower than the senders of frames, but works on any interface and under any routing
//! policy.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockaddrIn, bind};

use crate::error::Error;
use crate::flow_source::FlowSource;
use crate::net_scope::NetScope;
use crate::sockets::frame_batch::FrameBatch;
use crate::sockets::frames::{FrameSender, LINK_HEADER, Sent};
use crate::sockets::options::{bind_to_vrf, enlarge_send_buffer, set_mark, set_socket_option};
use crate::sockets::virtio_net::PartialChecksum;

/// A sender of datagrams by the host's routes. The kernel replaces a source of 0.0.0.0 by this
/// host's address towards the destination, and an identification of 0 if DF is clear.
pub struct RawFrameSender {
    socket: OwnedFd,
    frames: FrameBatch,
    /// Destinations. The message headers of `frames` point here; a boxed slice does not move.
    names: Box<[libc::sockaddr_in]>,
    /// The protocol of each datagram, for the policies of IPsec; empty if the kernel takes none.
    protocols: Box<[FlowProtocol]>,
    sent: Sent,
}

// linux/in.h
const IP_PROTOCOL: libc::c_int = 52;
/// Do not send, only look up the route (linux/socket.h).
const MSG_PROBE: libc::c_int = 0x10;

/// A control message with the protocol of a datagram. Without it, the kernel takes a datagram of a
/// socket that writes its own IP headers for one of protocol 255, and applies no policy of IPsec
/// that names a protocol (Linux 6.4, and 6.1.31).
#[repr(C)]
struct FlowProtocol {
    header: libc::cmsghdr,
    protocol: libc::c_int,
    /// The kernel wants a multiple of the header's alignment.
    padding: libc::c_int,
}

impl FlowProtocol {
    fn new(protocol: u8) -> Self {
        // SAFETY: `cmsghdr` is plain old data, for which all zeros is a value.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = size_of::<libc::cmsghdr>() + size_of::<libc::c_int>();
        header.cmsg_level = libc::IPPROTO_IP;
        header.cmsg_type = IP_PROTOCOL;
        Self { header, protocol: protocol.into(), padding: 0 }
    }

    /// Whether the kernel takes it: asks for a route to the loopback address with it.
    fn is_known(socket: &OwnedFd) -> bool {
        let mut control = Self::new(libc::IPPROTO_IPIP as u8);
        // SAFETY: `sockaddr_in` and `msghdr` are plain old data, for which all zeros is a value.
        let (mut to, mut message): (libc::sockaddr_in, libc::msghdr) = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        to.sin_addr.s_addr = u32::from(Ipv4Addr::LOCALHOST).to_be();
        message.msg_name = (&raw mut to).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<Self>() as _;
        // SAFETY: `message` points to `to` and `control`, which outlive the call.
        let done = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_CONFIRM | MSG_PROBE) };
        done >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
    }
}

impl RawFrameSender {
    /// Opens a sender of datagrams from `source` in the calling thread's network namespace, of at
    /// most `capacity` bytes, `batch` of them in a call.
    ///
    /// The kernel does not read the source in our header when it looks for a route: it takes the
    /// address that the socket is bound to. If that address goes, the kernel still sends.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or the source is not an address of this host.
    pub fn open_from(source: FlowSource, capacity: usize, batch: usize) -> Result<Self, Error> {
        let sender = Self::open(capacity, batch)?;
        let address = SockaddrIn::from(SocketAddrV4::new(source.address, 0));
        bind(sender.socket.as_raw_fd(), &address).map_err(|errno| {
            Error::new(format!("cannot bind a raw socket to {}", source.address), errno.into())
                .with_hint("`ip address` shows the addresses of this host")
        })?;
        set_mark(&sender.socket, source.mark)?;
        Ok(sender)
    }

    fn open(capacity: usize, batch: usize) -> Result<Self, Error> {
        // SAFETY: a plain system call; the descriptor it returns belongs to this value alone.
        let fd =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
        if fd < 0 {
            return Err(Error::last_os("cannot open a raw socket")
                .with_hint("CAP_NET_RAW is needed in this network namespace: run as root"));
        }
        // SAFETY: `fd` was just returned by the kernel and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        enlarge_send_buffer(&socket);
        // IP_PMTUDISC_PROBE: the tunnel keeps its own path MTU. The one that the kernel has learned
        // must not refuse what the tunnel sends.
        set_socket_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set IP_MTU_DISCOVER on a raw socket", error))?;
        let mut frames = FrameBatch::new(capacity, batch, 0);
        frames.skip_front(LINK_HEADER);
        // SAFETY: `sockaddr_in` is plain old data, for which all zeros is a value.
        let mut names: Box<[libc::sockaddr_in]> = (0..batch).map(|_| unsafe { std::mem::zeroed() }).collect();
        frames.set_names(&mut names);
        let count = if FlowProtocol::is_known(&socket) { batch } else { 0 };
        let mut protocols: Box<[FlowProtocol]> =
            (0..count).map(|_| FlowProtocol::new(libc::IPPROTO_IPIP as u8)).collect();
        frames.set_controls(&mut protocols);
        Ok(Self { socket, frames, names, protocols, sent: Sent::default() })
    }

    /// Opens a sender that uses the routes and addresses of `scope`, for datagrams to inner hosts.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, the namespace cannot be entered, or there is no such VRF.
    pub fn open_in(scope: &NetScope, capacity: usize, batch: usize) -> Result<Self, Error> {
        scope.run(|| {
            let sender = Self::open(capacity, batch)?;
            bind_to_vrf(&sender.socket, scope)?;
            Ok(sender)
        })?
    }
}

impl FrameSender for RawFrameSender {
    fn capacity(&self) -> usize {
        self.frames.capacity
    }

    fn completes_checksums(&self) -> bool {
        false
    }

    fn frame(&mut self) -> &mut [u8] {
        if self.frames.is_full() {
            self.flush();
        }
        self.frames.frame()
    }

    fn commit(&mut self, len: usize, checksum: Option<PartialChecksum>) {
        debug_assert!(checksum.is_none(), "the kernel does not complete checksums of raw datagrams");
        let slot = self.frames.slot();
        let header = &self.frames.frame()[LINK_HEADER..];
        let protocol = header[9];
        let destination: [u8; 4] = header[16..][..4].try_into().unwrap_or_default();
        if let Some(flow) = self.protocols.get_mut(slot) {
            flow.protocol = protocol.into();
        }
        let name = &mut self.names[slot];
        name.sin_family = libc::AF_INET as u16;
        name.sin_addr.s_addr = u32::from(Ipv4Addr::from(destination)).to_be();
        self.frames.commit(len);
    }

    fn flush(&mut self) {
        self.frames.send(&self.socket, &mut self.sent);
    }

    fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }
}

impl std::fmt::Debug for RawFrameSender {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("RawFrameSender")
            .field("socket", &self.socket.as_raw_fd())
            .finish_non_exhaustive()
    }
}
