//! A model of a machine in memory: links, addresses, routes and the packet filter,
//! with the effects of the kernel that a control plane has to know (routes disappear with their
//! interface, its going down or their source address). The table `overlay::tests::model` holds it
//! against the real kernel.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_config::DataplaneChoice;
use adit_dataplane::clock::Clock;
use adit_dataplane::kernel::{Filter, table_name};
use adit_dataplane::{DataPlane, PlaneKind};
use adit_linux::error::{Error, Result};
use adit_linux::flow_source::FlowSource;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{
    Address, IpTunnel, Link, LinkLayer, MAIN_TABLE, Network, Route, RouteKind, RouteLookup, RouteScope,
    TunnelDriver, VethPair,
};
use adit_linux::netns::NetNs;
use adit_tunnel::{Instant, TableDelta, Totals, Tunnel};
use ipnet::IpNet;

use super::{Host, Ipv6, PacketFilter, PlaneRequest, StartedPlane};
use crate::error::ControlError;

/// `RTPROT_KERNEL`: the protocol of routes that belong to addresses.
const KERNEL_PROTOCOL: u8 = 2;
/// The index of the loopback interface.
const LOOPBACK: u32 = 1;

// The numbers are those of every architecture that Adit runs on.
const EEXIST: i32 = 17;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ESRCH: i32 = 3;
const EOPNOTSUPP: i32 = 95;
const EADDRNOTAVAIL: i32 = 99;
const ENETDOWN: i32 = 100;
const ENETUNREACH: i32 = 101;
const EHOSTUNREACH: i32 = 113;

// Flags of an interface, linux/if.h.
const IFF_NOARP: u32 = 0x80;
const IFF_MULTICAST: u32 = 0x1000;

/// A machine. Its clones are the same machine.
#[derive(Clone, Default)]
pub(crate) struct FakeHost(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    links: Vec<Link>,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    last_index: u32,
    /// The packet filter of each site, by the name of its table.
    filters: BTreeMap<String, Filter>,
    /// Interfaces, or `all`, where forwarding is off.
    not_forwarding: HashSet<String>,
    /// Interfaces where IPv6 is on. A new one has none.
    with_ipv6: HashSet<String>,
}

/// An interface that was just made.
pub(crate) fn link(index: u32, name: &str, kind: &str) -> Link {
    Link {
        index,
        name: name.to_owned(),
        mtu: 1500,
        up: false,
        running: false,
        mac: None,
        alias: None,
        kind: Some(kind.to_owned()),
        master: None,
        lower: None,
        is_lower_elsewhere: false,
        vrf_table: None,
        tunnel: None,
        hardware: LinkLayer::None,
        flags: 0,
    }
}

fn refuse<T>(what: &str, errno: i32) -> Result<T> {
    Err(Error::from_errno(format!("cannot {what}"), errno))
}

impl State {
    fn add_link(&mut self, name: &str, kind: &str, tunnel: Option<IpTunnel>) -> u32 {
        self.last_index += 1;
        self.links.push(Link { tunnel, ..link(self.last_index, name, kind) });
        self.last_index
    }

    fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    fn by_index(&mut self, index: u32) -> Result<&mut Link> {
        let found = self.links.iter_mut().find(|link| link.index == index);
        found.ok_or_else(|| Error::from_errno(format!("cannot find interface {index}"), ENODEV))
    }

    fn remove_link(&mut self, index: u32) {
        let other = self.links.iter().find(|link| link.lower == Some(index)).map(|link| link.index);
        self.links.retain(|link| link.index != index);
        if let Some(other) = other {
            // The ends of a veth pair go together.
            self.remove_link(other);
        }
        self.addresses.retain(|address| address.index != index);
        self.routes.retain(|route| route.device != Some(index));
        self.remove_routes_without_source();
    }

    /// Removes the routes whose source is no address any more.
    fn remove_routes_without_source(&mut self) {
        let local: HashSet<IpAddr> = self.addresses.iter().map(|at| at.prefix.addr()).collect();
        self.routes.retain(|route| route.preferred_source.is_none_or(|source| local.contains(&source)));
    }

