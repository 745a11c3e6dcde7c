//! One peer.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;

use crate::conflict::Conflict;
use crate::name::PeerName;
use crate::underlay_addresses::{Path, UnderlayAddresses};

/// Another site: its underlay addresses *and* the networks behind it.
///
/// A value of this type may hold anything; only the peers of a [`PeerSet`](crate::PeerSet) keep the
/// rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Unique among the peers. Identifies the peer in a [`PeerDelta`](crate::PeerDelta).
    pub name: PeerName,
    /// Its addresses on the underlay: one of them is the outer destination, and each may be the
    /// outer source. Unicast, unique, and not ours.
    pub underlay: UnderlayAddresses,
    /// The networks that are reached through this peer, and that may send through it, of either
    /// family.
    pub networks: Vec<IpNet>,
    /// How the path to it is probed and kept open.
    pub path: PathOptions,
}

impl Peer {
    /// The path that packets take to it from the site with these addresses.
    ///
    /// # Errors
    /// The site has no address of a family that the peer has.
    pub fn path_from(&self, site: UnderlayAddresses) -> Result<Path, Conflict> {
        site.path_to(&self.underlay).ok_or_else(|| Conflict::NoCommonFamily {
            site,
            peer: self.name.clone(),
            addresses: self.underlay,
        })
    }
}

/// How the path to a peer is probed and kept open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// The address inside the tunnel that probes are for, in a network of the peer. `None`: its
    /// underlay address, or one that its own probes come from.
    pub probe_address: Option<Ipv4Addr>,
    /// When keepalives are sent.
    pub keepalive: Keepalive,
}

/// When keepalives are sent to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// As the tunnel does for all peers.
    #[default]
    Default,
    /// Never.
    Off,
    /// When nothing was sent for so long.
    After(Duration),
}
