//! An ICMP error for the sender of an inner datagram.

use std::net::Ipv4Addr;

use adit_wire::icmpv4::{self, Icmpv4Error, MAX_ERROR_LEN};

/// An ICMP error for the sender of a datagram. It has passed the rate limit and the rules about
/// what is never answered (RFC 1122 section 3.2.2), and is counted as sent: the caller sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The sender of the offending inner datagram.
    pub destination: Ipv4Addr,
    /// The error.
    pub error: Icmpv4Error,
}

impl Reply {
    /// Writes the whole IPv4 datagram that carries the error into `out` and returns its length in
    /// bytes.
    ///
    /// `offending` is the inner datagram (or as much of it as there is); as much of it is quoted as
    /// fits in 576 bytes (RFC 1812 section 4.3.2.3). The source is 0.0.0.0: a raw socket of the
    /// host fills in its address towards the sender, and the header checksum with it.
    pub fn write(&self, offending: &[u8], out: &mut [u8; MAX_ERROR_LEN]) -> usize {
        icmpv4::build_error(out, Ipv4Addr::UNSPECIFIED, self.destination, self.error, offending)
    }
}
