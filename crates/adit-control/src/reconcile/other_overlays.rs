//! The networks that are reached through other overlays of this machine. Those may use the same
//! underlay address and have the same peers, so each receives what is for all of them.
//!
//! The kernel's routes say it: those of Adit's protocol by an interface with the alias of another
//! overlay. No overlay has to be asked, and none that is dead is forgotten while its programs
//! still forward.

use std::collections::HashSet;

use adit_linux::netlink::{Link, Network, ROUTE_PROTOCOL, RouteKind};
use ipnet::IpNet;

use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::devices;

/// Lists them in order: those of the inner side, and of the underlay's if that is elsewhere.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn networks(namespaces: &mut Namespaces, site: &str) -> Result<Vec<IpNet>, ControlError> {
    let mut found = networks_in(namespaces.inner.as_mut(), site)?;
    if namespaces.scope.netns.is_some() {
        found.extend(networks_in(namespaces.underlay.as_mut(), site)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn networks_in(network: &mut dyn Network, site: &str) -> Result<Vec<IpNet>, ControlError> {
    let is_of_other = |link: &&Link| {
        let owner = link.alias.as_deref().and_then(devices::site_of);
        owner.is_some_and(|owner| owner != site)
    };
    let links = network.links()?;
    let others: HashSet<u32> = links.iter().filter(is_of_other).map(|link| link.index).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let routes = network.routes_of_kind(ROUTE_PROTOCOL, RouteKind::Unicast, None)?.into_iter();
    let theirs = routes.filter(|route| route.device.is_some_and(|device| others.contains(&device)));
    Ok(theirs.map(|route| route.destination).collect())
}
