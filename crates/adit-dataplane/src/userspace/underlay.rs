//! The underlay as the kernel knows it now: its interfaces, and the route to each peer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit_linux::error::Error;
use adit_linux::flow_source::FlowSource;
use adit_linux::netlink::{Link, LinkLayer, Netlink, RouteKind, RouteLookup};
use adit_linux::sockets::raw::RawSocket;
use adit_tunnel::{Path, PeerIndex, Tunnel};

use crate::routes::note_routes;
use crate::underlay_sources::UnderlaySources;

/// See the module.
pub(super) struct Underlay {
    pub(super) links: BTreeMap<u32, Link>,
    /// The route to each peer; `None` where the kernel has none.
    pub(super) routes: Vec<(PeerIndex, Option<RouteLookup>)>,
}

impl Underlay {
    /// Looks up the routes to these peers, and sets the MTU of their interfaces in the tunnel, less
    /// what IPsec adds. It takes a few system calls, and two for each peer that a policy covers.
    pub(super) fn look(
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        sources: UnderlaySources,
        paths: impl Iterator<Item = (PeerIndex, Path)> + Clone,
    ) -> Result<Self, Error> {
        let links = netlink.links()?.into_iter().map(|link| (link.index, link)).collect();
        let mut seen = Self { links, routes: Vec::new() };
        for (source, peers) in sources.group(paths) {
            seen.look_from(netlink, tunnel, source, peers)?;
        }
        Ok(seen)
    }

    /// The same for peers that are sent to from one of our addresses.
    fn look_from(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        source: FlowSource,
        peers: Vec<(PeerIndex, IpAddr)>,
    ) -> Result<(), Error> {
        let (peers, addresses): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
        let routes = netlink.routes_to(&addresses, Some(source))?;
        note_routes(tunnel, &peers, &routes);
        let routes =
            routes.into_iter().map(|route| route.ok().filter(|route| route.kind == RouteKind::Unicast));
        let mut added = AddedByIpsec { source, asked: None };
        for ((peer, address), route) in peers.into_iter().zip(addresses).zip(routes) {
            let link = route.as_ref().and_then(|route| Some((route, self.links.get(&route.device)?)));
            if let Some((route, link)) = link {
                let is_covered = tunnel.is_left_to_stack(peer);
                let added = if is_covered { added.to(address, route.mtu.unwrap_or(link.mtu)) } else { 0 };
                // Not the route's MTU: the kernel believes ICMP errors that the tunnel may doubt.
                let mtu = link.mtu.saturating_sub(added);
                tunnel.set_underlay_mtu(peer, mtu.min(65_535) as u16);
            }
            self.routes.push((peer, route));
        }
        Ok(())
    }

    /// An interface, if it is Ethernet, up and running.
    pub(super) fn ethernet(&self, index: u32) -> Option<&Link> {
        let link = self.links.get(&index)?;
        (link.hardware == LinkLayer::Ethernet && link.up && link.running).then_some(link)
    }
}

/// How many bytes IPsec adds to a datagram. Routers' errors about encrypted datagrams quote nothing
/// of ours, and what exceeds the interface's MTU only because of IPsec is lost in silence.
struct AddedByIpsec {
    source: FlowSource,
    /// Open from the first question on.
    asked: Option<RawSocket>,
}

impl AddedByIpsec {
    /// `route_mtu` is the MTU of the route to the peer without IPsec. 0 if the kernel cannot say.
    fn to(&mut self, peer: IpAddr, route_mtu: u32) -> u32 {
        if self.asked.is_none() {
            self.asked = RawSocket::path_from(self.source).ok();
        }
        let mtu = self.asked.as_ref().and_then(|socket| socket.path_mtu(peer).ok());
        mtu.map_or(0, |mtu| route_mtu.saturating_sub(mtu))
    }
}
