//! The watcher's work where programs in the kernel carry the traffic: which way they send to each peer, and
//! by which interfaces the underlay comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::netlink::Netlink;
use adit_tunnel::{Instant, PeerIndex, Steps, Tunnel};

use super::catch_all::Strays;
use super::dedup::Handover;
use super::receivers::Listening;
use super::underlay::{Underlay, everybody};
use crate::ebpf::{EbpfError, FastPath, Way};

/// How many next hops are asked for before they are needed; the others when something is sent there.
const GREETED: usize = 64;
/// More interfaces than these are not all an underlay.
const INTERFACES: usize = 16;

/// The programs, and what stands behind them.
pub(super) struct FastSide {
    pub(super) programs: FastPath,
    pub(super) listening: Arc<Listening>,
    pub(super) strays: Strays,
    /// Interfaces by which datagrams for us may come, by what was seen last.
    pub(super) devices: BTreeMap<u32, String>,
    /// Those that somebody listens on.
    pub(super) listened: Vec<u32>,
    /// A peer's datagram has come by an interface that no route leads to: any may be the underlay's.
    pub(super) anywhere: bool,
}

impl FastSide {
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
    pub(super) fn take_strays(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let found = self.strays.take(buffer, now, |_| ()) && !self.anywhere;
        self.anywhere |= found;
        found
    }

    /// Before a program is attached somewhere. For a moment the socket for strays hears the same; so what it has
    /// heard goes up first, and is not taken from the other once more.
    fn listen(&mut self) -> Result<(), Error> {
        for device in self.devices.keys() {
            if self.listened.contains(device) {
                continue;
            }
            let opened = self.listening.open(Some(*device))?;
            self.listened.push(*device);
            self.strays.except(&self.listened)?;
            let heard = opened.heard()?;
            let mut handover = Handover::default();
            let now = self.listening.clock.now();
            self.strays.take(&mut vec![0; 65_536], now, |outer| handover.note(outer));
            handover.keep_last(heard);
            opened.start(&self.listening, handover)?;
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
        if self.anywhere {
            devices.extend(seen.links.keys().take(INTERFACES));
        }
        let ways = self.set_ways(tunnel, &seen);
        devices.extend(ways.iter().flatten().map(|way| way.device));
        let mut next_hops = BTreeSet::new();
        for way in ways.iter().flatten() {
            if next_hops.len() == GREETED {
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
        Ok(greet(netlink, &next_hops)? && settled)
    }

    /// Has the programs carry for other peers. Userspace has them already, and takes what programs decline.
    pub(super) fn amend(
        &mut self,
        netlink: &mut Netlink,
        tunnel: &Tunnel,
        underlay: Ipv4Addr,
        steps: &Steps,
    ) -> Result<(), String> {
        self.programs.amend(tunnel, steps).map_err(|error| error.to_string())?;
        if steps.added.is_empty() {
            return Ok(());
        }
        let seen =
            Underlay::look(netlink, tunnel, underlay, &steps.added).map_err(|error| error.to_string())?;
        let ways = self.set_ways(tunnel, &seen);
        for link in ways.iter().flatten().filter_map(|way| seen.ethernet(way.device)) {
            self.devices.insert(link.index, link.name.clone());
        }
        let next_hops = ways.into_iter().flatten().take(GREETED).collect();
        // Those that the kernel does not know yet it asks for when something is sent there.
        greet(netlink, &next_hops).map(drop).map_err(|error| error.to_string())
    }

    fn set_ways(&mut self, tunnel: &Tunnel, seen: &Underlay) -> Vec<Option<Way>> {
        let mut ways = Vec::with_capacity(seen.routes.len());
        for (peer, route) in &seen.routes {
            let way = route.as_ref().filter(|route| seen.ethernet(route.device).is_some());
            let way = way.map(|route| Way { device: route.device, next_hop: route.next_hop });
            if let Err(error) = self.programs.set_way(tunnel, *peer, way) {
                let name = &tunnel.peer(*peer).name;
                tracing::error!(%error, peer = %name, "the programs do not learn of a new way");
            }
            ways.push(way);
        }
        ways
    }
}

/// Has the kernel ask for next hops; `true` when it knows all of them.
fn greet(netlink: &mut Netlink, next_hops: &BTreeSet<Way>) -> Result<bool, Error> {
    let mut known = true;
    for Way { device, next_hop } in next_hops {
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
