//! What the rules ask of an outer header. Its addresses are of either family.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_wire::Protocol;

/// The header of an outer datagram that has arrived, which is valid.
pub trait OuterView {
    /// The addresses of the underlay.
    type Address: OuterAddress;
    /// The source address.
    fn source(&self) -> Self::Address;
    /// The destination address.
    fn destination(&self) -> Self::Address;
    /// What follows the header, and in IPv6 the extension headers that a tunnel writes.
    fn protocol(&self) -> Protocol;
    /// Whether it is a fragment.
    fn is_fragment(&self) -> bool;
}

/// An address of the underlay.
pub trait OuterAddress: Copy + Eq {
    /// The address, if the underlay has the family of IPv4.
    fn of_v4(address: Ipv4Addr) -> Option<Self>;
    /// The same of IPv6.
    fn of_v6(address: Ipv6Addr) -> Option<Self>;
}

impl OuterAddress for IpAddr {
    #[inline(always)]
    fn of_v4(address: Ipv4Addr) -> Option<IpAddr> {
        Some(IpAddr::V4(address))
    }

    #[inline(always)]
    fn of_v6(address: Ipv6Addr) -> Option<IpAddr> {
        Some(IpAddr::V6(address))
    }
}
