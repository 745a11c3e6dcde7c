//! Datagrams of a raw IPv6 socket, with the header that the kernel does not give.
//!
//! A raw IPv6 socket gives what follows the last extension header, and what the IPv6 header said as
//! control messages (RFC 3542). Here the header is put before it again, so that callers see a
//! datagram as on a raw IPv4 socket.

use std::io::{self, IoSliceMut};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::sockopt::{Ipv6RecvHopLimit, Ipv6RecvPacketInfo, Ipv6RecvTClass};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt};

use crate::sockets::options::set_socket_option;

/// Bytes of an IPv6 header.
const HEADER_LEN: usize = 40;
// linux/in6.h
const IPV6_MULTICAST_ALL: libc::c_int = 29;

/// Makes the kernel report what [`receive`] needs of the header. The socket then also receives
/// nothing that was sent to a group, as a raw IPv4 socket that is bound to an address.
pub(super) fn prepare(socket: &(impl AsFd + AsRawFd)) -> io::Result<()> {
    setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
    setsockopt(socket, Ipv6RecvHopLimit, &true)?;
    setsockopt(socket, Ipv6RecvTClass, &true)?;
    set_socket_option(socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)
}

/// Receives one datagram behind a header of 40 bytes, and returns the length of both in bytes, at
/// most the buffer's. The header has the flow label 0 and no extension headers; its next header is
/// `protocol`.
///
/// # Errors
/// No datagram waits and reading does not block (`WouldBlock`), or the buffer has no room for the
/// header (`InvalidInput`).
pub(super) fn receive(socket: &impl AsRawFd, protocol: u8, buffer: &mut [u8]) -> io::Result<usize> {
    let Some((header, room)) = buffer.split_first_chunk_mut::<HEADER_LEN>() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no room for an IPv6 header of 40 bytes"));
    };
    let room_len = room.len();
    let mut pieces = [IoSliceMut::new(room)];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int, libc::c_int);
    // MSG_TRUNC: the length of the datagram, also if it is longer than the buffer.
    let flags = MsgFlags::MSG_TRUNC;
    let message = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?;
    let source = message.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
    let (mut destination, mut hop_limit, mut class) = (Ipv6Addr::UNSPECIFIED, 0, 0);
    for said in message.cmsgs()? {
        match said {
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                destination = Ipv6Addr::from(info.ipi6_addr.s6_addr);
            }
            ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = limit as u8,
            ControlMessageOwned::Ipv6TClass(value) => class = value as u8,
            _ => {}
        }
    }
    let len = message.bytes;
    // Version 6, traffic class, flow label.
    header[..4].copy_from_slice(&(6 << 28 | u32::from(class) << 20).to_be_bytes());
    header[4..6].copy_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    header[6..8].copy_from_slice(&[protocol, hop_limit]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    Ok(HEADER_LEN + len.min(room_len))
}
