//! Interfaces and routes of others where ours would go. Adit never touches them: a start and a
//! change are refused, and a repair leaves them alone.

use std::collections::{HashMap, HashSet};

use adit_linux::netlink::{Link, Network, ROUTE_PROTOCOL, Route};
use ipnet::Ipv4Net;

use crate::error::ControlError;
use crate::reconcile::change::Change;
use crate::reconcile::desired::{Desired, DesiredRoute};
use crate::reconcile::devices::{DesiredDevice, has_alias_of, is_half_made};
use crate::reconcile::guard_routes;

/// Refuses names of interfaces that are taken by others, or by an interface of this site that is of
/// another kind.
///
/// # Errors
/// Fails if one is taken, or if the kernel cannot be asked.
pub(crate) fn refuse_devices(
    network: &mut dyn Network,
    site: &str,
    desired: &Desired,
) -> Result<(), ControlError> {
    desired.devices.iter().try_for_each(|device| refuse_device(network, site, device))
}

/// Refuses a name of the hidden end that is taken by others: by an interface which is neither the
/// other end of the tunnel interface nor left by this site.
///
/// # Errors
/// Fails if it is taken, or if the kernel cannot be asked.
pub(crate) fn refuse_hidden_end(
    inner: &mut dyn Network,
    underlay: &mut dyn Network,
    desired: &Desired,
) -> Result<(), ControlError> {
    let Some(hidden) = &desired.hidden else { return Ok(()) };
    let Some(link) = underlay.link(&hidden.name)? else { return Ok(()) };
    let visible = inner.link(&desired.device)?;
    let is_other_end = visible.is_some_and(|it| it.lower == Some(link.index) && link.lower == Some(it.index));
    if is_other_end || link.alias.as_deref() == Some(&hidden.alias) {
        return Ok(());
    }
    Err(ControlError::ForeignDevice { device: hidden.name.clone(), what: describe_link(&link) })
}

fn refuse_device(network: &mut dyn Network, site: &str, desired: &DesiredDevice) -> Result<(), ControlError> {
    let Some(link) = network.link(&desired.name)? else { return Ok(()) };
    if !has_alias_of(&link, site) {
        return match is_half_made(&link, desired) {
            true => Ok(()),
            false => {
                Err(ControlError::ForeignDevice { device: desired.name.clone(), what: describe_link(&link) })
            }
        };
    }
    if link.ipip.is_some() != desired.ipip.is_some() {
        return Err(ControlError::OtherKind {
            device: desired.name.clone(),
            kind: link.kind.unwrap_or_default(),
            site: site.to_owned(),
        });
    }
    Ok(())
}

fn describe_link(link: &Link) -> String {
    match (&link.alias, &link.kind) {
        (Some(alias), _) => format!("its alias is `{alias}`"),
        (None, Some(kind)) => format!("a device of kind `{kind}` without our alias"),
        (None, None) => "a device without our alias".to_owned(),
    }
}

/// Refuses networks that have a foreign route, or a guard of another overlay, and a site whose
/// guards could not be told from those of another overlay.
///
/// # Errors
/// Fails if there is one, or if the kernel cannot be asked.
pub(crate) fn refuse_routes(
    network: &mut dyn Network,
    site: &str,
    desired: &Desired,
) -> Result<(), ControlError> {
    let links = network.links()?;
    guard_routes::refuse_shared_metric(site, links.iter().filter_map(|link| link.alias.as_deref()))?;
    let found = find_all(network, site, desired)?;
    refuse_first(network, found)
}

/// Refuses those networks of `wanted` that have a foreign route. It lists all routes only if the
/// kernel cannot look these up.
///
/// # Errors
/// As [`refuse_routes`].
pub(crate) fn refuse_routes_among(
    network: &mut dyn Network,
    site: &str,
    desired: &Desired,
    wanted: &[&DesiredRoute],
) -> Result<(), ControlError> {
    let networks: Vec<Ipv4Net> = wanted.iter().map(|route| route.network).collect();
    // The lookup is only about the main table.
    let found = if desired.vrf.is_some() { None } else { network.routes_to_exactly(&networks)? };
    if found.is_some_and(|found| found.is_empty()) {
        return Ok(());
    }
    let found = find(network, site, desired, wanted)?;
    refuse_first(network, found)
}

