//! What lookups of routes say of the peers.

use adit_linux::error::Error;
use adit_linux::netlink::RouteLookup;
use adit_tunnel::{PeerIndex, Tunnel};

use crate::clock::Clock;

/// Notes in the tunnel to which peers there is a route. Other errors say nothing about the route:
/// without our address no lookup from it succeeds.
pub(crate) fn note_routes(tunnel: &Tunnel, peers: &[PeerIndex], routes: &[Result<RouteLookup, Error>]) {
    let now = Clock.now();
    for (peer, route) in peers.iter().zip(routes) {
        match route {
            Ok(_) => tunnel.set_has_route(*peer, true, now),
            Err(error) if error.is_no_route() => tunnel.set_has_route(*peer, false, now),
            Err(_) => {}
        }
    }
}
