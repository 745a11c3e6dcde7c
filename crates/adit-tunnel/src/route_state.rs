//! Whether this host has a route to a peer's underlay address, as the data plane last saw it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use adit_policy::PeerIndex;

use crate::time::Instant;
use crate::tunnel::Tunnel;

/// Since when there is no route, in milliseconds plus one; 0: there is one.
#[derive(Debug, Default)]
pub(crate) struct RouteState(AtomicU64);

impl Tunnel {
    /// Records whether the host has a route to a peer. The data plane that looks routes up calls it
    /// after each look.
    pub fn set_has_route(&self, peer: PeerIndex, has_route: bool, now: Instant) {
        let Some(peer) = self.peer_state(peer) else { return };
        let is_known = peer.route.0.load(Relaxed) != 0;
        if is_known == has_route {
            let since = if has_route { 0 } else { now.as_millis().saturating_add(1) };
            peer.route.0.store(since, Relaxed);
        }
    }

    /// Since when the host has no route to a peer; `None`: it has one, as far as is known.
    pub fn without_route_since(&self, peer: PeerIndex) -> Option<Instant> {
        self.peer_state(peer)?.route.0.load(Relaxed).checked_sub(1).map(Instant::from_millis)
    }
}
