//! Netlink events compared with the desired state. Most of them are about our own changes, or about
//! other people's routes, and are no reason to look at everything.

use std::collections::HashMap;

use adit_linux::netlink::{Event, ROUTE_PROTOCOL, Route, RouteKind};
use ipnet::IpNet;

use crate::reconcile::desired::Desired;
use crate::reconcile::guard_routes;
use crate::reconcile::objects;

/// The most events that are compared one by one. With more, a look at everything costs less.
const MAX_ROUTE_EVENTS: usize = 256;

/// The events since everything was looked at.
#[derive(Debug, Default)]
pub(crate) struct PendingEvents {
    /// Routes that have changed, and whether they were deleted.
    routes: Vec<(Route, bool)>,
    /// Whether there was something that only a look at everything explains.
    needs_resync: bool,
}

impl PendingEvents {
    /// Adds an event.
    pub(crate) fn add(&mut self, event: Event) {
        match event {
            Event::RouteChanged { route, gone } if self.routes.len() < MAX_ROUTE_EVENTS => {
                self.routes.push((route, gone));
            }
            _ => self.needs_resync = true,
        }
    }

    /// Returns true if there was nothing.
    pub(crate) fn is_empty(&self) -> bool {
        !self.needs_resync && self.routes.is_empty()
    }

    /// Notes that events were lost.
    pub(crate) fn mark_overrun(&mut self) {
        self.needs_resync = true;
    }

