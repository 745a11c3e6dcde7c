//! The source of what the tunnel sends on the underlay, as the kernel's routing rules see it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source address and the firewall mark by which routing rules (`ip rule`) choose a route.
///
/// Route lookups and senders take the same value, so that what is sent takes the route that was
/// looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSource {
    /// Our address on the underlay.
    pub address: IpAddr,
    /// The firewall mark (`SO_MARK`); 0 is none.
    pub mark: u32,
}

impl From<IpAddr> for FlowSource {
    /// An address without a mark.
    fn from(address: IpAddr) -> Self {
        Self { address, mark: 0 }
    }
}

impl From<Ipv4Addr> for FlowSource {
    /// An address without a mark.
    fn from(address: Ipv4Addr) -> Self {
        IpAddr::from(address).into()
    }
}

impl From<Ipv6Addr> for FlowSource {
    /// An address without a mark.
    fn from(address: Ipv6Addr) -> Self {
        IpAddr::from(address).into()
    }
}
