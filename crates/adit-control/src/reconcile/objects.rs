//! The kernel objects of an overlay: the interfaces and routes that exist, and the steps that bring
//! them to the desired state.

use std::collections::{HashMap, HashSet};

use crate::error::ControlError;
use crate::host::{Host, Ipv6};
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{Desired, DesiredRoute};
use crate::reconcile::devices::{DesiredDevice, HiddenEnd, has_alias_of};
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::guard_routes;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, Network, ROUTE_PROTOCOL, Route, RouteKey};

/// The objects of an overlay that exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    /// The interfaces, in the order of [`Desired::devices`]: those of the desired name, whoever
    /// created them, or, of Linux's tunnel drivers, whatever their name is.
    pub(crate) devices: Vec<Option<Link>>,
    /// The hidden end of the tunnel interface, in the namespace of the underlay.
    pub(crate) hidden: Option<Link>,
    /// Offloads of the tunnel interface whose packets a data plane could not read.
    pub(crate) unreadable_offloads: Vec<String>,
    /// Whether IPv6 is on on each of these interfaces that exists.
    pub(crate) ipv6: Vec<Ipv6>,
    /// The same of the hidden end.
    pub(crate) hidden_ipv6: Ipv6,
    /// Interfaces of this site that are no longer desired.
    pub(crate) unwanted: Vec<Link>,
    /// Our routes into all these interfaces.
    pub(crate) routes: Vec<Route>,
    /// Our guard routes, in the table of the overlay's routes.
    pub(crate) guards: Vec<Route>,
    /// Whether the packet filter is as desired; `None`: there is none.
    pub(crate) filter: Option<bool>,
}

impl Actual {
    /// Returns the index of the interface in that position; 0: it does not exist.
    pub(crate) fn index(&self, position: usize) -> u32 {
        self.devices.get(position).and_then(Option::as_ref).map_or(0, |link| link.index)
    }

    /// Returns the indices of the interfaces, in the order of [`Desired::devices`].
    pub(crate) fn indices(&self) -> Vec<u32> {
        (0..self.devices.len()).map(|position| self.index(position)).collect()
    }
}

/// Lists the interfaces of a site.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn links_of_site(network: &mut dyn Network, site: &str) -> Result<Vec<Link>, ControlError> {
    Ok(network.links()?.into_iter().filter(|link| has_alias_of(link, site)).collect())
}

/// Returns the routing table of an overlay's routes.
pub(crate) fn table(desired: &Desired) -> u32 {
    desired.table()
}

/// Returns the desired routes as the kernel knows them. `devices` are the indices of the
/// interfaces, in the order of [`Desired::devices`].
pub(crate) fn desired_routes(desired: &Desired, devices: &[u32]) -> Vec<Route> {
    let table = table(desired);
    let index = |route: &DesiredRoute| devices.get(route.device).copied().unwrap_or(0);
    desired.routes.iter().map(|route| kernel_route(route, index(route), table)).collect()
}

/// Returns a route as the kernel knows it.
pub(crate) fn kernel_route(route: &DesiredRoute, device: u32, table: u32) -> Route {
    Route {
        destination: route.network,
        device: Some(device),
        gateway: route.via,
        onlink: route.via.is_some(),
        preferred_source: route.preferred_source,
        protocol: ROUTE_PROTOCOL,
        table,
        ..Route::default()
    }
}

/// Returns those of `routes` that are ours by these interfaces.
pub(crate) fn our_routes<'r>(routes: &'r [Route], devices: &[u32]) -> impl Iterator<Item = &'r Route> {
    let devices: HashSet<u32> = devices.iter().copied().collect();
    routes.iter().filter(move |route| {
        route.protocol == ROUTE_PROTOCOL && route.device.is_some_and(|device| devices.contains(&device))
    })
}

/// Sets alias and MTU of an interface, and whether it has IPv6. It does not set the interface up.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn configure_device(
    namespaces: &mut Namespaces,
    link: &Link,
    device: &DesiredDevice,
    desired: &Desired,
) -> Result<(), ControlError> {
    namespaces.inner.set_alias(link.index, &device.alias)?;
    namespaces.inner.set_mtu(link.index, u32::from(desired.mtu))?;
    set_ipv6(namespaces.host.as_ref(), &namespaces.scope, &link.name, device.ipv6)
}

