//! One peer.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::name::PeerName;

/// Another site: an underlay address *and* the networks behind it.
///
/// A value of this type may hold anything; only the peers of a [`PeerSet`](crate::PeerSet) keep the
/// rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Unique among the peers. Identifies the peer in a [`PeerDelta`](crate::PeerDelta).
    pub name: PeerName,
    /// Its address on the underlay: the outer destination. Unicast, unique, and not ours.
    pub underlay: Ipv4Addr,
    /// The networks that are reached through this peer, and that may send through it.
    pub networks: Vec<Ipv4Net>,
}
