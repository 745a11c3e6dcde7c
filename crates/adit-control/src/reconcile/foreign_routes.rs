//! Routes of others to the networks of our peers, and which of them are in the way.
//!
//! To the kernel, routes to one network that differ in metric or TOS are different routes. One of
//! another metric, such as a backup by another uplink, stays beside ours and is none of our
//! business. One with the metric of ours would be replaced by it, or wins against it: a start and a
//! change are refused, and a repair leaves it alone and reports it. A network that another overlay
//! has is refused whatever the metric, because it is reached through one tunnel.

use std::collections::{HashMap, HashSet};

use adit_linux::netlink::{Link, Network, ROUTE_PROTOCOL, Route};
use ipnet::IpNet;

use crate::error::ControlError;
use crate::reconcile::change::Change;
use crate::reconcile::desired::{Desired, DesiredRoute, guard_metric};
use crate::reconcile::devices::{self, has_alias_of};
use crate::reconcile::guard_routes;
use crate::state::warning::{Warning, WarningName};

/// The routes of others to desired networks.
#[derive(Debug, Default)]
pub(crate) struct ForeignRoutes {
    /// Networks where one has the place of the tunnel's route. A repair leaves these as they are.
    pub(crate) in_place: HashSet<IpNet>,
    /// Networks where one has the place of the guard. Any other is no reason to be without a guard.
    pub(crate) at_guards: HashSet<IpNet>,
    /// Those that win against the tunnel's route, one for each network.
    winning: Vec<FoundRoute>,
    /// Those that keep an overlay from starting.
    in_the_way: Vec<FoundRoute>,
}

/// A route of others to a desired network.
#[derive(Clone, Debug)]
struct FoundRoute {
    network: IpNet,
    /// The peer with that network.
    peer: String,
    owner: Owner,
    /// Its gateway, interface, metric and protocol.
    what: String,
}

/// Whose a route is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Owner {
    /// This overlay's.
    Ours,
    /// Another overlay's, with its name if an interface of it is there.
    Overlay(Option<String>),
    /// Somebody else's.
    Foreign,
}

impl ForeignRoutes {
    /// Looks them up.
    ///
    /// # Errors
    /// Fails if the kernel cannot be asked.
    pub(crate) fn look_up(
        network: &mut dyn Network,
        site: &str,
        desired: &Desired,
    ) -> Result<Self, ControlError> {
        let routes = network.routes_of(desired.table())?;
        Self::look_up_in(network, site, desired, &routes)
    }

    /// As [`Self::look_up`], where `routes` are those of the table.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(crate) fn look_up_in(
        network: &mut dyn Network,
        site: &str,
        desired: &Desired,
        routes: &[Route],
    ) -> Result<Self, ControlError> {
        let wanted: Vec<&DesiredRoute> = desired.routes.iter().collect();
        Ok(Self::among(routes, &network.links()?, site, desired, &wanted))
    }

    /// Looks up those to the networks of `wanted`. It lists all routes only if the kernel does not
    /// say at once that there are none but ours, which leave by the interfaces `devices`.
    ///
    /// # Errors
    /// As [`Self::look_up`].
    pub(crate) fn look_up_among(
        network: &mut dyn Network,
        site: &str,
        desired: &Desired,
        devices: &[u32],
        wanted: &[&DesiredRoute],
    ) -> Result<Self, ControlError> {
        let networks: Vec<IpNet> = wanted.iter().map(|route| route.network).collect();
        // The lookup is only about the main table.
        let found = if desired.vrf.is_some() { None } else { network.routes_to_exactly(&networks)? };
        let is_ours = |route: &Route| {
            let is_by_ours = route.device.is_some_and(|device| devices.contains(&device));
            route.protocol == ROUTE_PROTOCOL && is_by_ours && route.has_default_metric()
        };
        if found.is_some_and(|found| found.iter().all(is_ours)) {
            return Ok(Self::default());
        }
        let (links, routes) = (network.links()?, network.routes_of(desired.table())?);
        Ok(Self::among(&routes, &links, site, desired, wanted))
    }

    /// Finds them among all `routes` of the table, which are in the kernel's order.
    fn among(
        routes: &[Route],
        links: &[Link],
        site: &str,
        desired: &Desired,
        wanted: &[&DesiredRoute],
    ) -> Self {
        let owners = Owners::new(links, site, desired);
        let wanted: HashMap<_, _> = wanted.iter().map(|route| (route.network, *route)).collect();
        let mut found = Self::default();
        // Of two routes with the same place, the first wins.
        let mut ours_is_first = HashSet::new();
        for route in routes {
            let Some(wanted) = wanted.get(&route.destination) else { continue };
            let network = wanted.network;
            let owner = owners.of(route);
            let is_in_place = route.has_default_metric() && route.tos == 0;
            let is_at_guard = route.metric == Some(desired.guard_metric) && route.tos == 0;
            if owner == Owner::Ours {
                if is_in_place {
                    ours_is_first.insert(network);
                }
                continue;
            }
            let is_in_the_way = is_in_place || is_at_guard || owner != Owner::Foreign;
            let peer = wanted.peer.clone();
            let described = FoundRoute { network, peer, owner, what: describe(route, links) };
            // The first one wins.
            if is_in_place && found.in_place.insert(network) && !ours_is_first.contains(&network) {
                found.winning.push(described.clone());
            }
            if is_at_guard {
                found.at_guards.insert(network);
            }
            if is_in_the_way {
                found.in_the_way.push(described);
            }
        }
        found
    }

    /// Refuses networks with a route that is in the way, except for those that are `kept`: the
    /// overlay that runs has them already.
    ///
    /// # Errors
    /// Fails if there is one.
    pub(crate) fn refuse_except(&self, kept: &HashSet<IpNet>) -> Result<(), ControlError> {
        self.refusals_except(kept).next().map_or(Ok(()), Err)
    }

    /// Returns an error for each route that is in the way, except to networks that are `kept`.
    pub(crate) fn refusals_except(&self, kept: &HashSet<IpNet>) -> impl Iterator<Item = ControlError> {
        let refused = self.in_the_way.iter().filter(|found| !kept.contains(&found.network));
        refused.map(|found| {
            let FoundRoute { network, peer, owner, what } = found.clone();
            match owner {
                Owner::Overlay(name) => {
                    let unnamed = || "another overlay".to_owned();
                    let overlay = name.map_or_else(unnamed, |name| format!("overlay `{name}`"));
                    ControlError::RouteOfOverlay { network, peer, overlay, what }
                }
                Owner::Ours | Owner::Foreign => ControlError::ForeignRoute { network, peer, what },
            }
        })
    }

    /// Returns a warning for each network whose route of others wins.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let warning = |found: &FoundRoute| Warning {
            name: WarningName::ForeignRoute,
            about: found.network.to_string(),
            what: format!(
                "a route to {} that is not Adit's wins ({}), so it is not reached through peer `{}`; it is left as \
                 it is: remove it, or take the network out of that peer",
                found.network, found.what, found.peer
            ),
        };
        self.winning.iter().map(warning).collect()
    }

    /// Returns true if a repair leaves this difference as it is.
    pub(crate) fn keep_out(&self, change: &Change) -> bool {
        let networks = if change.is_guard { &self.at_guards } else { &self.in_place };
        change.network.is_some_and(|network| networks.contains(&network))
    }
}

