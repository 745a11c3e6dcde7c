//! The transmit offloads of an Ethernet interface (`ethtool -K`).
//!
//! Only tests use this. It stays here because the ioctl needs `unsafe`, which no other crate may
//! contain, and because a test must not depend on the `ethtool` program.

use std::os::fd::AsRawFd;

use crate::error::{Error, Result};

// linux/ethtool.h
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Turns off checksum offload on transmit for the interface `device` of the calling thread's
/// network namespace.
///
/// The kernel then computes checksums itself, and therefore also segments, before it hands a
/// datagram to the interface. A capture behind a veth sees the datagrams that a wire would carry.
///
/// # Errors
/// There is no such interface, or CAP_NET_ADMIN is missing.
pub fn disable_transmit_offloads(device: &str) -> Result<()> {
    let what = || format!("cannot turn off the offloads of {device}");
    let mut value = Value { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: `ifreq` is plain old data, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(Error::from_errno(what(), libc::ENODEV));
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = byte.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))
        .map_err(|error| Error::new(what(), error))?;
    // SAFETY: SIOCETHTOOL reads the `ifreq` and the `ethtool_value` it points to; both outlive the
    // call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(Error::last_os(what()).needing("CAP_NET_ADMIN")) } else { Ok(()) }
}
