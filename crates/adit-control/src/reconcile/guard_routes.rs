//! Guard routes: for each network of a peer an `unreachable` route with a very bad metric, behind
//! the tunnel's own route. When that one is missing, or is passed over because its interface has
//! no carrier, the guard refuses what would leave in the open by a shorter prefix, such as the
//! default route.
//!
//! An `unreachable` route has no interface, so no alias says whose it is. The metric does: it is
//! derived from the site's name, and all guards of an overlay have the same. This also makes them
//! cheap, because the kernel shares what it stores about routes that differ only in destination.

use std::collections::HashSet;

use adit_linux::netlink::{Network, ROUTE_PROTOCOL, Route, RouteKind};
use ipnet::IpNet;

use crate::error::ControlError;
use crate::reconcile::desired::{Desired, DesiredRoute, MIN_GUARD_METRIC, guard_metric};
use crate::reconcile::devices;

/// Returns true if the route is a guard of any overlay.
pub(crate) fn is_guard(route: &Route) -> bool {
    route.protocol == ROUTE_PROTOCOL
        && route.kind == RouteKind::Unreachable
        && route.metric.is_some_and(|metric| metric >= MIN_GUARD_METRIC)
}

/// Returns the guard behind the route to a network.
pub(crate) fn guard_of(route: &DesiredRoute, metric: u32, table: u32) -> Route {
    Route {
        destination: route.network,
        kind: RouteKind::Unreachable,
        metric: Some(metric),
        table,
        ..Route::default()
    }
}

/// Returns the desired guards as the kernel knows them.
pub(crate) fn desired_guards(desired: &Desired) -> impl Iterator<Item = Route> {
    let (metric, table) = (desired.guard_metric, desired.table());
    desired.routes.iter().map(move |route| guard_of(route, metric, table))
}

/// Lists the guards with that metric, in all tables.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn list(network: &mut dyn Network, metric: u32) -> Result<Vec<Route>, ControlError> {
    let found = network.routes_of_kind(ROUTE_PROTOCOL, RouteKind::Unreachable, None)?;
    Ok(found.into_iter().filter(|route| route.metric == Some(metric)).collect())
}

/// Returns the guards of an overlay among the routes of its table.
pub(crate) fn among<'r>(routes: &'r [Route], desired: &Desired) -> impl Iterator<Item = &'r Route> {
    let metric = desired.guard_metric;
    routes.iter().filter(move |route| is_guard(route) && route.metric == Some(metric))
}

/// Adds the guards that are missing among the routes `found` in the table, except where others have
/// a route in the same place. Returns the guards that are not desired; the caller removes them once
/// the tunnel's routes are set.
///
/// # Errors
/// Fails if the kernel refuses a change. Changes before it stay.
pub(crate) fn add_missing(
    network: &mut dyn Network,
    desired: &Desired,
    taken: &HashSet<IpNet>,
    found: &[Route],
) -> Result<Vec<Route>, ControlError> {
    let there: HashSet<IpNet> = among(found, desired).map(|route| route.destination).collect();
    let is_missing =
        |route: &Route| !there.contains(&route.destination) && !taken.contains(&route.destination);
    let missing: Vec<Route> = desired_guards(desired).filter(is_missing).collect();
    network.add_routes(&missing)?;
    let wanted: HashSet<IpNet> = desired.routes.iter().map(|route| route.network).collect();
    let unwanted = among(found, desired).filter(|route| !wanted.contains(&route.destination));
    Ok(unwanted.cloned().collect())
}

/// The guards of a site before a start, in all tables.
pub(crate) struct Before(Vec<Route>);

impl Before {
    /// Lists them.
    ///
    /// # Errors
    /// Fails if the kernel cannot be asked.
    pub(crate) fn look_up(network: &mut dyn Network, metric: u32) -> Result<Self, ControlError> {
        list(network, metric).map(Self)
    }

    /// Removes what a failed start has added. A failure is logged: the caller returns the one that
    /// came first.
    pub(crate) fn restore(&self, network: &mut dyn Network, metric: u32) {
        let before: HashSet<(u32, IpNet)> =
            self.0.iter().map(|route| (route.table, route.destination)).collect();
        let removed = list(network, metric).and_then(|found| {
            let is_new = |route: &Route| !before.contains(&(route.table, route.destination));
            let new: Vec<Route> = found.into_iter().filter(is_new).collect();
            Ok(network.delete_routes(&new)?)
        });
        if let Err(error) = removed {
            tracing::error!(%error, "cannot remove the guard routes that a failed start had added");
        }
    }

    /// Removes those in other tables than that of `desired`: an earlier daemon's, for example of a
    /// VRF that the file does not name any more. A failure is logged, since the tunnel is up.
    pub(crate) fn remove_from_other_tables(&self, network: &mut dyn Network, desired: &Desired) {
        let table = desired.table();
        let others: Vec<Route> = self.0.iter().filter(|route| route.table != table).cloned().collect();
        if let Err(error) = network.delete_routes(&others) {
            tracing::warn!(%error, "cannot remove the guard routes of another routing table");
        }
    }
}

/// Removes the guards with that metric from all tables except `table`, for example from that of a
/// VRF that the tunnel has left.
///
/// # Errors
/// Fails if the kernel refuses a removal.
pub(crate) fn remove_from_other_tables(
    network: &mut dyn Network,
    metric: u32,
    table: u32,
) -> Result<(), ControlError> {
    let mut found = list(network, metric)?;
    found.retain(|route| route.table != table);
    Ok(network.delete_routes(&found)?)
}

/// Refuses a site whose guards would have the same metric as those of another overlay, one with
/// an interface that bears one of these aliases: neither could tell its own.
///
/// # Errors
/// Fails if there is one.
pub(crate) fn refuse_shared_metric<'a>(
    site: &str,
    aliases: impl Iterator<Item = &'a str>,
) -> Result<(), ControlError> {
    match aliases
        .filter_map(devices::site_of)
        .find(|other| *other != site && guard_metric(other) == guard_metric(site))
    {
        Some(other) => {
            Err(ControlError::SharedGuardMetric { site: site.to_owned(), other: other.to_owned() })
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_worse_than_any_usual_one_and_the_same_in_every_version() {
        for (site, expected) in [("a", 4_278_987_208), ("b", 4_278_988_034), ("berlin", 4_281_478_960)] {
            assert_eq!(guard_metric(site), expected, "{site}");
        }
    }

    #[test]
    fn two_overlays_of_one_machine_do_not_share_a_metric() {
        // These names were searched for.
        let (one, other) = ("site-9034", "site-10090");
        assert_eq!(guard_metric(one), guard_metric(other));
        let refusal = |aliases: &[&str]| {
            refuse_shared_metric(one, aliases.iter().copied()).err().map(|error| error.to_string())
        };
        assert_eq!(refusal(&["mine", "adit:a", "adit:site-9034", "adit:site-9034:b"]), None);
        for alias in ["adit:site-10090", "adit:site-10090:b"] {
            let text = refusal(&["adit:a", alias]).expect("it is refused");
            assert!(text.contains("overlay `site-10090`"), "{text}");
        }
    }
}
