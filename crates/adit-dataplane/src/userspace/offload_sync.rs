//! The watcher's work where programs in the kernel carry the traffic: which way they send to each peer, and
//! by which interfaces the underlay comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::netlink::Netlink;
use adit_tunnel::{Instant, PeerIndex, TableDelta, Tunnel};

use super::catch_all::CatchAllReceiver;
use super::dedup::HandoverDedup;
use super::receivers::ReceiverPool;
use super::underlay::{Underlay, everybody};
use crate::ebpf::{EbpfError, FastPath, NextHop};

/// How many next hops are asked for before they are needed; the others when something is sent there.
const MAX_PRERESOLVED: usize = 64;
/// More interfaces than these are not all an underlay.
const INTERFACES: usize = 16;

/// The programs, and what stands behind them.
pub(super) struct OffloadSync {
    pub(super) programs: FastPath,
    pub(super) listening: Arc<ReceiverPool>,
    pub(super) catch_all: CatchAllReceiver,
    /// Interfaces by which datagrams for us may come, by what was seen last.
    pub(super) devices: BTreeMap<u32, String>,
    /// Those that somebody listens on.
    pub(super) listened: Vec<u32>,
    /// A peer's datagram has come by an interface that no route leads to: any may be the underlay's.
    pub(super) any_interface: bool,
}

impl OffloadSync {
    /// Puts the programs to work, once they know every way.
    pub(super) fn open(&mut self, tunnel: &Tunnel) -> Result<(), EbpfError> {
        self.programs.sync(tunnel)?;
        // A program leaves what it declines to packet sockets alone, so those have to be there first.
        self.listen()?;
        self.programs.open(tunnel, &self.devices)
    }

    /// Tells the programs what has changed in the tunnel.
    pub(super) fn sync(&mut self, tunnel: &Tunnel) {
        match self.listen() {
            Ok(()) => self.programs.widen(&self.devices),
            Err(error) => tracing::error!(%error, "cannot listen on an interface of the underlay"),
        }
        if let Err(error) = self.programs.sync(tunnel) {
            tracing::error!(%error, "the programs in the kernel may act on what was true before");
        }
    }

    /// Datagrams that the programs have sent to a peer.
    pub(super) fn sent(&self, peer: PeerIndex) -> u64 {
        self.programs.sent(peer)
    }

    /// Takes what came where nobody listens; whether the interfaces are to be looked at again.
    pub(super) fn receive_catch_all(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let found = self.catch_all.take(buffer, now, |_| ()) && !self.any_interface;
        self.any_interface |= found;
        found
    }

    /// Before a program is attached somewhere. For a moment the catch-all socket hears the same; so what it has
    /// heard goes up first, and is not taken from the other once more.
    fn listen(&mut self) -> Result<(), Error> {
        for device in self.devices.keys() {
            if self.listened.contains(device) {
                continue;
            }
            let opened = self.listening.open(Some(*device))?;
            self.listened.push(*device);
            self.catch_all.except(&self.listened)?;
            let heard = opened.heard()?;
            let mut dedup = HandoverDedup::default();
            let now = self.listening.clock.now();
            self.catch_all.take(&mut vec![0; 65_536], now, |outer| dedup.note(outer));
            dedup.keep_last(heard);
            opened.start(&self.listening, dedup)?;
        }
        Ok(())
    }

    /// Brings the ways up to date; `true` when every peer has one and its next hop is known. The kernel
    /// itself finds the neighbours when something is sent.
    pub(super) fn look(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        underlay: Ipv4Addr,
    ) -> Result<bool, Error> {
        let seen = Underlay::look(netlink, tunnel, underlay, &everybody(tunnel))?;
        let own = netlink.addresses(None)?;
        let own = own.into_iter().filter(|address| address.prefix.addr() == underlay);
        let mut devices: BTreeSet<u32> = own.map(|address| address.index).collect();
        if self.any_interface {
            devices.extend(seen.links.keys().take(INTERFACES));
        }
        let ways = self.set_next_hops(tunnel, &seen);
        devices.extend(ways.iter().flatten().map(|way| way.device));
        let mut next_hops = BTreeSet::new();
        for way in ways.iter().flatten() {
            if next_hops.len() == MAX_PRERESOLVED {
                break;
            }
            next_hops.insert(*way);
        }
        let settled = ways.iter().all(Option::is_some);
        let before = std::mem::take(&mut self.devices);
        let usable = devices.iter().filter_map(|index| seen.ethernet(*index));
        self.devices = usable.map(|link| (link.index, link.name.clone())).collect();
        // At the start, and of links that were out.
        next_hops.retain(|way| !self.programs.is_open() || !before.contains_key(&way.device));
        Ok(resolve_neighbours(netlink, &next_hops)? && settled)
    }

    /// Has the programs carry for other peers. Userspace has them already, and takes what programs decline.
    pub(super) fn update_peers(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        underlay: Ipv4Addr,
        steps: &TableDelta,
    ) -> Result<(), String> {
        self.programs.update_peers(tunnel, steps).map_err(|error| error.to_string())?;
        if steps.added.is_empty() {
            return Ok(());
        }
        let seen =
            Underlay::look(netlink, tunnel, underlay, &steps.added).map_err(|error| error.to_string())?;
        let ways = self.set_next_hops(tunnel, &seen);
        for link in ways.iter().flatten().filter_map(|way| seen.ethernet(way.device)) {
            self.devices.insert(link.index, link.name.clone());
        }
        let next_hops = ways.into_iter().flatten().take(MAX_PRERESOLVED).collect();
        // Those that the kernel does not know yet it asks for when something is sent there.
        resolve_neighbours(netlink, &next_hops).map(drop).map_err(|error| error.to_string())
    }

    fn set_next_hops(&mut self, tunnel: &Tunnel, seen: &Underlay) -> Vec<Option<NextHop>> {
        let mut ways = Vec::with_capacity(seen.routes.len());
        for (peer, route) in &seen.routes {
            let way = route.as_ref().filter(|route| seen.ethernet(route.device).is_some());
            let way = way.map(|route| NextHop { device: route.device, next_hop: route.next_hop });
            if let Err(error) = self.programs.set_next_hop(tunnel, *peer, way) {
                let name = &tunnel.peer(*peer).name;
                tracing::error!(%error, peer = %name, "the programs do not learn of a new way");
            }
            ways.push(way);
        }
        ways
    }
}

/// Has the kernel ask for next hops; `true` when it knows all of them.
fn resolve_neighbours(netlink: &mut Netlink, next_hops: &BTreeSet<NextHop>) -> Result<bool, Error> {
    let mut known = true;
    for NextHop { device, next_hop } in next_hops {
        let neighbour = netlink.neighbour(*device, *next_hop)?;
        if neighbour.as_ref().is_some_and(|neighbour| neighbour.state.is_usable()) {
            continue;
        }
        // What was sent while the link was out had the kernel ask in vain, and it asks again only after a
        // second.
        if neighbour.is_some() {
            let _ = netlink.delete_neighbour(*device, *next_hop);
        }
        netlink.use_neighbour(*device, *next_hop)?;
        known = false;
    }
    Ok(known)
}
