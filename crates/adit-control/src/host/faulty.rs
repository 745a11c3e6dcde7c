//! A host on which one call fails: the fake's or the real machine's, with an error at the n-th
//! call.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use adit_config::DataplaneChoice;
use adit_dataplane::kernel::Filter;
use adit_dataplane::{DataPlane, PlaneKind};
use adit_linux::error::{Error, Result};
use adit_linux::flow_source::FlowSource;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{
    Address, IpTunnel, Link, Network, Route, RouteKind, RouteLookup, TunnelDriver, VethPair,
};
use adit_linux::netns::NetNs;
use adit_tunnel::{Instant, TableDelta, Totals, Tunnel};
use ipnet::IpNet;

use super::{Host, Ipv6, PacketFilter, PlaneRequest, StartedPlane};
use crate::error::ControlError;

/// `errno` of a kernel that is short of memory, which every call may meet.
const ENOMEM: i32 = 12;

/// Which call fails, and whether the data plane is broken.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    calls: AtomicUsize,
    /// The number of the call that fails, from 1 on; 0: none.
    fail_at: AtomicUsize,
    is_plane_broken: AtomicBool,
}

impl Faults {
    /// Lets the n-th call from now on fail.
    pub(crate) fn fail_at(&self, call: usize) {
        self.calls.store(0, Ordering::Relaxed);
        self.fail_at.store(call, Ordering::Relaxed);
    }

    /// Lets no call fail any more; returns true if one has.
    pub(crate) fn stop(&self) -> bool {
        let fail_at = self.fail_at.swap(0, Ordering::Relaxed);
        fail_at > 0 && self.calls.load(Ordering::Relaxed) >= fail_at
    }

    /// Breaks the data plane until another is started, or its packet filter is set again.
    pub(crate) fn break_plane(&self) {
        self.is_plane_broken.store(true, Ordering::Relaxed);
    }

    fn call(&self, what: &str) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if call == self.fail_at.load(Ordering::Relaxed) {
            return Err(Error::from_errno(format!("cannot {what} (call {call})"), ENOMEM));
        }
        Ok(())
    }
}

/// A host whose calls may fail.
pub(crate) struct FaultyHost {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) faults: Arc<Faults>,
}

impl Host for FaultyHost {
    fn network(&self, scope: &NetScope) -> Result<Box<dyn Network>> {
        self.faults.call("open netlink")?;
        Ok(Box::new(FaultyNetwork { network: self.host.network(scope)?, faults: Arc::clone(&self.faults) }))
    }

    fn set_ipv6(&self, scope: &NetScope, interface: &str, is_on: bool) -> Result<()> {
        self.faults.call("turn IPv6 on or off")?;
        self.host.set_ipv6(scope, interface, is_on)
    }

    fn ipv6(&self, scope: &NetScope, interface: &str) -> Result<Ipv6> {
        self.faults.call("read whether IPv6 is on")?;
        self.host.ipv6(scope, interface)
    }

    fn limit_offloads(&self, scope: &NetScope, interface: &str) -> Result<()> {
        self.faults.call("limit the offloads")?;
        self.host.limit_offloads(scope, interface)
    }

    fn unreadable_offloads(&self, scope: &NetScope, interface: &str) -> Result<Vec<String>> {
        self.faults.call("list the offloads")?;
        self.host.unreadable_offloads(scope, interface)
    }

    fn forwards(&self, scope: &NetScope, interface: &str) -> Result<bool> {
        self.host.forwards(scope, interface)
    }

    fn forwards_ipv6(&self, scope: &NetScope) -> Result<bool> {
        self.host.forwards_ipv6(scope)
    }

    fn chains_passed_by(&self) -> Vec<String> {
        self.host.chains_passed_by()
    }

    fn start_plane(&self, request: &PlaneRequest<'_>) -> std::result::Result<StartedPlane, ControlError> {
        self.faults.call("start the data plane")?;
        let started = self.host.start_plane(request)?;
        Ok(StartedPlane { plane: BreakablePlane::wrap(started.plane, &self.faults), ..started })
    }

    fn try_plane(&self, choice: DataplaneChoice, tunnel: &Tunnel) -> std::result::Result<(), ControlError> {
        self.host.try_plane(choice, tunnel)
    }

    fn open_filter(&self) -> Result<Box<dyn PacketFilter>> {
        self.faults.call("open nf_tables")?;
        Ok(Box::new(FaultyFilter { filter: self.host.open_filter()?, faults: Arc::clone(&self.faults) }))
    }

    fn filter_matches(&self, filter: &Filter) -> Result<Option<bool>> {
        self.faults.call("look at the filter")?;
        self.host.filter_matches(filter)
    }

    fn has_filter(&self, site: &str) -> bool {
        self.host.has_filter(site)
    }

