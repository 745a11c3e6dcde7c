//! The part of a carrier that forwards, and the counts that outlive a data plane.

use adit_dataplane::DataPlane;
use adit_tunnel::{PeerIndex, PeerTotals, Totals, Tunnel, UnderlayAddresses};

/// What forwards.
pub(crate) struct Running {
    /// The indices of the interfaces, in the order of
    /// [`Desired::devices`](crate::reconcile::desired::Desired::devices). They are ours, whatever
    /// somebody names them.
    pub(crate) devices: Vec<u32>,
    pub(crate) plane: Box<dyn DataPlane>,
    /// Why this data plane and not another.
    pub(crate) plane_reason: String,
    /// The counts of the data planes that this one has replaced.
    replaced: Totals,
}

impl Running {
    pub(crate) fn new(devices: Vec<u32>, plane: Box<dyn DataPlane>, plane_reason: String) -> Self {
        Self { devices, plane, plane_reason, replaced: Totals::default() }
    }

    /// Returns all counts since the overlay was brought up.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = self.plane.totals();
        totals.add(&self.replaced);
        totals
    }

    /// Returns the counts that end with the data plane that runs, for the peers of another
    /// `tunnel`: a peer is the same if one of its underlay addresses is.
    pub(crate) fn ending_counts(&self, tunnel: &Tunnel) -> Totals {
        let mut counted = self.plane.own_totals();
        counted.add(&self.replaced);
        let old = self.plane.tunnel();
        let mut peers = vec![PeerTotals::default(); tunnel.peer_slots()];
        let same = |addresses: UnderlayAddresses, tunnel: &Tunnel| {
            addresses.iter().find_map(|address| tunnel.lookup_outer(address))
        };
        for (peer, config) in tunnel.peers() {
            let index = same(config.underlay, &old).map(PeerIndex::index);
            if let (Some(count), Some(before)) =
                (peers.get_mut(peer.index()), index.and_then(|index| counted.peers.get(index)))
            {
                *count = *before;
            }
        }
        for dropped in counted.last_drops.iter_mut().flatten() {
            let underlay = dropped.peer.filter(|peer| peer.index() < old.peer_slots());
            let underlay = underlay.map(|peer| old.peer(peer).underlay);
            dropped.peer = underlay.and_then(|underlay| same(underlay, tunnel));
        }
        Totals { peers, ..counted }
    }

    /// Puts another data plane in the place of the one that runs, whose `counts` go on.
    pub(crate) fn replace_plane(&mut self, plane: Box<dyn DataPlane>, counts: Totals) {
        (self.plane, self.replaced) = (plane, counts);
    }
}
