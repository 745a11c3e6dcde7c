//! The destinations of a batch of datagrams for a raw socket that takes our IP header, and their
//! protocols.
//!
//! The kernel reads neither in our header when it looks for a route. Without the protocol, it takes
//! a datagram for one of protocol 255, and applies no policy of IPsec and no routing rule that
//! names a protocol. Linux takes the protocol since 6.4 (and 6.1.31): of IPv4 in a control message,
//! of IPv6 in the place of the port.

use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::family::Family;
use crate::sockets::frame_batch::FrameBatch;

// linux/in.h
const IP_PROTOCOL: libc::c_int = 52;
/// Do not send, only look up the route (linux/socket.h).
const MSG_PROBE: libc::c_int = 0x10;
/// Extension headers that begin with the number of the header behind them, and that what the tunnel
/// sends may have.
const EXTENSIONS: [u8; 2] = [libc::IPPROTO_FRAGMENT as u8, libc::IPPROTO_DSTOPTS as u8];

/// See the module. The message headers of a batch point into it; a boxed slice does not move.
pub(super) enum Destinations {
    V4 {
        names: Box<[libc::sockaddr_in]>,
        /// Empty if the kernel takes none.
        protocols: Box<[FlowProtocol]>,
    },
    V6 {
        names: Box<[libc::sockaddr_in6]>,
        takes_protocols: bool,
    },
}

/// A control message with the protocol of an IPv4 datagram.
#[repr(C)]
pub(super) struct FlowProtocol {
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
}

impl Destinations {
    /// Makes `count` destinations for what `socket` sends, and points the messages of `frames` to
    /// them. The caller keeps the two together.
    pub(super) fn new(family: Family, socket: &OwnedFd, frames: &mut FrameBatch, count: usize) -> Self {
        match family {
            Family::V4 => {
                let mut names: Box<[_]> = (0..count).map(|_| name_v4(Ipv4Addr::LOCALHOST)).collect();
                frames.set_names(&mut names);
                let known = takes_protocol(
                    socket,
                    &mut name_v4(Ipv4Addr::LOCALHOST),
                    &mut [FlowProtocol::new(libc::IPPROTO_IPIP as u8)],
                );
                let mut protocols: Box<[_]> = (0..if known { count } else { 0 })
                    .map(|_| FlowProtocol::new(libc::IPPROTO_IPIP as u8))
                    .collect();
                frames.set_controls(&mut protocols);
                Self::V4 { names, protocols }
            }
            Family::V6 => {
                let mut names: Box<[_]> = (0..count).map(|_| name_v6(Ipv6Addr::LOCALHOST, 0)).collect();
                frames.set_names(&mut names);
                let mut name = name_v6(Ipv6Addr::LOCALHOST, libc::IPPROTO_IPV6 as u8);
                let takes_protocols = takes_protocol::<_, FlowProtocol>(socket, &mut name, &mut []);
                Self::V6 { names, takes_protocols }
            }
        }
    }

    /// Sets the destination and the protocol of message `slot` from the front of its datagram.
    pub(super) fn set(&mut self, slot: usize, datagram: &[u8]) {
        match self {
            Self::V4 { names, protocols } => {
                if let Some(flow) = protocols.get_mut(slot) {
                    flow.protocol = datagram[9].into();
                }
                let destination: [u8; 4] = datagram[16..][..4].try_into().unwrap_or_default();
                names[slot] = name_v4(destination.into());
            }
            Self::V6 { names, takes_protocols } => {
                let next = datagram[6];
                let protocol = match datagram.get(40) {
                    Some(behind) if EXTENSIONS.contains(&next) => *behind,
                    _ => next,
                };
                let destination: [u8; 16] = datagram[24..][..16].try_into().unwrap_or_default();
                names[slot] = name_v6(destination.into(), if *takes_protocols { protocol } else { 0 });
            }
        }
    }
}

fn name_v4(address: Ipv4Addr) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    }
}

/// With the protocol 0 the kernel takes the socket's.
fn name_v6(address: Ipv6Addr, protocol: u8) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: u16::from(protocol).to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: address.octets() },
        sin6_scope_id: 0,
    }
}

/// Returns true if the kernel takes a protocol with a datagram: asks for a route to the loopback
/// address `name` with it.
fn takes_protocol<N, C>(socket: &OwnedFd, name: &mut N, controls: &mut [C]) -> bool {
    // SAFETY: `msghdr` is plain old data, for which all zeros is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = std::ptr::from_mut(name).cast();
    message.msg_namelen = size_of::<N>() as u32;
    message.msg_control = controls.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(controls) as _;
    // SAFETY: `message` points to `name` and `controls`, which outlive the call.
    let done = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_CONFIRM | MSG_PROBE) };
    done >= 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}
