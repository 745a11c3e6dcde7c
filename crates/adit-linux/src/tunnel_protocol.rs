//! The protocol numbers under which IPv4 and IPv6 carry packets of a tunnel.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// IP in IP: the packet is one of IPv4 (RFC 2003, RFC 2473).
    Ipip,
    /// The packet is one of IPv6 (RFC 4213, RFC 2473).
    Ipv6,
}

impl TunnelProtocol {
    /// Returns the number in the protocol field.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            TunnelProtocol::Ipip => libc::IPPROTO_IPIP as u8,
            TunnelProtocol::Ipv6 => libc::IPPROTO_IPV6 as u8,
        }
    }
}