    fn remove_filter(&self, site: &str) -> Result<bool> {
        self.faults.call("remove the filter")?;
        self.host.remove_filter(site)
    }

    fn load_driver(&self, driver: TunnelDriver) -> String {
        self.host.load_driver(driver)
    }

    fn has_pins(&self, site: &str) -> bool {
        self.host.has_pins(site)
    }

    fn remove_pins(&self, site: &str) -> std::result::Result<(), ControlError> {
        self.faults.call("remove pins")?;
        self.host.remove_pins(site)
    }
}

struct FaultyFilter {
    filter: Box<dyn PacketFilter>,
    faults: Arc<Faults>,
}

impl PacketFilter for FaultyFilter {
    fn set(&self, filter: &Filter) -> Result<()> {
        self.faults.call("set the filter")?;
        self.filter.set(filter)?;
        self.faults.is_plane_broken.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn start(&self, tunnel: Arc<Tunnel>, mark: u32, devices: Vec<u32>) -> Result<Box<dyn DataPlane>> {
        self.faults.call("start the data plane")?;
        Ok(BreakablePlane::wrap(self.filter.start(tunnel, mark, devices)?, &self.faults))
    }
}

/// A data plane that somebody can break.
struct BreakablePlane {
    plane: Box<dyn DataPlane>,
    faults: Arc<Faults>,
}

impl BreakablePlane {
    fn wrap(plane: Box<dyn DataPlane>, faults: &Arc<Faults>) -> Box<dyn DataPlane> {
        faults.is_plane_broken.store(false, Ordering::Relaxed);
        Box::new(Self { plane, faults: Arc::clone(faults) })
    }
}

impl DataPlane for BreakablePlane {
    fn kind(&self) -> PlaneKind {
        self.plane.kind()
    }

    fn tunnel(&self) -> Arc<Tunnel> {
        self.plane.tunnel()
    }

    fn update_peers(&mut self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> std::result::Result<(), String> {
        self.faults.call("update the peers of the data plane").map_err(|error| error.to_string())?;
        self.plane.update_peers(tunnel, steps)
    }

    fn totals(&self) -> Totals {
        self.plane.totals()
    }

    fn own_totals(&self) -> Totals {
        self.plane.own_totals()
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self.faults.is_plane_broken.load(Ordering::Relaxed) {
            true => Err("broken by a test".to_owned()),
            false => self.plane.check(),
        }
    }

    fn now(&self) -> Instant {
        self.plane.now()
    }

    fn shutdown(&mut self) {
        self.plane.shutdown();
    }
}

/// A network whose calls may fail.
struct FaultyNetwork {
    network: Box<dyn Network>,
    faults: Arc<Faults>,
}

macro_rules! faulty {
    ($(fn $method:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        impl Network for FaultyNetwork {
            $(fn $method(&mut self, $($argument: $type),*) -> Result<$output> {
                self.faults.call(stringify!($method))?;
                self.network.$method($($argument),*)
            })*
        }
    };
}

faulty! {
    fn links() -> Vec<Link>;
    fn link(name: &str) -> Option<Link>;
    fn link_by_index(index: u32) -> Option<Link>;
    fn add_tunnel(name: &str, mtu: u32, tunnel: &IpTunnel) -> ();
    fn change_tunnel(index: u32, tunnel: &IpTunnel) -> ();
    fn add_veth_pair(pair: &VethPair, netns: Option<&NetNs>) -> ();
    fn set_no_arp(index: u32) -> ();
    fn set_mac(index: u32, mac: [u8; 6]) -> ();
    fn set_up(index: u32) -> ();
    fn set_down(index: u32) -> ();
    fn set_mtu(index: u32, mtu: u32) -> ();
    fn set_alias(index: u32, alias: &str) -> ();
    fn set_master(index: u32, master: Option<u32>) -> ();
    fn rename(index: u32, name: &str) -> ();
    fn delete_link(index: u32) -> ();
    fn addresses(index: Option<u32>) -> Vec<Address>;
    fn add_address(index: u32, prefix: IpNet) -> ();
    fn delete_address(index: u32, prefix: IpNet) -> ();
    fn routes_of(table: u32) -> Vec<Route>;
    fn routes_by(protocol: u8, device: u32, table: u32) -> Vec<Route>;
    fn routes_of_kind(protocol: u8, kind: RouteKind, table: Option<u32>) -> Vec<Route>;
    fn routes_to_exactly(networks: &[IpNet]) -> Option<Vec<Route>>;
    fn routes_to(destinations: &[IpAddr], source: Option<FlowSource>) -> Vec<Result<RouteLookup>>;
    fn add_route(route: &Route) -> ();
    fn add_routes(routes: &[Route]) -> ();
    fn replace_routes(routes: &[Route]) -> ();
    fn delete_routes(routes: &[Route]) -> ();
}
