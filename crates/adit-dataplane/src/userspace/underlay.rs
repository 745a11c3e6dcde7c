//! What the kernel says of the underlay now: its interfaces, and the route to each peer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use adit_linux::error::Error;
use adit_linux::netlink::{Link, LinkLayer, Netlink, RouteKind, RouteLookup};
use adit_tunnel::{PeerIndex, Tunnel};

/// A peer, and where it is.
pub(super) type At = (PeerIndex, Ipv4Addr);

/// All peers of a tunnel.
pub(super) fn everybody(tunnel: &Tunnel) -> Vec<At> {
    tunnel.peers().map(|(index, peer)| (index, peer.underlay)).collect()
}

/// One look at it.
pub(super) struct Underlay {
    pub(super) links: BTreeMap<u32, Link>,
    /// The way to each peer; `None` where the kernel has none to offer.
    pub(super) routes: Vec<(PeerIndex, Option<RouteLookup>)>,
}

impl Underlay {
    /// Looks at the ways to these peers, and tells the tunnel what the interfaces take. A few system calls, however
    /// many they are.
    pub(super) fn look(
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        own: Ipv4Addr,
        peers: &[At],
    ) -> Result<Self, Error> {
        let links: BTreeMap<u32, Link> =
            netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let (peers, addresses): (Vec<_>, Vec<_>) = peers.iter().copied().unzip();
        let routes = netlink.routes_to(&addresses, Some(own))?;
        let routes =
            routes.into_iter().map(|route| route.ok().filter(|route| route.kind == RouteKind::Unicast));
        let routes: Vec<_> = peers.into_iter().zip(routes).collect();
        for (peer, route) in &routes {
            if let Some(link) = route.as_ref().and_then(|route| links.get(&route.device)) {
                // Not the route's: the kernel believes ICMP that the tunnel has reason to doubt.
                tunnel.set_underlay_mtu(*peer, link.mtu.min(65_535) as u16);
            }
        }
        Ok(Self { links, routes })
    }

    /// An interface, if frames of ours can leave by it.
    pub(super) fn ethernet(&self, index: u32) -> Option<&Link> {
        let link = self.links.get(&index)?;
        (link.hardware == LinkLayer::Ethernet && link.up && link.running).then_some(link)
    }
}
