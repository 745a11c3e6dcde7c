//! For how many peers and networks a data plane has room while it runs.

use adit_tunnel::{Steps, Tunnel};

/// What is set aside at the start. A peer that comes gets a number of its own, also where another has gone, so some
/// changes use it up; then the data plane is started anew, and begins to count anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) peers: usize,
    pub(crate) networks: usize,
}

/// A small overlay may well become another one.
const PEERS: usize = 64;
const NETWORKS: usize = 1024;

impl Room {
    /// For a tunnel, and a quarter more.
    pub(crate) fn beside(tunnel: &Tunnel) -> Self {
        let (peers, networks) = (tunnel.places(), networks(tunnel));
        Self { peers: peers + (peers / 4).max(PEERS), networks: networks + (networks / 4).max(NETWORKS) }
    }

    /// Whether there is room for what it becomes, and on the way there.
    pub(crate) fn holds(&self, tunnel: &Tunnel, steps: &Steps) -> bool {
        tunnel.places() <= self.peers && networks(tunnel) + steps.taken.len() <= self.networks
    }
}

fn networks(tunnel: &Tunnel) -> usize {
    let config = tunnel.config();
    config.networks.len() + config.peers.iter().map(|peer| peer.networks.len()).sum::<usize>()
}
