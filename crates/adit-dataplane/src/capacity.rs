//! Capacity: how many peers and networks a data plane has room for while it runs.

use adit_tunnel::{Steps, Tunnel};

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
        let (peers, networks) = (tunnel.places(), networks(tunnel));
        Self { peers: peers + (peers / 4).max(PEERS), networks: networks + (networks / 4).max(NETWORKS) }
    }

    /// Whether there is room for the changed tunnel, and for the steps on the way there.
    pub(crate) fn holds(&self, tunnel: &Tunnel, steps: &Steps) -> bool {
        tunnel.places() <= self.peers && networks(tunnel) + steps.taken.len() <= self.networks
    }
}

fn networks(tunnel: &Tunnel) -> usize {
    let config = tunnel.config();
    config.networks.len() + config.peers.iter().map(|peer| peer.networks.len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use adit_fixtures::Setup;
    use adit_tunnel::{Amendment, PeerConfig};

    #[test]
    fn peers_that_come_and_go_use_the_capacity_up() {
        let mut tunnel = Tunnel::new(Setup::default().config).expect("a valid configuration");
        let capacity = Capacity::with_headroom(&tunnel);
        let peer = |underlay: [u8; 4], networks: u32| PeerConfig {
            name: "new".to_owned(),
            underlay: std::net::Ipv4Addr::from(underlay).into(),
            networks: (0..networks)
                .map(|n| ipnet::Ipv4Net::from(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n)).into())
                .collect(),
        };
        let large = peer([10, 1, 2, 1], capacity.networks as u32);
        let (full, steps) =
            tunnel.amended(&Amendment { removed: vec![], set: vec![large] }).expect("a valid configuration");
        assert!(!capacity.holds(&full, &steps), "{capacity:?}");
        // The same underlay address, again and again, is another peer each time.
        for used in tunnel.places()..=capacity.peers {
            let address = [10, 1, 2, 2];
            let set = vec![peer(address, 1)];
            let (with, steps) =
                tunnel.amended(&Amendment { removed: vec![], set }).expect("a valid configuration");
            assert_eq!(capacity.holds(&with, &steps), used < capacity.peers, "{used} of {capacity:?}");
            let removed = vec![address.into()];
            tunnel = with.amended(&Amendment { removed, set: vec![] }).expect("it is there").0;
        }
    }
}
