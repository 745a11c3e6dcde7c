//! What netlink tells, held against what is wished: most of it is what we have done ourselves, or somebody else's, and
//! no reason to look at everything.

use std::collections::HashMap;

use adit_linux::netlink::{Event, ROUTE_PROTOCOL, Route};
use ipnet::Ipv4Net;

use crate::reconcile::desired::Desired;
use crate::reconcile::objects;

/// More than these, and a look at everything tells the same for less.
const MOST: usize = 256;

/// What has been told since everything was looked at.
#[derive(Debug, Default)]
pub(crate) struct Hearsay {
    routes: Vec<(Route, bool)>,
    /// Something that is to be looked at in any case.
    has_more: bool,
}

impl Hearsay {
    pub(crate) fn note(&mut self, event: Event) {
        match event {
            Event::RouteChanged { route, gone } if self.routes.len() < MOST => {
                self.routes.push((route, gone))
            }
            _ => self.has_more = true,
        }
    }

    /// Something may have happened that nobody tells of.
    pub(crate) fn note_loss(&mut self) {
        self.has_more = true;
    }

    /// Whether nothing of it takes anything away from what is wished, or adds anything of ours to it. `devices` are the
    /// interfaces of our routes, as they are wished.
    pub(crate) fn is_as_wished(&self, desired: &Desired, devices: &[u32]) -> bool {
        if self.has_more {
            return false;
        }
        let table = objects::table(desired);
        let routes = || self.routes.iter().filter(|(route, _)| route.table == table);
        let mut wanted: HashMap<Ipv4Net, Option<Route>> =
            routes().map(|(route, _)| (route.destination, None)).collect();
        if wanted.is_empty() {
            return true;
        }
        let has_many = objects::has_many_gateways(desired);
        for route in &desired.routes {
            if let Some(found) = wanted.get_mut(&route.network) {
                let device = devices.get(route.device).copied().unwrap_or_default();
                *found = Some(objects::kernel_route(route, device, table, has_many));
            }
        }
        routes().all(|(route, gone)| match wanted.get(&route.destination).and_then(Option::as_ref) {
            Some(wanted) => !gone && wanted.is_already(route),
            None => {
                let is_ours = route.device.is_some_and(|device| devices.contains(&device));
                *gone || route.protocol != ROUTE_PROTOCOL || !is_ours
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::DesiredRoute;
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
            underlay: std::net::Ipv4Addr::new(10, 1, 1, 1),
            netns: None,
            vrf: None,
            mtu: 1480,
            filter: None,
            routes: vec![route("10.1.0.0/16"), route("10.2.0.0/16")],
        }
    }

    fn told(events: Vec<Event>) -> bool {
        let mut hearsay = Hearsay::default();
        events.into_iter().for_each(|event| hearsay.note(event));
        hearsay.is_as_wished(&desired(), &[DEVICE])
    }

    #[test]
    fn only_what_takes_or_adds_is_looked_at() {
        let ours = |network: &str| Route {
            destination: network.parse().expect("a network"),
            device: Some(DEVICE),
            scope: Some(RouteScope::Link),
            ..Route::default()
        };
        let route = |route, gone| vec![Event::RouteChanged { route, gone }];
        let foreign = |network: &str| Route { protocol: 3, device: Some(2), ..ours(network) };
        for (what, events, is_as_wished) in [
            ("nothing", vec![], true),
            ("ours comes", route(ours("10.1.0.0/16"), false), true),
            ("ours goes", route(ours("10.1.0.0/16"), true), false),
            ("ours comes otherwise", route(Route { mtu: Some(9), ..ours("10.1.0.0/16") }, false), false),
            ("one that is not wanted goes", route(ours("10.9.0.0/16"), true), true),
            ("one that is not wanted comes", route(ours("10.9.0.0/16"), false), false),
            ("somebody's comes", route(foreign("10.9.0.0/16"), false), true),
            ("somebody's comes for ours", route(foreign("10.1.0.0/16"), false), false),
            ("in another table", route(Route { table: 9, ..ours("10.1.0.0/16") }, true), true),
            ("an interface", vec![Event::LinkGone(3)], false),
            ("more than is known", vec![Event::Overrun], false),
            ("too much", vec![route(ours("10.1.0.0/16"), false); MOST + 1].concat(), false),
        ] {
            assert_eq!(told(events), is_as_wished, "{what}");
        }
    }
}