    fn is_up(&self, index: u32) -> bool {
        self.links.iter().any(|link| link.index == index && link.up)
    }

    fn is_local(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|local| local.prefix.addr() == address)
    }

    /// Adds the routes to the networks of an interface's addresses.
    fn connect(&mut self, index: u32) {
        let of_interface = self.addresses.iter().filter(|address| address.index == index);
        let routes: Vec<Route> = of_interface
            .filter(|at| at.prefix.prefix_len() < at.prefix.max_prefix_len())
            .map(connected)
            .collect();
        for route in routes {
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
    }

    /// The route of the longest prefix of the main table.
    fn longest_match(&self, destination: IpAddr) -> Option<&Route> {
        let matching = self
            .routes
            .iter()
            .filter(|route| route.table == MAIN_TABLE && route.destination.contains(&destination));
        matching.max_by_key(|route| (route.destination.prefix_len(), std::cmp::Reverse(route.key().metric)))
    }

    /// Refuses a route that the kernel would refuse, and completes it as the kernel lists it.
    fn complete(&self, route: &Route) -> Result<Route> {
        const WHAT: &str = "set a route";
        if route.kind == RouteKind::Unreachable {
            if route.device.is_some() || route.gateway.is_some() {
                return refuse(WHAT, EINVAL);
            }
            let scope = Some(route.scope.unwrap_or(RouteScope::Universe));
            return Ok(Route { destination: route.destination.trunc(), scope, ..route.clone() });
        }
        let Some(device) = route.device else { return refuse(WHAT, ENODEV) };
        if !self.links.iter().any(|link| link.index == device) {
            return refuse(WHAT, ENODEV);
        }
        if route.preferred_source.is_some_and(|source| !self.is_local(source)) {
            return refuse(WHAT, EINVAL);
        }
        if !self.is_up(device) {
            return refuse(WHAT, ENETDOWN);
        }
        let is_on_link = |gateway: IpAddr| {
            let found = self.longest_match(gateway);
            route.onlink || found.is_some_and(|found| found.gateway.is_none() && found.device == route.device)
        };
        if route.gateway.is_some_and(|gateway| !is_on_link(gateway)) {
            return refuse(WHAT, ENETUNREACH);
        }
        let natural = if route.gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        Ok(Route {
            destination: route.destination.trunc(),
            scope: Some(route.scope.unwrap_or(natural)),
            metric: route.metric.or(route.destination.addr().is_ipv6().then_some(DEFAULT_METRIC_V6)),
            ..route.clone()
        })
    }

    /// Finds the route that takes the place of `route`.
    fn same_place(&self, route: &Route) -> Option<usize> {
        self.routes.iter().position(|found| found.key() == route.key())
    }

    fn has_endpoints(&self, tunnel: &IpTunnel, except: u32) -> bool {
        let mut others = self.links.iter().filter(|link| link.index != except);
        others.any(|link| {
            link.tunnel.is_some_and(|found| {
                (found.driver, found.local, found.remote) == (tunnel.driver, tunnel.local, tunnel.remote)
            })
        })
    }
}

/// A global address of an interface, without a label.
pub(crate) fn address_on(index: u32, prefix: IpNet) -> Address {
    Address {
        index,
        prefix,
        label: None,
        is_global: true,
        is_secondary: false,
        is_tentative: false,
        is_deprecated: false,
    }
}

/// The route that belongs to an address.
fn connected(address: &Address) -> Route {
    Route {
        destination: address.prefix.trunc(),
        device: Some(address.index),
        preferred_source: Some(address.prefix.addr()),
        protocol: KERNEL_PROTOCOL,
        scope: Some(RouteScope::Link),
        ..Route::default()
    }
}

/// `IP6_RT_PRIO_USER` (linux/ipv6_route.h).
const DEFAULT_METRIC_V6: u32 = 1024;

