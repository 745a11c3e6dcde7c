//! What the rules ask of an address of the underlay, which is of either family.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