/// Turns IPv6 on or off on an interface, where it is not as wanted and can be. Without a network of
/// IPv6 it is off: the kernel would send router solicitations into the tunnel.
///
/// # Errors
/// Fails if the kernel refuses.
pub(crate) fn set_ipv6(
    host: &dyn Host,
    scope: &NetScope,
    name: &str,
    wanted: bool,
) -> Result<(), ControlError> {
    if host.ipv6(scope, name)?.differs_from(wanted) {
        host.set_ipv6(scope, name, wanted)?;
    }
    Ok(())
}

/// Removes every hidden end of ours, also what a killed start has made of one, and with it the
/// tunnel interface, wherever that is. Returns the names.
///
/// # Errors
/// Fails if the kernel cannot be asked, or refuses.
pub(crate) fn remove_hidden_ends(
    underlay: &mut dyn Network,
    hidden: &HiddenEnd,
) -> Result<Vec<String>, ControlError> {
    let is_ours =
        |link: &Link| link.alias.as_deref() == Some(hidden.alias.as_str()) || hidden.is_half_made(link);
    let mut removed = Vec::new();
    // With one end the kernel deletes the other, which may be ours, too.
    while let Some(link) = underlay.links()?.into_iter().find(is_ours) {
        underlay.delete_link(link.index)?;
        removed.push(link.name);
    }
    Ok(removed)
}

/// Removes the interface of that name which a failed step has made, if it is still there and
/// `is_made` recognises it. A failure is logged: the caller returns the one that came first.
pub(crate) fn remove_made(network: &mut dyn Network, name: &str, is_made: impl Fn(&Link) -> bool) {
    let removed = network.link(name).and_then(|link| match link {
        Some(link) if is_made(&link) => network.delete_link(link.index),
        _ => Ok(()),
    });
    if let Err(error) = removed {
        tracing::error!(%error, device = name, "cannot remove what a failed step had made");
    }
}

/// Deletes our routes by `devices` that are not desired, and installs those that are missing or
/// differ, except where a `foreign` route has their place. It touches no other route: a missing
/// route is added, and the kernel refuses that if somebody else was faster. Guards are the first to
/// come and the last to go, so that nothing leaves in the open in between.
///
/// # Errors
/// Fails if the kernel refuses a change. Changes before it stay.
pub(crate) fn set_routes(
    network: &mut dyn Network,
    desired: &Desired,
    devices: &[u32],
    foreign: &ForeignRoutes,
) -> Result<(), ControlError> {
    let found = network.routes_of(table(desired))?;
    set_routes_among(network, desired, devices, foreign, &found)
}

/// As [`set_routes`], where `found` are the routes of the table.
///
/// # Errors
/// As [`set_routes`].
pub(crate) fn set_routes_among(
    network: &mut dyn Network,
    desired: &Desired,
    devices: &[u32],
    foreign: &ForeignRoutes,
    found: &[Route],
) -> Result<(), ControlError> {
    let unwanted_guards = guard_routes::add_missing(network, desired, &foreign.at_guards, found)?;
    let wanted = desired_routes(desired, devices);
    let mut missing: HashMap<RouteKey, &Route> = wanted.iter().map(|route| (route.key(), route)).collect();
    let (mut changed, mut unwanted) = (Vec::new(), Vec::new());
    let mut keys: HashSet<RouteKey> = HashSet::new();
    for route in our_routes(found, devices) {
        let Some(wanted) = missing.get(&route.key()).filter(|_| keys.insert(route.key())) else {
            unwanted.push(route.clone());
            continue;
        };
        if !wanted.is_already(route) {
            changed.push((*wanted).clone());
        }
    }
    missing.retain(|key, _| !keys.contains(key));
    network.delete_routes(&unwanted)?;
    let is_free = |route: &&Route| !foreign.in_place.contains(&route.destination);
    let changed: Vec<Route> = changed.iter().filter(is_free).cloned().collect();
    network.replace_routes(&changed)?;
    // In the order of the file.
    let missing = wanted.iter().filter(|route| missing.contains_key(&route.key())).filter(is_free);
    network.add_routes(&missing.cloned().collect::<Vec<Route>>())?;
    Ok(network.delete_routes(&unwanted_guards)?)
}
