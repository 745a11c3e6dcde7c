//! A raw ICMP socket, for `ping` and `tracepath`.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;
use crate::sockets::options::set_socket_option;

/// A socket that sends ICMP messages with DF set and receives every ICMP message to this host.
#[derive(Debug)]
pub struct IcmpSocket {
    socket: Socket,
}

impl IcmpSocket {
    /// Opens one in the calling thread's network namespace.
    ///
    /// # Errors
    /// CAP_NET_RAW is missing.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).map_err(|error| {
            Error::new("cannot open a raw ICMP socket", error)
                .with_hint("CAP_NET_RAW is needed in this network namespace: run as root")
        })?;
        // IP_PMTUDISC_PROBE sets DF, and the path MTU that the kernel has learned does not refuse
        // a longer message.
        set_socket_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)
            .map_err(|error| Error::new("cannot set DF on a raw ICMP socket", error))?;
        Ok(Self { socket })
    }

    /// Sets the TTL of the messages sent from now on, in hops.
    ///
    /// # Errors
    /// The kernel refuses the value 0.
    pub fn set_ttl(&self, ttl: u8) -> io::Result<()> {
        self.socket.set_ttl_v4(u32::from(ttl))
    }

    /// Sends an ICMP message, from its type on.
    ///
    /// # Errors
    /// There is no route, or the message is longer than the interface's MTU.
    pub fn send(&self, message: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        self.socket.send_to(message, &SocketAddrV4::new(destination, 0).into()).map(drop)
    }

    /// Receives an IPv4 datagram that carries an ICMP message and returns its length in bytes.
    /// Returns `None` if none arrives within `timeout` or a signal arrives.
    ///
    /// # Errors
    /// The kernel cannot read from the socket.
    pub fn receive(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<Option<usize>> {
        if timeout.is_zero() {
            return Ok(None);
        }
        self.socket.set_read_timeout(Some(timeout))?;
        match (&self.socket).read(buffer) {
            Ok(len) => Ok(Some(len)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