impl FakeHost {
    /// Adds an interface that no test removes.
    pub(crate) fn add_link(&self, name: &str, kind: &str) -> u32 {
        self.state().add_link(name, kind, None)
    }

    /// Turns forwarding on or off, as a write to its setting does.
    pub(crate) fn set_forwarding(&self, interface: &str, is_on: bool) {
        let mut state = self.state();
        if is_on {
            state.not_forwarding.remove(interface);
        } else {
            state.not_forwarding.insert(interface.to_owned());
        }
    }

    /// Lists the sites with a packet filter.
    pub(crate) fn filters(&self) -> BTreeMap<String, Filter> {
        self.state().filters.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Network for FakeHost {
    fn links(&mut self) -> Result<Vec<Link>> {
        Ok(self.state().links.clone())
    }

    fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Ok(self.state().by_name(name).cloned())
    }

    fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        Ok(self.state().by_index(index).ok().cloned())
    }

    fn add_tunnel(&mut self, name: &str, mtu: u32, tunnel: &IpTunnel) -> Result<()> {
        let mut state = self.state();
        if state.by_name(name).is_some() || state.has_endpoints(tunnel, 0) {
            return refuse("make a tunnel interface", EEXIST);
        }
        let index = state.add_link(name, tunnel.driver.kind(), Some(*tunnel));
        state.by_index(index)?.mtu = mtu;
        Ok(())
    }

    fn add_veth_pair(&mut self, pair: &VethPair, _: Option<&NetNs>) -> Result<()> {
        let mut state = self.state();
        if state.by_name(&pair.name).is_some() || state.by_name(&pair.hidden).is_some() {
            return refuse("make a veth pair", EEXIST);
        }
        let visible = state.add_link(&pair.name, "veth", None);
        let hidden = state.add_link(&pair.hidden, "veth", None);
        let ends =
            [(visible, hidden, pair.mac, pair.mtu), (hidden, visible, pair.hidden_mac, pair.hidden_mtu)];
        for (index, other, mac, mtu) in ends {
            let link = state.by_index(index)?;
            (link.lower, link.mac, link.mtu) = (Some(other), Some(mac), mtu);
            (link.hardware, link.flags) = (LinkLayer::Ethernet, IFF_MULTICAST);
        }
        Ok(())
    }

    fn set_no_arp(&mut self, index: u32) -> Result<()> {
        let mut state = self.state();
        let link = state.by_index(index)?;
        link.flags = (link.flags | IFF_NOARP) & !IFF_MULTICAST;
        Ok(())
    }

    fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        self.state().by_index(index)?.mac = Some(mac);
        Ok(())
    }

    fn change_tunnel(&mut self, index: u32, tunnel: &IpTunnel) -> Result<()> {
        let mut state = self.state();
        if state.has_endpoints(tunnel, index) {
            return refuse("change a tunnel interface", EEXIST);
        }
        let link = state.by_index(index)?;
        if link.tunnel.is_none_or(|found| found.driver != tunnel.driver) {
            return refuse("change a tunnel interface", EOPNOTSUPP);
        }
        link.tunnel = Some(*tunnel);
        Ok(())
    }

    fn set_up(&mut self, index: u32) -> Result<()> {
        let mut state = self.state();
        let link = state.by_index(index)?;
        (link.up, link.running) = (true, true);
        state.connect(index);
        Ok(())
    }

    fn set_down(&mut self, index: u32) -> Result<()> {
        let mut state = self.state();
        let link = state.by_index(index)?;
        (link.up, link.running) = (false, false);
        state.routes.retain(|route| route.device != Some(index));
        Ok(())
    }

    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.state().by_index(index)?.mtu = mtu;
        Ok(())
    }

    fn set_alias(&mut self, index: u32, alias: &str) -> Result<()> {
        self.state().by_index(index)?.alias = Some(alias.to_owned()).filter(|alias| !alias.is_empty());
        Ok(())
    }

    fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let mut state = self.state();
        state.by_index(index)?.master = master;
        state.routes.retain(|route| route.device != Some(index));
        Ok(())
    }

    fn rename(&mut self, index: u32, name: &str) -> Result<()> {
        let mut state = self.state();
        if state.by_name(name).is_some_and(|found| found.index != index) {
            return refuse("rename an interface", EEXIST);
        }
        name.clone_into(&mut state.by_index(index)?.name);
        Ok(())
    }

    fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut state = self.state();
        state.by_index(index)?;
        state.remove_link(index);
        Ok(())
    }

    fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>> {
        let state = self.state();
        let is_asked = |at: &&Address| index.is_none_or(|index| index == at.index);
        Ok(state.addresses.iter().filter(is_asked).cloned().collect())
    }

    fn add_address(&mut self, index: u32, prefix: IpNet) -> Result<()> {
        let mut state = self.state();
        let label = Some(state.by_index(index)?.name.clone());
        let on_interface = || state.addresses.iter().filter(|at| at.index == index);
        if on_interface().any(|at| at.prefix.addr() == prefix.addr()) {
            return refuse("add an address", EEXIST);
        }
        let is_secondary = on_interface().any(|at| at.prefix.trunc() == prefix.trunc());
        state.addresses.push(Address { label, is_secondary, ..address_on(index, prefix) });
        if state.is_up(index) {
            state.connect(index);
        }
        Ok(())
    }

    fn delete_address(&mut self, index: u32, prefix: IpNet) -> Result<()> {
        let mut state = self.state();
        let found = state.addresses.iter().position(|at| at.index == index && at.prefix == prefix);
        let Some(found) = found else { return refuse("delete an address", EADDRNOTAVAIL) };
        let gone = state.addresses.remove(found);
        let belongs = connected(&gone);
        state.routes.retain(|route| *route != belongs);
        if !state.addresses.iter().any(|at| at.index == index) {
            // An interface without addresses does not speak IPv4 until the next route or address.
            state.routes.retain(|route| route.device != Some(index));
        }
        state.remove_routes_without_source();
        Ok(())
    }

    fn routes_of(&mut self, table: u32) -> Result<Vec<Route>> {
        Ok(self.state().routes.iter().filter(|route| route.table == table).cloned().collect())
    }

    fn routes_by(&mut self, protocol: u8, device: u32, table: u32) -> Result<Vec<Route>> {
        self.state().by_index(device)?;
        let all = self.routes_of(table)?.into_iter();
        Ok(all.filter(|route| route.protocol == protocol && route.device == Some(device)).collect())
    }

    fn routes_of_kind(&mut self, protocol: u8, kind: RouteKind, table: Option<u32>) -> Result<Vec<Route>> {
        let is_meant = |route: &&Route| {
            (route.protocol, route.kind) == (protocol, kind) && table.is_none_or(|table| table == route.table)
        };
        Ok(self.state().routes.iter().filter(is_meant).cloned().collect())
    }

    fn routes_to_exactly(&mut self, networks: &[IpNet]) -> Result<Option<Vec<Route>>> {
        let state = self.state();
        let mut exact = Vec::new();
        for network in networks {
            let Some(found) = state.longest_match(network.network()) else { continue };
            match found.destination.prefix_len().cmp(&network.prefix_len()) {
                std::cmp::Ordering::Less if found.kind == RouteKind::Unicast => {}
                std::cmp::Ordering::Equal if found.kind == RouteKind::Unicast => exact.push(found.clone()),
                // One to the network itself may be behind it; about one that leads nowhere the
                // kernel returns an error.
                _ => return Ok(None),
            }
        }
        Ok(Some(exact))
    }

    fn routes_to(
        &mut self,
        destinations: &[IpAddr],
        source: Option<FlowSource>,
    ) -> Result<Vec<Result<RouteLookup>>> {
        const WHAT: &str = "find a route";
        let state = self.state();
        let look_up = |destination: &IpAddr| {
            if source.is_some_and(|source| !state.is_local(source.address)) {
                return refuse(WHAT, ENETUNREACH);
            }
            let source = source.map(|source| source.address);
            let to = |device, next_hop, kind| RouteLookup { device, next_hop, source, mtu: None, kind };
            if state.is_local(*destination) {
                return Ok(to(LOOPBACK, *destination, RouteKind::Local));
            }
            let found = state.longest_match(*destination);
            if found.is_some_and(|found| found.kind == RouteKind::Unreachable) {
                return refuse(WHAT, EHOSTUNREACH);
            }
            let Some(Route { device: Some(device), gateway, kind, .. }) = found else {
                return refuse(WHAT, ENETUNREACH);
            };
            Ok(to(*device, gateway.unwrap_or(*destination), *kind))
        };
        Ok(destinations.iter().map(look_up).collect())
    }

    fn add_route(&mut self, route: &Route) -> Result<()> {
        let mut state = self.state();
        let route = state.complete(route)?;
        if state.same_place(&route).is_some() {
            return refuse("add a route", EEXIST);
        }
        state.routes.push(route);
        Ok(())
    }

    fn add_routes(&mut self, routes: &[Route]) -> Result<()> {
        routes.iter().try_for_each(|route| self.add_route(route))
    }

    fn replace_routes(&mut self, routes: &[Route]) -> Result<()> {
        let mut state = self.state();
        for route in routes {
            let route = state.complete(route)?;
            match state.same_place(&route) {
                Some(position) => state.routes[position] = route,
                None => state.routes.push(route),
            }
        }
        Ok(())
    }

    fn delete_routes(&mut self, routes: &[Route]) -> Result<()> {
        let mut state = self.state();
        for route in routes {
            let is_meant = |found: &Route| {
                (found.destination, found.table, found.tos, found.protocol, found.kind)
                    == (route.destination.trunc(), route.table, route.tos, route.protocol, route.kind)
                    && route.device.is_none_or(|device| found.device == Some(device))
                    && route.gateway.is_none_or(|gateway| found.gateway == Some(gateway))
                    && route.preferred_source.is_none_or(|source| found.preferred_source == Some(source))
                    && route.metric.is_none_or(|metric| found.metric == Some(metric))
                    && route.scope.is_none_or(|scope| found.scope == Some(scope))
            };
            let Some(position) = state.routes.iter().position(is_meant) else {
                return refuse("delete a route", ESRCH);
            };
            state.routes.remove(position);
        }
        Ok(())
    }
}

