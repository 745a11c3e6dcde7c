//! rtnetlink, synchronous: links, addresses, routes and neighbours of one network namespace, and
//! their changes. Of both families.
//!
//! The crates that know the wire format (`netlink-packet-route` and its relatives, which change
//! often) are used in this module only.

mod address;
mod batch;
mod datagram;
mod event;
mod exact_route;
mod filter;
mod ip_tunnel;
mod ip_tunnel_link;
mod link;
mod neighbour;
mod network;
mod notifications;
mod route;
mod socket;
mod statistics;
mod veth_pair;

pub use address::Address;
pub(crate) use datagram::messages;
pub use event::{Event, Events, Group};
pub use filter::BpfFilter;
pub use ip_tunnel::{INHERIT_TOS, IpTunnel, TunnelDriver};
pub use link::{Link, LinkLayer};
pub use neighbour::{Neighbour, NeighbourState};
pub use network::Network;
pub use notifications::Notifications;
pub use route::{
    MAIN_TABLE, ROUTE_PROTOCOL, Route, RouteKey, RouteKind, RouteLookup, RouteScope, STATIC_PROTOCOL,
};
pub use statistics::LinkStatistics;
pub use veth_pair::VethPair;

use crate::error::Result;
use socket::Socket;

/// A connection to rtnetlink of one network namespace.
///
/// A call costs one or two system calls. A listing costs one for about every 32 KiB. Many changes
/// or lookups together cost one for some hundreds of them, and one for each answer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Connects to the calling thread's network namespace. The connection stays in that namespace,
    /// on whichever thread it is used.
    ///
    /// # Errors
    /// The kernel is older than Linux 4.20, or no descriptors are left.
    pub fn open() -> Result<Self> {
        Socket::open(&[]).map(|socket| Self { socket })
    }
}
