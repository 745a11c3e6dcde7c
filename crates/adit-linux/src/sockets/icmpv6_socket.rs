//! A raw ICMPv6 socket, for ICMP errors to the hosts inside and for `ping`. The kernel writes the
//! IPv6 header, chooses the source, and fills in the checksum that covers it (RFC 3542 section
//! 3.1).

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::net_scope::NetScope;
use crate::sockets::options::{attach_filter, bind_to_vrf, set_socket_option};

/// See the module.
#[derive(Debug)]
pub struct Icmpv6Socket {
    socket: Socket,
}

impl Icmpv6Socket {
    /// Opens a socket in the calling thread's network namespace that receives every ICMPv6 message
    /// to this host. What it sends is not fragmented here, whatever path MTU the kernel has
    /// learned.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing, or the kernel has no IPv6.
    pub fn open() -> Result<Self, Error> {
        let socket = Self::open_any()?;
        let (level, option) = (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER);
        set_socket_option(&socket.socket, level, option, libc::IPV6_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set IPV6_MTU_DISCOVER on a raw socket", error))?;
        Ok(socket)
    }

    /// Opens a socket that uses the routes and addresses of `scope` and receives nothing.
    ///
    /// # Errors
    /// As [`Self::open`]; the namespace cannot be entered, or there is no such VRF.
    pub fn sender_in(scope: &NetScope) -> Result<Self, Error> {
        scope.run(|| {
            let socket = Self::open_any()?;
            let nothing = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
            attach_filter(&socket.socket, &nothing)
                .map_err(|error| Error::new("cannot attach a filter to a raw ICMPv6 socket", error))?;
            bind_to_vrf(&socket.socket, scope)?;
            Ok(socket)
        })?
    }

    fn open_any() -> Result<Self, Error> {
        let opened = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6));
        let socket = opened
            .map_err(|error| Error::new("cannot open a raw ICMPv6 socket", error).needing("CAP_NET_RAW"))?;
        Ok(Self { socket })
    }

    /// Sets the hop limit of the messages sent from now on.
    ///
    /// # Errors
    /// The kernel refuses the value 0.
    pub fn set_hop_limit(&self, hop_limit: u8) -> io::Result<()> {
        self.socket.set_unicast_hops_v6(hop_limit.into())
    }

    /// Sends an ICMPv6 message, from its type on. Does not block.
    ///
    /// # Errors
    /// There is no route, the message is longer than the interface's MTU, or the queue is full.
    pub fn send(&self, message: &[u8], destination: Ipv6Addr) -> io::Result<()> {
        let to = SocketAddrV6::new(destination, 0, 0, 0);
        self.socket.send_to_with_flags(message, &to.into(), libc::MSG_DONTWAIT).map(drop)
    }

    /// Receives an ICMPv6 message, from its type on. Returns its length in bytes and its source, or
    /// `None` if none arrives within `timeout` or a signal arrives.
    ///
    /// # Errors
    /// The kernel cannot read from the socket.
    pub fn receive(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<(usize, Ipv6Addr)>> {
        if timeout.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(timeout))?;
        // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and the kernel writes whole bytes only.
        let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [MaybeUninit<u8>]) };
        match self.socket.recv_from(buffer) {
            Ok((len, source)) => Ok(source.as_socket_ipv6().map(|source| (len, *source.ip()))),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