impl Host for FakeHost {
    fn network(&self, _: &NetScope) -> Result<Box<dyn Network>> {
        Ok(Box::new(self.clone()))
    }

    fn set_ipv6(&self, _: &NetScope, interface: &str, is_on: bool) -> Result<()> {
        let mut state = self.state();
        let index = state.by_name(interface).map(|link| link.index);
        // Turning it on begins with turning it off.
        state.routes.retain(|route| route.destination.addr().is_ipv4() || route.device != index);
        if is_on {
            state.with_ipv6.insert(interface.to_owned());
        } else {
            state.with_ipv6.remove(interface);
        }
        Ok(())
    }

    fn ipv6(&self, _: &NetScope, interface: &str) -> Result<Ipv6> {
        Ok(if self.state().with_ipv6.contains(interface) { Ipv6::Static } else { Ipv6::Off })
    }

    fn limit_offloads(&self, _: &NetScope, interface: &str) -> Result<()> {
        match self.state().by_name(interface) {
            Some(_) => Ok(()),
            None => refuse("limit the offloads", ENODEV),
        }
    }

    fn unreadable_offloads(&self, _: &NetScope, _: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn forwards(&self, _: &NetScope, interface: &str) -> Result<bool> {
        let state = self.state();
        if !["all", "default"].contains(&interface) && state.by_name(interface).is_none() {
            return refuse("read whether an interface forwards", ENODEV);
        }
        Ok(!state.not_forwarding.contains(interface))
    }

    fn forwards_ipv6(&self, _: &NetScope) -> Result<bool> {
        Ok(!self.state().not_forwarding.contains("ipv6"))
    }

    fn chains_passed_by(&self) -> Vec<String> {
        Vec::new()
    }

    fn start_plane(&self, request: &PlaneRequest<'_>) -> std::result::Result<StartedPlane, ControlError> {
        let hidden = request.interface.hidden;
        self.state().by_index(hidden)?;
        let tunnel = Arc::clone(request.tunnel);
        let devices = Devices::Veth { host: self.clone(), hidden };
        let plane = FakePlane { kind: PlaneKind::Userspace, tunnel, devices };
        Ok(StartedPlane { plane: Box::new(plane), reason: "a model".to_owned(), stays: false })
    }

    fn try_plane(&self, _: DataplaneChoice, _: &Tunnel) -> std::result::Result<(), ControlError> {
        Ok(())
    }

    fn open_filter(&self) -> Result<Box<dyn PacketFilter>> {
        Ok(Box::new(FakeFilter { host: self.clone(), set: Arc::default() }))
    }

    fn filter_matches(&self, filter: &Filter) -> Result<Option<bool>> {
        Ok(self.state().filters.get(&table_name(&filter.site)).map(|found| found == filter))
    }

    fn has_filter(&self, site: &str) -> bool {
        self.state().filters.contains_key(&table_name(site))
    }

    fn remove_filter(&self, site: &str) -> Result<bool> {
        Ok(self.state().filters.remove(&table_name(site)).is_some())
    }

    fn load_driver(&self, driver: TunnelDriver) -> String {
        format!("`modprobe {}` did not help", driver.module())
    }

    fn has_pins(&self, _: &str) -> bool {
        false
    }

    fn remove_pins(&self, _: &str) -> std::result::Result<(), ControlError> {
        Ok(())
    }
}

/// The packet filter of one process.
struct FakeFilter {
    host: FakeHost,
    /// What this process has set.
    set: Arc<Mutex<Option<Filter>>>,
}

impl PacketFilter for FakeFilter {
    fn set(&self, filter: &Filter) -> Result<()> {
        self.host.state().filters.insert(table_name(&filter.site), filter.clone());
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Some(filter.clone());
        Ok(())
    }