    /// Returns true if the events leave our routes as desired: none of them removes or changes a
    /// desired route, or adds another one of ours. `devices` are the indices of the interfaces, in
    /// the order of [`Desired::devices`].
    pub(crate) fn matches_desired(&self, desired: &Desired, devices: &[u32]) -> bool {
        if self.needs_resync {
            return false;
        }
        // Another overlay may receive what this one does, so its networks have to be known.
        let is_by_ours = |route: &Route| route.device.is_none_or(|device| devices.contains(&device));
        let is_adits = |route: &Route| route.protocol == ROUTE_PROTOCOL && route.kind == RouteKind::Unicast;
        if self.routes.iter().any(|(route, _)| is_adits(route) && !is_by_ours(route)) {
            return false;
        }
        let table = objects::table(desired);
        let events = || self.routes.iter().filter(|(route, _)| route.table == table);
        let mut wanted: HashMap<IpNet, Option<Route>> =
            events().map(|(route, _)| (route.destination, None)).collect();
        if wanted.is_empty() {
            return true;
        }
        for route in &desired.routes {
            if let Some(found) = wanted.get_mut(&route.network) {
                let device = devices.get(route.device).copied().unwrap_or_default();
                *found = Some(objects::kernel_route(route, device, table));
            }
        }
        events().all(|(route, gone)| match wanted.get(&route.destination).and_then(Option::as_ref) {
            wanted if guard_routes::is_guard(route) => {
                // It is another overlay's, or it is there exactly if our route is desired.
                route.metric != Some(desired.guard_metric) || *gone == wanted.is_none()
            }
            Some(wanted) if wanted.key() == route.key() => !gone && wanted.is_already(route),
            // A foreign route of another metric, such as a backup, is another route. One that had
            // the place of the guard is gone from there.
            Some(_) if route.metric == Some(desired.guard_metric) => false,
            _ => {
                let is_ours = route.device.is_some_and(|device| devices.contains(&device));
                *gone || route.protocol != ROUTE_PROTOCOL || !is_ours
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::{DesiredRoute, Gateways, PreferredSources, Routing, guard_metric};
    use adit_linux::netlink::RouteScope;

    const DEVICE: u32 = 7;

    fn desired() -> Desired {
        let route = |network: &str| DesiredRoute {
            network: network.parse().expect("a network"),
            peer: "b".to_owned(),
            device: 0,
            via: None,
            preferred_source: None,
        };
        Desired {
            device: "adit0".to_owned(),
            devices: Vec::new(),
            hidden: None,
            underlay: std::net::Ipv4Addr::new(10, 1, 1, 1).into(),
            mark: 0,
            netns: None,
            vrf: None,
            ipv6: false,
            mtu: 1480,
            routing: Routing {
                underlay: [10, 1, 1, 1].into(),
                gateways: Gateways::Unnamed,
                preferred_sources: PreferredSources::default(),
            },
            filter: None,
            guard_metric: guard_metric("a"),
            routes: vec![route("10.1.0.0/16"), route("10.2.0.0/16")],
        }
    }

    fn match_desired(events: Vec<Event>) -> bool {
        let mut pending = PendingEvents::default();
        events.into_iter().for_each(|event| pending.add(event));
        pending.matches_desired(&desired(), &[DEVICE])
    }

    #[test]
    fn only_events_that_take_from_or_add_to_our_routes_differ() {
        let ours = |network: &str| Route {
            destination: network.parse().expect("a network"),
            device: Some(DEVICE),
            scope: Some(RouteScope::Link),
            ..Route::default()
        };
        let guard = |network: &str, site| Route {
            device: None,
            kind: RouteKind::Unreachable,
            scope: Some(RouteScope::Universe),
            metric: Some(guard_metric(site)),
            ..ours(network)
        };
        let route = |route, gone| vec![Event::RouteChanged { route, gone }];
        let foreign = |network: &str| Route { protocol: 3, device: Some(2), ..ours(network) };
        for (what, events, expected) in [
            ("nothing", vec![], true),
            ("ours is added", route(ours("10.1.0.0/16"), false), true),
            ("ours is deleted", route(ours("10.1.0.0/16"), true), false),
            (
                "ours is added with another MTU",
                route(Route { mtu: Some(9), ..ours("10.1.0.0/16") }, false),
                false,
            ),
            (
                "one of another overlay is added",
                route(Route { device: Some(9), table: 1001, ..ours("10.60.0.0/16") }, false),
                false,
            ),
            ("an undesired one of ours is deleted", route(ours("10.9.0.0/16"), true), true),
            ("an undesired one of ours is added", route(ours("10.9.0.0/16"), false), false),
            ("a foreign one is added", route(foreign("10.9.0.0/16"), false), true),
            ("a foreign one is added to our network", route(foreign("10.1.0.0/16"), false), false),
            ("a backup is added", route(Route { metric: Some(9), ..foreign("10.1.0.0/16") }, false), true),
            ("a backup is deleted", route(Route { metric: Some(9), ..foreign("10.1.0.0/16") }, true), true),
            (
                "one of ours is added with another metric",
                route(Route { metric: Some(9), ..ours("10.1.0.0/16") }, false),
                false,
            ),
            ("one of another table is deleted", route(Route { table: 9, ..ours("10.1.0.0/16") }, true), true),
            ("our guard is added", route(guard("10.1.0.0/16", "a"), false), true),
            ("our guard is deleted", route(guard("10.1.0.0/16", "a"), true), false),
            ("an undesired guard of ours is added", route(guard("10.9.0.0/16", "a"), false), false),
            ("an undesired guard of ours is deleted", route(guard("10.9.0.0/16", "a"), true), true),
            ("the guard of another overlay is deleted", route(guard("10.1.0.0/16", "b"), true), true),
            (
                "a foreign route is added in the place of our guard",
                route(Route { protocol: 3, ..guard("10.1.0.0/16", "a") }, false),
                false,
            ),
            ("an interface is deleted", vec![Event::LinkGone(3)], false),
            ("events are lost", vec![Event::Overrun], false),
            (
                "there are too many events",
                vec![route(ours("10.1.0.0/16"), false); MAX_ROUTE_EVENTS + 1].concat(),
                false,
            ),
        ] {
            assert_eq!(match_desired(events), expected, "{what}");
        }
    }
}
