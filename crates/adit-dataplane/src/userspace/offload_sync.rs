//! Keeps an offload in step with the tunnel and the underlay: the next hop of each peer, and the
//! interfaces that datagrams for the tunnel arrive by.

use std::collections::BTreeSet;
use std::mem;
use std::os::fd::BorrowedFd;

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::netlink::Netlink;
use adit_tunnel::{Instant, TableDelta, Tunnel};

use super::interface_receivers::InterfaceReceivers;
use super::offload::{Interfaces, NextHop, Offload, TrafficReader};
use super::underlay::Underlay;
use crate::tunnel_interface::TunnelInterface;
use crate::underlay_sources::UnderlaySources;

/// Next hops that are resolved before anything is sent to them. The kernel resolves the others when
/// the first packet leaves.
pub(super) const MAX_PRERESOLVED: usize = 64;
/// Interfaces that are treated as the underlay once any may belong to it.
const MAX_INTERFACES: usize = 16;

/// An offload and the receivers behind it.
pub(super) struct OffloadSync<O> {
    offload: O,
    receivers: InterfaceReceivers,
    /// The tunnel interface, which is no interface of the underlay.
    own: TunnelInterface,
    /// Interfaces that datagrams for us may arrive by, as last looked up.
    interfaces: Interfaces,
}

impl<O: Offload> OffloadSync<O> {
    pub(super) fn new(offload: O, receivers: InterfaceReceivers, own: TunnelInterface) -> Self {
        Self { offload, receivers, own, interfaces: Interfaces::new() }
    }

    /// Opens the offload. The next hops must have been looked up.
    pub(super) fn open(&mut self, tunnel: &Tunnel, relays: bool) -> Result<(), O::Error> {
        self.offload.sync(tunnel, relays)?;
        // The offload leaves what it declines to packet sockets alone, so they must exist first.
        self.receivers.bind(&self.interfaces)?;
        self.offload.open(tunnel, &self.interfaces)
    }

    /// Passes on what has changed in the tunnel, and serves interfaces that are new.
    pub(super) fn sync(&mut self, tunnel: &Tunnel, relays: bool) {
        match self.receivers.bind(&self.interfaces) {
            Ok(()) => self.offload.widen(&self.interfaces),
            Err(error) => tracing::error!(%error, "cannot receive on an interface of the underlay"),
        }
        if let Err(error) = self.offload.sync(tunnel, relays) {
            tracing::error!(%error, "the offload may act on outdated state");
        }
    }

    /// See [`Offload::set_sending`].
    pub(super) fn set_sending(&mut self, family: Family, sends: bool) {
        if let Err(error) = self.offload.set_sending(family, sends) {
            tracing::error!(%error, sends, "the offload cannot be told whether it may send");
        }
    }

    /// See [`Offload::traffic`].
    pub(super) fn traffic(&self) -> TrafficReader {
        self.offload.traffic()
    }

    /// See [`InterfaceReceivers::receive_catch_all`].
    pub(super) fn receive_catch_all(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        self.receivers.receive_catch_all(buffer, now)
    }

    /// Looks up the next hops of all peers. `devices` are the interfaces that have our addresses.
    /// Returns true if every peer has a next hop whose link-layer address the kernel knows.
    pub(super) fn look(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        sources: UnderlaySources,
        mut devices: BTreeSet<u32>,
    ) -> Result<bool, Error> {
        let seen = Underlay::look(netlink, tunnel, sources, tunnel.paths())?;
        if self.receivers.any_interface() {
            let others = seen.links.keys().filter(|index| !self.own.has(**index));
            devices.extend(others.take(MAX_INTERFACES));
        }
        let next_hops = set_next_hops(&mut self.offload, tunnel, &seen);
        devices.extend(next_hops.iter().flatten().map(|next_hop| next_hop.device));
        let usable = devices.iter().filter_map(|index| seen.ethernet(*index));
        let interfaces = usable.map(|link| (link.index, link.name.clone())).collect();
        let before = mem::replace(&mut self.interfaces, interfaces);
        let mut to_resolve = first_distinct(&next_hops);
        // Only at the start, and for links that were down.
        to_resolve.retain(|hop| !self.offload.is_open() || !before.contains_key(&hop.device));
        let is_resolved = resolve_neighbours(netlink, &to_resolve)?;
        Ok(is_resolved && next_hops.iter().all(Option::is_some))
    }

