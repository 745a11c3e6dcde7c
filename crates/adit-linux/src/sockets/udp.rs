//! Connected UDP sockets that report the ICMP errors their datagrams cause, as programs use them
//! that discover the path MTU (RFC 1191).

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};

use crate::error::{Error, Result};
use crate::sockets::options::set_socket_option;
use crate::sockets::poll::readable_within;

/// A UDP socket whose datagrams carry DF and whose errors can be read in detail.
#[derive(Debug)]
pub struct PathSocket {
    socket: UdpSocket,
}

/// An error about a datagram that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError {
    /// Who reported it.
    pub origin: Origin,
    /// The error that the socket reports for it: `EMSGSIZE`, `EHOSTUNREACH`, `ECONNREFUSED`.
    pub errno: i32,
    /// The ICMP type; 0 if the error is not from ICMP.
    pub kind: u8,
    /// The ICMP code; 0 if the error is not from ICMP.
    pub code: u8,
    /// With `EMSGSIZE`, the longest datagram that passes, in bytes.
    pub mtu: Option<u32>,
    /// The sender of the ICMP error.
    pub offender: Option<Ipv4Addr>,
}

/// The reporter of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host, before it sent the datagram.
    Local,
    /// A host or router, by ICMP.
    Icmp,
    /// Another origin, by its number (`SO_EE_ORIGIN_*`).
    Other(u8),
}

impl PathSocket {
    /// Opens one from `local` (port 0: any port) to `remote`, in the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// `local` is not an address of this host, or there is no route to `remote`.
    pub fn connect(local: SocketAddrV4, remote: SocketAddrV4) -> Result<Self> {
        let socket =
            UdpSocket::bind(local).map_err(|error| Error::new(format!("cannot bind to {local}"), error))?;
        socket.connect(remote).map_err(|error| Error::new(format!("cannot connect to {remote}"), error))?;
        for (option, value) in [(libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO), (libc::IP_RECVERR, 1)] {
            set_socket_option(&socket, libc::IPPROTO_IP, option, value)
                .map_err(|error| Error::new("cannot enable error reports on a UDP socket", error))?;
        }
        Ok(Self { socket })
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// The datagram is longer than the path MTU that this host knows (`EMSGSIZE`), or an error
    /// about an earlier datagram is pending. Then this one was not sent.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(payload).map(drop)
    }

    /// Takes the next pending error, if there is one.
    ///
    /// # Errors
    /// The kernel cannot read the error queue.
    pub fn take_error(&self) -> io::Result<Option<PathError>> {
        // The payload of the datagram in question comes with the error. It is not needed.
        let mut payload = [0; 0];
        let mut pieces = [IoSliceMut::new(&mut payload)];
        let mut control = nix::cmsg_space!([u8; 64]);
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            match recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut pieces, Some(&mut control), flags) {
                Ok(message) => message,
                Err(nix::Error::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
        Ok(message.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv4RecvErr(error, offender) => Some(path_error(&error, offender)),
            _ => None,
        }))
    }

    /// Takes the next error. Returns `None` if none arrives within `timeout`.
    ///
    /// # Errors
    /// As [`Self::take_error`].
    pub fn take_error_within(&self, timeout: Duration) -> io::Result<Option<PathError>> {
        // A pending error makes the socket readable (POLLERR).
        if readable_within(&self.socket, timeout)? { self.take_error() } else { Ok(None) }
    }
}

impl AsFd for PathSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn path_error(error: &libc::sock_extended_err, offender: Option<libc::sockaddr_in>) -> PathError {
    let errno = error.ee_errno.cast_signed();
    let offender = offender
        .filter(|address| address.sin_family == libc::AF_INET as u16)
        .map(|address| Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)));
    PathError {
        origin: match error.ee_origin {
            libc::SO_EE_ORIGIN_LOCAL => Origin::Local,
            libc::SO_EE_ORIGIN_ICMP => Origin::Icmp,
            other => Origin::Other(other),
        },
        errno,
        kind: error.ee_type,
        code: error.ee_code,
        mtu: (errno == libc::EMSGSIZE).then_some(error.ee_info),
        offender,
    }
}