    fn start(&self, tunnel: Arc<Tunnel>, _: u32, _: Vec<u32>) -> Result<Box<dyn DataPlane>> {
        let devices = Devices::Tunnels { host: self.host.clone(), set: Arc::clone(&self.set) };
        Ok(Box::new(FakePlane { kind: PlaneKind::Kernel, tunnel, devices }))
    }
}

/// A data plane that carries nothing.
struct FakePlane {
    kind: PlaneKind,
    tunnel: Arc<Tunnel>,
    devices: Devices,
}

/// What a data plane depends on.
enum Devices {
    Veth { host: FakeHost, hidden: u32 },
    Tunnels { host: FakeHost, set: Arc<Mutex<Option<Filter>>> },
}

impl DataPlane for FakePlane {
    fn kind(&self) -> PlaneKind {
        self.kind
    }

    fn tunnel(&self) -> Arc<Tunnel> {
        Arc::clone(&self.tunnel)
    }

    fn update_peers(&mut self, tunnel: Arc<Tunnel>, _: &TableDelta) -> std::result::Result<(), String> {
        self.tunnel = tunnel;
        Ok(())
    }

    fn totals(&self) -> Totals {
        Totals::default()
    }

    fn own_totals(&self) -> Totals {
        Totals::default()
    }

    fn check(&self) -> std::result::Result<(), String> {
        match &self.devices {
            Devices::Veth { host, hidden } => match host.state().by_index(*hidden) {
                Ok(_) => Ok(()),
                Err(_) => Err("the interface was deleted".to_owned()),
            },
            Devices::Tunnels { host, set } => {
                let set = set.lock().unwrap_or_else(PoisonError::into_inner);
                let table = set.as_ref().map(|filter| table_name(&filter.site)).unwrap_or_default();
                match host.state().filters.get(&table) == set.as_ref() {
                    true => Ok(()),
                    false => Err(format!("the table {table} of nf_tables was changed or removed")),
                }
            }
        }
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn shutdown(&mut self) {}
}
