//! rtnetlink, synchronously: links, addresses, routes and neighbours of one network namespace,
//! and what changes about them. IPv4 only. The crates that know the wire format stay in here.

mod address;
mod batch;
mod datagram;
mod event;
mod exact_route;
mod filter;
mod ipip;
mod link;
mod neighbour;
mod network;
mod route;
mod socket;

pub use address::Address;
pub(crate) use datagram::messages;
pub use event::{Event, Events, Group};
pub use filter::BpfFilter;
pub use ipip::{INHERIT_TOS, Ipip, LinkStatistics};
pub use link::{Link, LinkLayer};
pub use neighbour::{Neighbour, NeighbourState};
pub use network::Network;
pub use route::{MAIN_TABLE, ROUTE_PROTOCOL, Route, RouteKind, RouteLookup, RouteScope};

use crate::error::Result;
use socket::Socket;

/// A conversation with the kernel about one network namespace. Every call is a system call or
/// two; a listing is one for every 32 KiB or so of what is listed, and many changes or lookups at a time
/// are one for some hundreds of them and one for each answer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens one about the calling thread's network namespace; it keeps to that one on whichever
    /// thread it is used.
    ///
    /// # Errors
    /// A kernel before Linux 4.20, no descriptors left.
    pub fn open() -> Result<Self> {
        Socket::open(&[]).map(|socket| Self { socket })
    }
}