    /// Has the offload carry for other peers. Userspace knows them already and takes what the
    /// offload declines.
    pub(super) fn update_peers(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        sources: UnderlaySources,
        steps: &TableDelta,
    ) -> Result<(), String> {
        self.offload.update_peers(tunnel, steps).map_err(|error| error.to_string())?;
        if steps.added.is_empty() {
            return Ok(());
        }
        let seen = Underlay::look(netlink, tunnel, sources, steps.added.iter().copied())
            .map_err(|error| error.to_string())?;
        let next_hops = set_next_hops(&mut self.offload, tunnel, &seen);
        for link in next_hops.iter().flatten().filter_map(|next_hop| seen.ethernet(next_hop.device)) {
            self.interfaces.insert(link.index, link.name.clone());
        }
        let to_resolve = next_hops.into_iter().flatten().take(MAX_PRERESOLVED).collect();
        // The kernel resolves those that it does not know yet when the first packet leaves.
        resolve_neighbours(netlink, &to_resolve).map(drop).map_err(|error| error.to_string())
    }

    /// See [`InterfaceReceivers::ready`].
    pub(super) fn ready(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.receivers.ready()
    }
}

/// Sets the next hops of the peers looked up, and returns them in that order. A peer has none if
/// its route is missing or does not lead to Ethernet, or if the host's stack has to send to it.
pub(super) fn set_next_hops<O: Offload>(
    offload: &mut O,
    tunnel: &Tunnel,
    seen: &Underlay,
) -> Vec<Option<NextHop>> {
    let mut next_hops = Vec::with_capacity(seen.routes.len());
    for (peer, route) in &seen.routes {
        let route = route.as_ref().filter(|route| seen.ethernet(route.device).is_some());
        let route = route.filter(|_| !tunnel.is_left_to_stack(*peer));
        let next_hop = route.map(|route| NextHop { device: route.device, address: route.next_hop });
        if let Err(error) = offload.set_next_hop(tunnel, *peer, next_hop) {
            let name = &tunnel.peer(*peer).name;
            tracing::error!(%error, peer = %name, "the offload keeps an outdated next hop");
        }
        next_hops.push(next_hop);
    }
    next_hops
}

/// The first [`MAX_PRERESOLVED`] distinct next hops.
pub(super) fn first_distinct(next_hops: &[Option<NextHop>]) -> BTreeSet<NextHop> {
    let mut distinct = BTreeSet::new();
    for next_hop in next_hops.iter().flatten() {
        if distinct.len() == MAX_PRERESOLVED {
            break;
        }
        distinct.insert(*next_hop);
    }
    distinct
}

/// Has the kernel resolve next hops. Returns true if it knows all of them already.
fn resolve_neighbours(netlink: &mut Netlink, next_hops: &BTreeSet<NextHop>) -> Result<bool, Error> {
    let mut is_known = true;
    for NextHop { device, address } in next_hops {
        let neighbour = netlink.neighbour(*device, *address)?;
        if neighbour.as_ref().is_some_and(|neighbour| neighbour.state.is_usable()) {
            continue;
        }
        // While the link was down the kernel asked in vain. It would ask again only after a second,
        // unless the entry goes.
        if neighbour.is_some() {
            let _ = netlink.delete_neighbour(*device, *address);
        }
        netlink.use_neighbour(*device, *address)?;
        is_known = false;
    }
    Ok(is_known)
}