fn refuse_first(network: &mut dyn Network, found: Vec<(Route, &DesiredRoute)>) -> Result<(), ControlError> {
    let Some((route, wanted)) = found.into_iter().next() else { return Ok(()) };
    let links = network.links()?;
    Err(ControlError::ForeignRoute {
        network: wanted.network,
        peer: wanted.peer.clone(),
        what: describe_route(&route, &links),
    })
}

/// Desired networks that have a foreign route.
#[derive(Debug, Default)]
pub(crate) struct ForeignNetworks {
    /// All of them. A repair leaves the tunnel's route to these as it is.
    pub(crate) networks: HashSet<Ipv4Net>,
    /// Those where the foreign route has the metric of our guards, and so takes the guard's place.
    /// Any other is no reason to be without a guard.
    pub(crate) at_guards: HashSet<Ipv4Net>,
}

impl ForeignNetworks {
    /// Looks them up. The guard of another overlay does not count: it never wins against our route.
    ///
    /// # Errors
    /// Fails if the kernel cannot be asked.
    pub(crate) fn look_up(
        network: &mut dyn Network,
        site: &str,
        desired: &Desired,
    ) -> Result<Self, ControlError> {
        let mut found = find_all(network, site, desired)?;
        found.retain(|(route, _)| !guard_routes::is_guard(route));
        let is_at_guard = |route: &Route| route.metric == Some(desired.guard_metric);
        Ok(Self {
            networks: found.iter().map(|(route, _)| route.destination).collect(),
            at_guards: found
                .iter()
                .filter(|(route, _)| is_at_guard(route))
                .map(|(route, _)| route.destination)
                .collect(),
        })
    }

    /// Returns true if a repair leaves this difference as it is.
    pub(crate) fn keep_out(&self, change: &Change) -> bool {
        let networks = if change.is_guard { &self.at_guards } else { &self.networks };
        change.network.is_some_and(|network| networks.contains(&network))
    }
}

fn find_all<'a>(
    network: &mut dyn Network,
    site: &str,
    desired: &'a Desired,
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let wanted: Vec<&DesiredRoute> = desired.routes.iter().collect();
    find(network, site, desired, &wanted)
}

/// Finds the routes of others to the networks of `wanted`.
fn find<'a>(
    network: &mut dyn Network,
    site: &str,
    desired: &Desired,
    wanted: &[&'a DesiredRoute],
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let links = network.links()?;
    let names: HashSet<&str> = desired.devices.iter().map(|device| device.name.as_str()).collect();
    let is_ours = |link: &&Link| names.contains(link.name.as_str()) || has_alias_of(link, site);
    let ours: HashSet<u32> = links.iter().filter(is_ours).map(|link| link.index).collect();
    let wanted: HashMap<_, _> = wanted.iter().map(|route| (route.network, *route)).collect();
    let is_foreign = |route: &Route| {
        if guard_routes::is_guard(route) {
            return route.metric != Some(desired.guard_metric);
        }
        route.protocol != ROUTE_PROTOCOL
            || !ours.is_empty() && !route.device.is_some_and(|device| ours.contains(&device))
    };
    let routes = network.routes_of(desired.table())?.into_iter().filter(is_foreign);
    Ok(routes.filter_map(|route| Some((route.clone(), *wanted.get(&route.destination)?))).collect())
}

fn describe_route(route: &Route, links: &[Link]) -> String {
    let mut what = Vec::new();
    if let Some(gateway) = route.gateway {
        what.push(format!("via {gateway}"));
    }
    if let Some(link) = links.iter().find(|link| Some(link.index) == route.device) {
        what.push(format!("dev {}", link.name));
    }
    if guard_routes::is_guard(route) {
        what.push("the guard route of another overlay, unreachable".to_owned());
    }
    what.extend(route.metric.map(|metric| format!("metric {metric}")));
    what.push(format!("proto {}", route.protocol));
    what.join(" ")
}
