//! A raw ICMP socket: what `ping` and `tracepath` use.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::sockets::packet::set_socket_option;

/// Sends ICMP messages with DF set, and receives every ICMP message to this host.
#[derive(Debug)]
pub struct IcmpSocket {
    socket: Socket,
}

impl IcmpSocket {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// No CAP_NET_RAW.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map_err(|error| {
            Error::new("cannot open a raw ICMP socket", error)
                .with_hint("CAP_NET_RAW is needed in this network namespace: run as root")
        })?;
        // DF is set, and what the kernel has heard of the path does not keep us from asking it.
        set_socket_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set DF on a raw ICMP socket", error))?;
        Ok(Self { socket })
    }

    /// Lets the messages carry this TTL.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_ttl(&self, ttl: u8) -> io::Result<()> {
        self.socket.set_ttl_v4(u32::from(ttl))
    }

    /// Sends an ICMP message (from its type on).
    ///
    /// # Errors
    /// No route, or a message longer than the interface's MTU.
    pub fn send(&self, message: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        self.socket.send_to(message, &SocketAddrV4::new(destination, 0).into()).map(drop)
    }

    /// Receives an IPv4 datagram with an ICMP message in it, waiting at most `patience`;
    /// `None` when nothing came.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn receive(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
        if patience.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(patience))?;
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
