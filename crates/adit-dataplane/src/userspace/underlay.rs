//! The underlay as the kernel knows it now: its interfaces, and the route to each peer.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use adit_linux::error::Error;
use adit_linux::flow_source::FlowSource;
use adit_linux::netlink::{Link, LinkLayer, Netlink, RouteKind, RouteLookup};
use adit_tunnel::{PeerIndex, Tunnel};

/// A peer and its underlay address.
pub(super) type PeerAddress = (PeerIndex, Ipv4Addr);

/// All peers of a tunnel that have an IPv4 address.
pub(super) fn all_peers(tunnel: &Tunnel) -> Vec<PeerAddress> {
    tunnel.peers().map(|(index, peer)| (index, peer.underlay)).collect()
}

/// See the module.
pub(super) struct Underlay {
    pub(super) links: BTreeMap<u32, Link>,
    /// The route to each peer; `None` where the kernel has none.
    pub(super) routes: Vec<(PeerIndex, Option<RouteLookup>)>,
}

impl Underlay {
    /// Looks up the routes to these peers, and sets the MTU of their interfaces in the tunnel. It
    /// takes a few system calls, whatever the number of peers.
    pub(super) fn look(
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        source: FlowSource,
        peers: &[PeerAddress],
    ) -> Result<Self, Error> {
        let links: BTreeMap<u32, Link> =
            netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let (peers, addresses): (Vec<_>, Vec<_>) = peers.iter().copied().unzip();
        let routes = netlink.routes_to(&addresses, Some(source))?;
        let routes =
            routes.into_iter().map(|route| route.ok().filter(|route| route.kind == RouteKind::Unicast));
        let routes: Vec<_> = peers.into_iter().zip(routes).collect();
        for (peer, route) in &routes {
            if let Some(link) = route.as_ref().and_then(|route| links.get(&route.device)) {
                // Not the route's MTU: the kernel believes ICMP errors that the tunnel may doubt.
                tunnel.set_underlay_mtu(*peer, link.mtu.min(65_535) as u16);
            }
        }
        Ok(Self { links, routes })
    }

    /// An interface, if it is Ethernet, up and running.
    pub(super) fn ethernet(&self, index: u32) -> Option<&Link> {
        let link = self.links.get(&index)?;
        (link.hardware == LinkLayer::Ethernet && link.up && link.running).then_some(link)
    }
}
