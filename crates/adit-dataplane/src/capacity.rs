//! Capacity: how many peers and networks a data plane has room for while it runs.

use adit_tunnel::{TableDelta, Tunnel};

/// What a data plane sets aside at its start. Each new peer gets a number of its own, even after
/// another has gone, so changes use the room up. The data plane is then started anew with new
/// numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) peers: usize,
    pub(crate) networks: usize,
}

/// At least this much headroom, because a small overlay may be replaced by another.
const PEERS: usize = 64;
const NETWORKS: usize = 1024;

impl Capacity {
    /// Room for a tunnel, and a quarter more.
    pub(crate) fn with_headroom(tunnel: &Tunnel) -> Self {
        let (peers, networks) = (tunnel.peer_slots(), networks(tunnel));
        Self { peers: peers + (peers / 4).max(PEERS), networks: networks + (networks / 4).max(NETWORKS) }
    }

    /// Whether there is room for the changed tunnel, and for the steps on the way there.
    pub(crate) fn holds(&self, tunnel: &Tunnel, steps: &TableDelta) -> bool {
        tunnel.peer_slots() <= self.peers && networks(tunnel) + steps.withdrawn.len() <= self.networks
    }
}

fn networks(tunnel: &Tunnel) -> usize {
    let config = tunnel.config();
    let peers = &config.peers;
    config.reachable_addresses.len()
        + peers.site_networks().len()
        + peers.iter().map(|peer| peer.networks.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_fixtures::Setup;
    use adit_tunnel::{PathOptions, Peer, PeerSet};

    #[test]
    fn peers_that_come_and_go_use_the_capacity_up() {
        let mut tunnel = Tunnel::new(Setup::default().config).expect("a valid configuration");
        let capacity = Capacity::with_headroom(&tunnel);
        let peer = |underlay: [u8; 4], networks: u32| Peer {
            name: "new".parse().expect("a name"),
            underlay: underlay.into(),
            path: PathOptions::default(),
            networks: (0..networks)
                .map(|n| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n)).into())
                .collect(),
        };
        let change = |tunnel: &Tunnel, peers: &PeerSet| {
            tunnel.with_peers(&tunnel.config().peers.delta_to(peers)).expect("no conflict")
        };
        let without = tunnel.config().peers.clone();
        let with = |peer| {
            let mut peers = without.clone();
            peers.insert(peer).expect("no conflict");
            peers
        };
        let large = with(peer([10, 1, 2, 1], capacity.networks as u32));
        let (full, steps) = change(&tunnel, &large);
        assert!(!capacity.holds(&full, &steps), "{capacity:?}");
        // The same underlay address, again and again, is another peer each time.
        let one_more = with(peer([10, 1, 2, 2], 1));
        for used in tunnel.peer_slots()..=capacity.peers {
            let (with, steps) = change(&tunnel, &one_more);
            assert_eq!(capacity.holds(&with, &steps), used < capacity.peers, "{used} of {capacity:?}");
            tunnel = change(&with, &without).0;
        }
    }
}
