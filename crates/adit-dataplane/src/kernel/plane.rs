//! The plane: no thread runs here, and every answer comes from the kernel.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_linux::flow_source::FlowSource;
use adit_linux::netlink::Netlink;
use adit_tunnel::{Instant, LearnedBy, Path, PathMtu, PeerIndex, Reachability, Remembered, Totals, Tunnel};

use super::filter::{RECEIVED, SENT};
use super::filter_table::FilterTable;
use super::monotonic_counters::MonotonicCounters;
use crate::clock::Clock;
use crate::plane::{DataPlane, PlaneKind};
use crate::routes::note_routes;
use crate::underlay_sources::UnderlaySources;

/// See the module.
#[derive(Debug)]
pub struct KernelPlane {
    tunnel: Arc<Tunnel>,
    sources: UnderlaySources,
    table: Arc<FilterTable>,
    devices: Vec<u32>,
    asked: Mutex<Asked>,
}

/// The kernel's answers, and what is needed to ask again.
#[derive(Debug)]
struct Asked {
    netlink: Netlink,
    counters: MonotonicCounters,
    paths: Paths,
}

/// Reads the path MTUs that routers have told the kernel (its route exceptions), some peers at a
/// time.
#[derive(Debug, Default)]
struct Paths {
    next: usize,
}

/// Peers that one look asks about.
const MAX_ROUTE_LOOKUPS: usize = 256;
/// Long enough to come around to 10,000 peers with two looks a second.
const PATH_MTU_LIFETIME: Duration = Duration::from_secs(30);

impl Paths {
    fn ask(&mut self, tunnel: &Tunnel, sources: UnderlaySources, netlink: &mut Netlink, now: Instant) {
        tunnel.on_deadline(now);
        let paths: Vec<(PeerIndex, Path)> = tunnel.paths().skip(self.next).take(MAX_ROUTE_LOOKUPS).collect();
        self.next = if paths.len() < MAX_ROUTE_LOOKUPS { 0 } else { self.next + MAX_ROUTE_LOOKUPS };
        for (source, peers) in sources.group(paths.iter().copied()) {
            Self::ask_from(tunnel, source, peers, netlink, now);
        }
    }

    fn ask_from(
        tunnel: &Tunnel,
        source: FlowSource,
        peers: Vec<(PeerIndex, IpAddr)>,
        netlink: &mut Netlink,
        now: Instant,
    ) {
        let (peers, addresses): (Vec<_>, Vec<_>) = peers.into_iter().unzip();
        let Ok(routes) = netlink.routes_to(&addresses, Some(source)) else { return };
        note_routes(tunnel, &peers, &routes);
        for (peer, route) in peers.into_iter().zip(routes) {
            let mtu = route.ok().and_then(|route| route.mtu).and_then(|mtu| u16::try_from(mtu).ok());
            let Some(mtu) = mtu.filter(|mtu| *mtu < tunnel.config().underlay_mtu) else { continue };
            let expires = Some(now.saturating_add(PATH_MTU_LIFETIME));
            let path_mtu = PathMtu { mtu, learned: Some(LearnedBy::Router), expires };
            tunnel.recall(peer, Remembered { path_mtu, reachability: Reachability::Assumed }, now);
        }
    }
}

/// The address that is the key of an element.
fn address_of(key: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(key).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(key).map(IpAddr::from)).ok()
}

impl KernelPlane {
    /// A plane for existing interfaces and a table, in the calling thread's network namespace.
    ///
    /// # Errors
    /// Fails if the kernel cannot be asked.
    pub fn of(
        tunnel: Arc<Tunnel>,
        mark: u32,
        table: Arc<FilterTable>,
        devices: Vec<u32>,
    ) -> Result<Self, adit_linux::error::Error> {
        let asked = Asked {
            netlink: Netlink::open()?,
            counters: MonotonicCounters::default(),
            paths: Paths::default(),
        };
        let sources = UnderlaySources { addresses: tunnel.config().underlay, mark };
        let plane = Self { tunnel, sources, table, devices, asked: Mutex::new(asked) };
        // The first look is the baseline: only later traffic counts as new.
        plane.look();
        Ok(plane)
    }

    /// All counts, and the part of them that the kernel no longer counts.
    fn look(&self) -> (Totals, Totals) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let Asked { netlink, counters, paths } = &mut *asked;
        let now = Clock.now();
        // What cannot be read keeps its last value.
        for family in self.table.families() {
            match self.table.counters(family) {
                Ok(drops) => counters.note_drops(family, &drops),
                Err(error) => tracing::debug!(%error, "cannot read the drop counters"),
            }
            for (set, is_received) in [(RECEIVED, true), (SENT, false)] {
                let Ok(elements) = self.table.elements(family, set) else { continue };
                for (key, counted) in elements {
                    let Some(address) = address_of(&key) else { continue };
                    if let Some(peer) = self.tunnel.lookup_outer(address) {
                        counters.note_traffic(peer.index(), address, is_received, counted, now);
                    }
                }
            }
        }
        let statistics = self.devices.iter().filter_map(|device| {
            let statistics = netlink.link_statistics(*device).ok()?;
            Some((*device, statistics))
        });
        counters.note_devices(statistics.collect());
        paths.ask(&self.tunnel, self.sources, netlink, now);
        (counters.totals(self.tunnel.peer_slots()), counters.lost(self.tunnel.peer_slots()))
    }
}

impl DataPlane for KernelPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Kernel
    }

    fn tunnel(&self) -> Arc<Tunnel> {
        Arc::clone(&self.tunnel)
    }

    fn totals(&self) -> Totals {
        self.look().0
    }

    fn own_totals(&self) -> Totals {
        // The kernel goes on counting without us.
        self.look().1
    }

    fn check(&self) -> Result<(), String> {
        self.table.check()
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn shutdown(&mut self) {}
}
