//! For how many peers and networks a data plane has room while it runs.

use adit_tunnel::{TableDelta, Tunnel};

/// What is set aside at the start. A peer that comes gets a number of its own, also where another has gone, so some
/// changes use it up; then the data plane is started anew, and begins to count anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) peers: usize,
    pub(crate) networks: usize,
}

/// A small overlay may well become another one.
const PEERS: usize = 64;
const NETWORKS: usize = 1024;

impl Capacity {
    /// For a tunnel, and a quarter more.
    pub(crate) fn with_headroom(tunnel: &Tunnel) -> Self {
        let (peers, networks) = (tunnel.peer_slots(), networks(tunnel));
        Self { peers: peers + (peers / 4).max(PEERS), networks: networks + (networks / 4).max(NETWORKS) }
    }

    /// Whether there is room for what it becomes, and on the way there.
    pub(crate) fn holds(&self, tunnel: &Tunnel, steps: &TableDelta) -> bool {
        tunnel.peer_slots() <= self.peers && networks(tunnel) + steps.withdrawn.len() <= self.networks
    }
}

fn networks(tunnel: &Tunnel) -> usize {
    let peers = &tunnel.config().peers;
    peers.site_networks().len() + peers.iter().map(|peer| peer.networks.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_fixtures::Setup;
    use adit_tunnel::{Peer, PeerSet};

    #[test]
    fn numbers_and_networks_are_used_up() {
        let mut tunnel = Tunnel::new(Setup::default().config).expect("it is good");
        let capacity = Capacity::with_headroom(&tunnel);
        let peer = |underlay: [u8; 4], networks: u32| Peer {
            name: "new".parse().expect("a name"),
            underlay: underlay.into(),
            networks: (0..networks)
                .map(|n| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n)))
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
        // The same place on the underlay, again and again, is another peer each time.
        let one_more = with(peer([10, 1, 2, 2], 1));
        for used in tunnel.peer_slots()..=capacity.peers {
            let (with, steps) = change(&tunnel, &one_more);
            assert_eq!(capacity.holds(&with, &steps), used < capacity.peers, "{used} of {capacity:?}");
            tunnel = change(&with, &without).0;
        }
    }
}