/// Refuses a site whose guards could not be told from those of another overlay.
///
/// # Errors
/// Fails if there is one, or if the kernel cannot be asked.
pub(crate) fn refuse_shared_metric(network: &mut dyn Network, site: &str) -> Result<(), ControlError> {
    let links = network.links()?;
    guard_routes::refuse_shared_metric(site, links.iter().filter_map(|link| link.alias.as_deref()))
}

/// The interfaces, which say whose a route is.
struct Owners<'a> {
    links: &'a [Link],
    /// The indices of this overlay's.
    ours: HashSet<u32>,
    guard_metric: u32,
}

impl<'a> Owners<'a> {
    fn new(links: &'a [Link], site: &str, desired: &Desired) -> Self {
        let names: HashSet<&str> = desired.devices.iter().map(|device| device.name.as_str()).collect();
        let is_ours = |link: &&Link| names.contains(link.name.as_str()) || has_alias_of(link, site);
        let ours = links.iter().filter(is_ours).map(|link| link.index).collect();
        Self { links, ours, guard_metric: desired.guard_metric }
    }

    fn of(&self, route: &Route) -> Owner {
        if guard_routes::is_guard(route) {
            if route.metric == Some(self.guard_metric) {
                return Owner::Ours;
            }
            let mut sites = self.links.iter().filter_map(|link| devices::site_of(link.alias.as_deref()?));
            let owner = sites.find(|site| route.metric == Some(guard_metric(site)));
            return Owner::Overlay(owner.map(str::to_owned));
        }
        let Some(device) = route.device.filter(|_| route.protocol == ROUTE_PROTOCOL) else {
            return Owner::Foreign;
        };
        if self.ours.contains(&device) {
            return Owner::Ours;
        }
        let link = self.links.iter().find(|link| link.index == device);
        let site = link.and_then(|link| devices::site_of(link.alias.as_deref()?));
        site.map_or(Owner::Foreign, |site| Owner::Overlay(Some(site.to_owned())))
    }
}

