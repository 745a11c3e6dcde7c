//! A sender of datagrams that the kernel routes: a raw socket that takes our IP header, many
//! datagrams in a call.
//!
//! It is slower than the senders of frames, but works on any interface and under any routing
//! policy.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::sys::socket::{SockaddrStorage, bind};

use crate::error::Error;
use crate::family::Family;
use crate::flow_source::FlowSource;
use crate::net_scope::NetScope;
use crate::sockets::destinations::Destinations;
use crate::sockets::frame_batch::FrameBatch;
use crate::sockets::frames::{FrameSender, LINK_HEADER, Sent};
use crate::sockets::options::{bind_to_vrf, enlarge_send_buffer, set_mark, set_socket_option};
use crate::sockets::virtio_net::PartialChecksum;

/// A sender of datagrams by the host's routes.
///
/// Of IPv4, the kernel replaces a source of 0.0.0.0 by this host's address towards the destination,
/// and an identification of 0 if DF is clear. Of IPv6 it sends the datagram as it is. It refuses
/// datagrams longer than the interface's MTU (`EMSGSIZE`), whatever path MTU it has learned.
pub struct RawFrameSender {
    socket: OwnedFd,
    frames: FrameBatch,
    destinations: Destinations,
    sent: Sent,
}

impl RawFrameSender {
    /// Opens a sender of datagrams of the family of `source`, in the calling thread's network
    /// namespace, of at most `capacity` bytes, `batch` of them in a call.
    ///
    /// The kernel does not read the source in our header when it looks for a route: it takes the
    /// address that the socket is bound to. If that address goes, the kernel still sends.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or the source is not an address of this host. An IPv6 address is one
    /// only when its check for duplicates is complete.
    pub fn open_from(source: FlowSource, capacity: usize, batch: usize) -> Result<Self, Error> {
        let sender = Self::open(Family::of(source.address), capacity, batch)?;
        let address = SockaddrStorage::from(SocketAddr::new(source.address, 0));
        bind(sender.socket.as_raw_fd(), &address).map_err(|errno| {
            Error::new(format!("cannot bind a raw socket to {}", source.address), errno.into())
                .with_hint("`ip address` shows the addresses of this host")
        })?;
        set_mark(&sender.socket, source.mark)?;
        Ok(sender)
    }

    fn open(family: Family, capacity: usize, batch: usize) -> Result<Self, Error> {
        // IP_PMTUDISC_PROBE: the tunnel keeps its own path MTU. The one that the kernel has learned
        // must not refuse what the tunnel sends.
        let (domain, level, option, probe) = match family {
            Family::V4 => (libc::AF_INET, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
            Family::V6 => {
                (libc::AF_INET6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE)
            }
        };
        // IPPROTO_RAW: the kernel takes our header.
        // SAFETY: a plain system call; the descriptor it returns belongs to this value alone.
        let fd = unsafe { libc::socket(domain, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
        if fd < 0 {
            return Err(Error::last_os("cannot open a raw socket")
                .with_hint("CAP_NET_RAW is needed in this network namespace: run as root"));
        }
        // SAFETY: `fd` was just returned by the kernel and has no other owner.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        enlarge_send_buffer(&socket);
        set_socket_option(&socket, level, option, probe)
            .map_err(|error| Error::new("cannot set IP_MTU_DISCOVER on a raw socket", error))?;
        let mut frames = FrameBatch::new(capacity, batch, 0);
        frames.skip_front(LINK_HEADER);
        let destinations = Destinations::new(family, &socket, &mut frames, batch);
        Ok(Self { socket, frames, destinations, sent: Sent::default() })
    }

    /// Opens a sender of IPv4 datagrams that uses the routes and addresses of `scope`, for
    /// datagrams to inner hosts.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, the namespace cannot be entered, or there is no such VRF.
    pub fn open_in(scope: &NetScope, capacity: usize, batch: usize) -> Result<Self, Error> {
        scope.run(|| {
            let sender = Self::open(Family::V4, capacity, batch)?;
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
        self.destinations.set(slot, &self.frames.frame()[LINK_HEADER..]);
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
