//! Socket options that several kinds of sockets set or read.
//!
//! Most functions return the bare system error. The caller adds what it attempted, and on what.

use std::ffi::OsString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::BindToDevice;

use crate::error::Error;
use crate::net_scope::NetScope;

/// How long a send waits for room in a full buffer, in microseconds.
const SEND_TIMEOUT_US: libc::suseconds_t = 20_000;
/// Bytes asked for the two buffers of a socket that carries the tunnel's traffic.
const RECEIVE_BUFFER: libc::c_int = 8 << 20;
const SEND_BUFFER: libc::c_int = 4 << 20;

/// Sets an option to `value`, which must be of the type that the kernel expects for it.
pub(crate) fn set_socket_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: T,
) -> io::Result<()> {
    // SAFETY: the kernel reads `value`, of the size given, during the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size_of::<T>() as u32)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Binds a raw socket to the VRF of `scope`, if there is one.
pub(crate) fn bind_to_vrf(socket: &impl AsFd, scope: &NetScope) -> Result<(), Error> {
    let Some(vrf) = &scope.vrf else { return Ok(()) };
    setsockopt(socket, BindToDevice, &OsString::from(vrf)).map_err(|errno| {
        Error::new(format!("cannot bind a raw socket to the VRF {vrf}"), errno.into())
            .with_hint("`ip link show type vrf` shows the VRFs")
    })
}

/// Reads an option that holds a 32-bit number. Of a longer option it returns the first word.
pub(crate) fn get_socket_option(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<u32> {
    let mut value = 0u32;
    let mut len = size_of::<u32>() as u32;
    // SAFETY: the kernel writes at most `len` bytes into `value`.
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Makes room for bursts. Best effort: only root of the initial user namespace may go beyond
/// `net.core.rmem_max`.
pub(crate) fn enlarge_receive_buffer(socket: &impl AsRawFd) {
    set_receive_buffer(socket, RECEIVE_BUFFER);
}

/// Sets the receive buffer to that many bytes, as [`enlarge_receive_buffer`].
pub(crate) fn set_receive_buffer(socket: &impl AsRawFd, bytes: libc::c_int) {
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }
}

/// Makes room for packets to be sent, and bounds the wait for room, so that an interface that takes
/// nothing cannot hold the thread. Best effort, as [`enlarge_receive_buffer`].
pub(crate) fn enlarge_send_buffer(socket: &impl AsRawFd) {
    let timeout = libc::timeval { tv_sec: 0, tv_usec: SEND_TIMEOUT_US };
    let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, timeout);
    if set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, SEND_BUFFER).is_err() {
        let _ = set_socket_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, SEND_BUFFER);
    }
}

/// Sets the firewall mark of what the socket sends; 0 is none.
pub(crate) fn set_mark(socket: &impl AsRawFd, mark: u32) -> Result<(), Error> {
    if mark == 0 {
        return Ok(());
    }
    set_socket_option(socket, libc::SOL_SOCKET, libc::SO_MARK, mark).map_err(|error| {
        Error::new(format!("cannot set the firewall mark {mark} on a socket"), error).needing("CAP_NET_ADMIN")
    })
}

/// Attaches a classic BPF program that decides what the socket receives.
pub(crate) fn attach_filter(socket: &impl AsRawFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    set_socket_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}
