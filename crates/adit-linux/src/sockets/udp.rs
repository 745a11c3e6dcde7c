//! Connected UDP sockets that hear what becomes of what they send: path MTU and ICMP errors, as
//! programs do that discover the path's MTU (RFC 1191).

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};

use crate::error::{Error, Result};
use crate::process::wait;
use crate::sockets::packet::set_socket_option;

/// A UDP socket whose datagrams carry DF and whose errors are kept with what caused them.
#[derive(Debug)]
pub struct PathSocket {
    socket: UdpSocket,
}

/// An error that came back for something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathError {
    /// Who says so.
    pub origin: Origin,
    /// As what it was delivered: `EMSGSIZE`, `EHOSTUNREACH`, `ECONNREFUSED`.
    pub errno: i32,
    /// The ICMP type, or 0.
    pub kind: u8,
    /// The ICMP code, or 0.
    pub code: u8,
    /// With `EMSGSIZE`, the longest datagram that would have passed, in bytes.
    pub mtu: Option<u32>,
    /// Who sent the ICMP error.
    pub offender: Option<Ipv4Addr>,
}

/// Who says that something could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This host, before it sent it.
    Local,
    /// A host or router, by ICMP.
    Icmp,
    /// Another, by its number (`SO_EE_ORIGIN_*`).
    Other(u8),
}

impl PathSocket {
    /// Opens one from `local` (port 0: any) to `remote`, in the calling thread's network namespace.
    ///
    /// # Errors
    /// `local` is not ours, no route to `remote`.
    pub fn connect(local: SocketAddrV4, remote: SocketAddrV4) -> Result<Self> {
        let socket =
            UdpSocket::bind(local).map_err(|error| Error::new(format!("cannot bind to {local}"), error))?;
        socket.connect(remote).map_err(|error| Error::new(format!("cannot connect to {remote}"), error))?;
        for (option, value) in [(libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO), (libc::IP_RECVERR, 1)] {
            set_socket_option(&socket, libc::IPPROTO_IP, option, value)
                .map_err(|error| Error::new("cannot have errors reported on a UDP socket", error))?;
        }
        Ok(Self { socket })
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// `EMSGSIZE` when it is longer than the path's MTU as this host knows it; an error that came
    /// back for an earlier one, and then this one was not sent.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(payload).map(drop)
    }

    /// Receives one datagram, waiting for at most `patience`; `None` when none came. An error that
    /// waits ends the waiting too.
    ///
    /// # Errors
    /// One that came back for something sent; [`Self::take_error`] has the details.
    pub fn recv_within(&self, buffer: &mut [u8], patience: Duration) -> io::Result<Option<usize>> {
        if !wait(&self.socket, Some(patience))? {
            return Ok(None);
        }
        match nix::sys::socket::recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => Ok(Some(len)),
            Err(nix::Error::EAGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next error that came back, if one waits.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take_error(&self) -> io::Result<Option<PathError>> {
        // What was sent comes back with it; nobody asks for that.
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

    /// The same, waiting for at most `patience`.
    ///
    /// # Errors
    /// As [`Self::take_error`].
    pub fn take_error_within(&self, patience: Duration) -> io::Result<Option<PathError>> {
        // An error that waits makes the socket readable (POLLERR).
        if wait(&self.socket, Some(patience))? { self.take_error() } else { Ok(None) }
    }

    /// The path's MTU in bytes, as this host knows it now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn path_mtu(&self) -> io::Result<u32> {
        let mut mtu: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes into `mtu`.
        let done = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU,
                (&raw mut mtu).cast(),
                &raw mut len,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(mtu.cast_unsigned()) }
    }

    /// Where it sends from.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            std::net::SocketAddr::V4(address) => Ok(address),
            std::net::SocketAddr::V6(_) => Err(io::Error::other("an IPv4 socket has an IPv6 address")),
        }
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
