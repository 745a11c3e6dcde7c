//! The offload: a fast path in front of the userspace plane. It carries ordinary packets and leaves
//! the rest to userspace.
//!
//! The trait keeps userspace independent of eBPF, which implements it, and lets tests use a fake.
//! The watcher owns the offload and is the only thread that calls it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_tunnel::{PeerIndex, TableDelta, Traffic, Tunnel};

/// Interfaces of the underlay: index to name.
pub(crate) type Interfaces = BTreeMap<u32, String>;

/// Where packets for a peer leave this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NextHop {
    /// Index of the interface.
    pub(crate) device: u32,
    /// The router on the link, or the peer's own address if it is on the link.
    pub(crate) address: IpAddr,
}

/// Says what an offload has exchanged with a peer. The prober's thread calls it, which has no right
/// but to read maps.
pub(crate) type TrafficReader = Arc<dyn Fn(PeerIndex) -> Traffic + Send + Sync>;

/// See the module. A fresh offload knows the tunnel's peers but no next hop, and carries nothing
/// until [`Offload::open`].
pub(crate) trait Offload: Send + 'static {
    /// Why the offload, or the plane behind it, cannot start.
    type Error: std::error::Error + From<Error>;

    /// Whether it carries packets.
    fn is_open(&self) -> bool;

    /// Starts to carry packets between the tunnel interface and these interfaces. Everything that
    /// the offload declines must have a socket by then.
    ///
    /// # Errors
    /// Fails if it cannot be put in place; it then carries nothing.
    fn open(&mut self, tunnel: &Tunnel, underlay: &Interfaces) -> Result<(), Self::Error>;

    /// Adds underlay interfaces that are not served yet. It logs a failure, once per interface:
    /// packets from there then pass through userspace.
    fn widen(&mut self, underlay: &Interfaces);

    /// Takes over what has changed in the tunnel: path MTU, pending ICMP answers, reachability, who
    /// is left to the host's stack. `relays` says whether it may carry from peer to peer. Costs a
    /// comparison per peer.
    ///
    /// # Errors
    /// Fails if the kernel does not take a change; some may have been made.
    fn sync(&mut self, tunnel: &Tunnel, relays: bool) -> Result<(), Self::Error>;

    /// Sets the next hop of a peer; `None` leaves sending to userspace.
    ///
    /// # Errors
    /// Fails if the kernel does not take the change.
    fn set_next_hop(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        next_hop: Option<NextHop>,
    ) -> Result<(), Self::Error>;

    /// Stops sending over a family, or allows it again, at once for all peers. What is declined
    /// meanwhile goes to userspace.
    ///
    /// # Errors
    /// Fails if the kernel does not take the change.
    fn set_sending(&mut self, family: Family, sends: bool) -> Result<(), Self::Error>;

    /// Adds, changes and removes peers while packets flow. New peers have no next hop yet.
    ///
    /// # Errors
    /// Fails if the kernel does not take a change; some may have been made.
    fn update_peers(&mut self, tunnel: &Tunnel, steps: &TableDelta) -> Result<(), Self::Error>;

    /// Reads what it has exchanged with a peer.
    fn traffic(&self) -> TrafficReader;
}

/// The offload of a plane that has none.
pub(crate) enum NoOffload {}

impl Offload for NoOffload {
    type Error = Error;

    fn is_open(&self) -> bool {
        match *self {}
    }

    fn open(&mut self, _: &Tunnel, _: &Interfaces) -> Result<(), Error> {
        match *self {}
    }

    fn widen(&mut self, _: &Interfaces) {
        match *self {}
    }

    fn sync(&mut self, _: &Tunnel, _: bool) -> Result<(), Error> {
        match *self {}
    }

    fn set_next_hop(&mut self, _: &Tunnel, _: PeerIndex, _: Option<NextHop>) -> Result<(), Error> {
        match *self {}
    }

    fn set_sending(&mut self, _: Family, _: bool) -> Result<(), Error> {
        match *self {}
    }

    fn update_peers(&mut self, _: &Tunnel, _: &TableDelta) -> Result<(), Error> {
        match *self {}
    }

    fn traffic(&self) -> TrafficReader {
        match *self {}
    }
}
