//! The protocol field of the IPv4 header and the next header field of IPv6 (IANA "Assigned Internet
//! Protocol Numbers").

use core::fmt;

/// The protocol of a datagram's payload. Any of the 256 values is valid; those that Adit knows have
/// a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// Hop-by-hop options, an extension header of IPv6.
    pub const HOP_BY_HOP: Protocol = Protocol(0);
    /// Internet Control Message Protocol, RFC 792.
    pub const ICMP: Protocol = Protocol(1);
    /// IPv4 in IP, RFC 2003: the tunnel's own.
    pub const IPIP: Protocol = Protocol(4);
    /// Transmission Control Protocol, RFC 9293.
    pub const TCP: Protocol = Protocol(6);
    /// User Datagram Protocol, RFC 768.
    pub const UDP: Protocol = Protocol(17);
    /// IPv6 in IP, RFC 4213.
    pub const IPV6: Protocol = Protocol(41);
    /// Routing, an extension header of IPv6.
    pub const ROUTING: Protocol = Protocol(43);
    /// Fragment, an extension header of IPv6.
    pub const FRAGMENT: Protocol = Protocol(44);
    /// ICMP for IPv6, RFC 4443.
    pub const ICMPV6: Protocol = Protocol(58);
    /// Destination options, an extension header of IPv6.
    pub const DESTINATION_OPTIONS: Protocol = Protocol(60);
}

/// The name if there is one (`TCP`), else `protocol 132`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Protocol::ICMP => "ICMP",
            Protocol::IPIP => "IPIP",
            Protocol::TCP => "TCP",
            Protocol::UDP => "UDP",
            Protocol::IPV6 => "IPV6",
            Protocol::ICMPV6 => "ICMPV6",
            Protocol(other) => return write!(f, "protocol {other}"),
        };
        f.pad(name)
    }
}
