//! The configuration of a tunnel, and its checks.

use std::net::{IpAddr, Ipv4Addr};

use adit_peers::{Conflict, DeltaError, PeerSet, Relay, UnderlayAddresses};
use adit_wire::encapsulation::OuterPolicy;

use crate::probe::ProbeOptions;

/// A tunnel: this side, and the peers on the other side.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Our addresses on the underlay, each of which peers may send to. What we send to a peer has
    /// the one of its path as the outer source.
    pub underlay: UnderlayAddresses,
    /// The networks behind us, and the peers. Of networks inside each other the longest prefix
    /// wins.
    pub peers: PeerSet,
    /// How the outer header is written.
    pub outer: OuterPolicy,
    /// Whether the MSS of TCP connections through the tunnel is lowered to the peer's path MTU.
    pub mss_clamp: bool,
    /// Which peers reach each other through this site.
    pub relay: Relay,
    /// Size in bytes of the largest datagram that the underlay's interface takes, the outer header
    /// included. Less than 88 is taken as 88.
    pub underlay_mtu: u16,
    /// The smallest path MTU in bytes that a router may set. Probes find smaller ones. Less than 88
    /// is taken as 88, and on a path of IPv6 less than 1280 as 1280 (RFC 8201 section 4).
    pub mtu_floor: u16,
    /// This gateway's own inner addresses. Packets to them are delivered here, and RFC 2003,
    /// section 3.2, refuses to forward packets from them.
    pub local_addresses: Vec<IpAddr>,
    /// Addresses of this gateway outside its networks that peers may reach, and that may answer.
    pub reachable_addresses: Vec<Ipv4Addr>,
    /// How a [`Prober`](crate::Prober) probes the paths to the peers; `None`: not at all.
    pub probe: Option<ProbeOptions>,
}

/// The reason why a tunnel cannot be made or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// Our underlay addresses conflict with the peers.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// A change of peers does not apply.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// No router forwards a packet whose outer TTL is 0.
    #[error(
        "the outer TTL is 0, with which nothing leaves this host: give 1 to 255, or inherit the inner one"
    )]
    TtlZero,
    /// There are more peers than a [`PeerIndex`](crate::PeerIndex) can number.
    #[error("{found} peers are more than the {} that one tunnel can hold", u32::MAX)]
    TooManyPeers {
        /// How many there are, removed ones included.
        found: usize,
    },
}
