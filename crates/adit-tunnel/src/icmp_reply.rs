//! An ICMP error for the sender of an inner datagram.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error};

/// Bytes of the longest error, that of IPv6.
pub const MAX_REPLY_LEN: usize = icmpv6::MAX_ERROR_LEN;

/// An ICMP error for the sender of a datagram, in the datagram's family. It has passed the rate
/// limit and the rules about what is never answered (RFC 1122 section 3.2.2, RFC 4443 section 2.4),
/// and is counted as sent: the caller sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// About a datagram of IPv4.
    V4 {
        /// The sender of the offending inner datagram.
        destination: Ipv4Addr,
        /// The error.
        error: Icmpv4Error,
    },
    /// About a packet of IPv6.
    V6 {
        /// The sender of the offending inner packet.
        destination: Ipv6Addr,
        /// The error.
        error: Icmpv6Error,
    },
}

impl Reply {
    /// The sender of the offending inner datagram.
    pub fn destination(&self) -> IpAddr {
        match *self {
            Reply::V4 { destination, .. } => destination.into(),
            Reply::V6 { destination, .. } => destination.into(),
        }
    }

    /// Writes the whole IP datagram that carries the error into `out` and returns its length in
    /// bytes.
    ///
    /// `offending` is the inner datagram (or as much of it as there is); as much of it is quoted as
    /// fits in 576 bytes (RFC 1812 section 4.3.2.3), or 1280 of IPv6. The source is unspecified: a
    /// raw socket of the host fills in its address towards the sender, and the header checksum of
    /// IPv4 with it. The checksum of ICMP for IPv6 covers the source, so whoever sends it fills in
    /// both.
    pub fn write(&self, offending: &[u8], out: &mut [u8; MAX_REPLY_LEN]) -> usize {
        match *self {
            Reply::V4 { destination, error } => {
                let Some(out) = out.first_chunk_mut() else { return 0 };
                icmpv4::build_error(out, Ipv4Addr::UNSPECIFIED, destination, error, offending)
            }
            Reply::V6 { destination, error } => {
                icmpv6::build_error(out, Ipv6Addr::UNSPECIFIED, destination, error, offending)
            }
        }
    }
}
