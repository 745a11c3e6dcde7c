//! A gateway of the two-site network behind 1:1 NAT, such as an elastic address of a cloud: it has
//! a private address on the underlay, and the router maps its public one to it.

use std::net::Ipv4Addr;

use adit_lab::LabError;
use adit_lab::cable::network;
use adit_lab::router::Rule;
use adit_lab::two_sites::{TwoSites, UNDERLAY_A, UNDERLAY_B};
use ipnet::Ipv4Net;

/// A gateway of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gateway {
    /// Gateway A.
    A,
    /// Gateway B.
    B,
}

impl Gateway {
    /// The address by which others call it.
    #[must_use]
    pub fn public(self) -> Ipv4Addr {
        match self {
            Self::A => UNDERLAY_A,
            Self::B => UNDERLAY_B,
        }
    }

    /// The address that it has behind NAT.
    #[must_use]
    pub fn private(self) -> Ipv4Addr {
        match self {
            Self::A => Ipv4Addr::new(10, 77, 1, 10),
            Self::B => Ipv4Addr::new(10, 77, 2, 10),
        }
    }
}

/// Puts a gateway behind NAT. Its configuration has to name [`Gateway::private`].
///
/// # Errors
/// Fails if the kernel refuses an address or a route, or `nft` the rules.
pub fn put_behind(sites: &TwoSites, gateway: Gateway) -> Result<Rule, LabError> {
    let (host, device, port, outside, peer) = match gateway {
        Gateway::A => (&sites.gateway_a, "underlayA", "toA", "toB", Gateway::B),
        Gateway::B => (&sites.gateway_b, "underlayB", "toB", "toA", Gateway::A),
    };
    let (public, private) = (gateway.public(), gateway.private());
    let index = host.index(device)?;
    host.netlink()?.delete_address(index, network(public, 24).into())?;
    host.address(device, network(private, 24))?;
    // The router answers ARP for the peer.
    host.route(Ipv4Net::from(peer.public()), None, Some(device))?;
    sites.router.route(Ipv4Net::from(private), None, Some(port))?;
    sites.router.map_address(outside, private, public)
}