fn describe(route: &Route, links: &[Link]) -> String {
    let mut what = Vec::new();
    if let Some(gateway) = route.gateway {
        what.push(format!("via {gateway}"));
    }
    if let Some(link) = links.iter().find(|link| Some(link.index) == route.device) {
        what.push(format!("dev {}", link.name));
    }
    if guard_routes::is_guard(route) {
        what.push("a guard route, unreachable".to_owned());
    }
    what.extend(route.metric.map(|metric| format!("metric {metric}")));
    what.push(format!("proto {}", route.protocol));
    what.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake;
    use crate::reconcile::desired::Machine;
    use adit_config::Config;
    use adit_linux::netlink::RouteKind;

    const NETWORK: &str = "192.168.199.0/24";

    fn desired() -> Desired {
        let text = include_str!("../../../../examples/a.toml");
        let config = Config::parse("a.toml", text).expect("it is valid");
        let underlay = [10, 1, 1, 1].into();
        Desired::of(&config, &Machine { underlay, local: Vec::new(), underlay_mtu: 1500, vrf: None })
    }

    fn link(index: u32, name: &str, alias: Option<&str>) -> Link {
        Link { alias: alias.map(str::to_owned), ..fake::link(index, name, "veth") }
    }

    fn by(device: u32, metric: Option<u32>, protocol: u8) -> Route {
        let destination = NETWORK.parse().expect("a network");
        Route { destination, device: Some(device), metric, protocol, ..Route::default() }
    }

    fn guard(site: &str) -> Route {
        let metric = Some(guard_metric(site));
        Route { kind: RouteKind::Unreachable, device: None, ..by(0, metric, ROUTE_PROTOCOL) }
    }

    #[test]
    fn a_route_is_told_by_prefix_metric_tos_interface_protocol_and_overlay() {
        const OURS: u32 = 7;
        const THEIRS: u32 = 2;
        const OVERLAY: u32 = 9;
        let links = [
            link(OURS, "ipipA", Some("adit:a")),
            link(THEIRS, "mpls", None),
            link(OVERLAY, "two0", Some("adit:two:b")),
        ];
        let desired = desired();
        let wanted: Vec<&DesiredRoute> = desired.routes.iter().collect();
        let ours = || by(OURS, None, ROUTE_PROTOCOL);
        let static_route = |metric| by(THEIRS, metric, 4);
        let with_tos = Route { tos: 0x10, ..static_route(None) };
        let at_guard = static_route(Some(guard_metric("a")));
        let multipath = Route { device: None, ..ours() };
        let elsewhere =
            Route { destination: "192.168.0.0/16".parse().expect("a network"), ..static_route(None) };
        // The routes, and whether one wins, has our place, has the guard's; and why a start is
        // refused.
        for (what, routes, expected, refused) in [
            ("nothing", vec![], (false, false, false), None),
            ("only ours", vec![ours(), guard("a")], (false, false, false), None),
            ("a backup", vec![ours(), static_route(Some(100))], (false, false, false), None),
            ("a backup, without ours", vec![static_route(Some(100))], (false, false, false), None),
            ("one of another TOS", vec![with_tos, ours()], (false, false, false), None),
            ("one to a wider network", vec![elsewhere], (false, false, false), None),
            ("one in our place", vec![static_route(None)], (true, true, false), Some("dev mpls proto 4")),
            ("one before ours", vec![static_route(None), ours()], (true, true, false), Some("dev mpls")),
            ("one behind ours", vec![ours(), static_route(None)], (false, true, false), Some("dev mpls")),
            (
                "one in our place with metric 0",
                vec![static_route(Some(0))],
                (true, true, false),
                Some("mpls"),
            ),
            ("one with several next hops", vec![multipath], (true, true, false), Some("proto 173")),
            ("one in the guard's place", vec![ours(), at_guard], (false, false, true), Some("metric 42789")),
            (
                "an administrator's with our protocol",
                vec![by(THEIRS, None, ROUTE_PROTOCOL)],
                (true, true, false),
                Some("is not Adit's"),
            ),
            (
                "another overlay's",
                vec![by(OVERLAY, None, ROUTE_PROTOCOL)],
                (true, true, false),
                Some("overlay `two` on this machine (dev two0 proto 173)"),
            ),
            (
                "another overlay's with another metric",
                vec![ours(), by(OVERLAY, Some(9), ROUTE_PROTOCOL)],
                (false, false, false),
                Some("overlay `two`"),
            ),
            ("another overlay's guard", vec![guard("two")], (false, false, false), Some("overlay `two`")),
            (
                "the guard of one that is gone",
                vec![guard("c")],
                (false, false, false),
                Some("another overlay"),
            ),
        ] {
            let found = ForeignRoutes::among(&routes, &links, "a", &desired, &wanted);
            let network = NETWORK.parse().expect("a network");
            let seen = (
                !found.warnings().is_empty(),
                found.in_place.contains(&network),
                found.at_guards.contains(&network),
            );
            assert_eq!(seen, expected, "{what}");
            let text = found.refuse_except(&HashSet::new()).err().map(|error| error.to_string());
            assert_eq!(text.is_some(), refused.is_some(), "{what}: {text:?}");
            let words = refused.unwrap_or_default();
            assert!(text.is_none_or(|text| text.contains(words)), "{what}");
            let kept = HashSet::from([network]);
            assert!(found.refuse_except(&kept).is_ok(), "{what}: what runs already has it");
        }
    }
}
