//! The kernel's objects of an overlay: looked at, and made as they are wanted.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use adit_config::Config;
use adit_linux::netlink::{Link, Netlink, ROUTE_PROTOCOL, Route};
use adit_linux::sysctl;
use ipnet::Ipv4Net;

use crate::desired::{Desired, DesiredRoute};
use crate::error::ControlError;

/// Datagrams that wait for the tunnel: the kernel's default of 500 is less than two superpackets
/// of small datagrams.
const DEVICE_QUEUE: u32 = 4096;

/// What there is of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    /// The interface of the wanted name, whoever made it.
    pub(crate) device: Option<Link>,
    /// Our routes that lead into it.
    pub(crate) routes: Vec<Route>,
}

impl Actual {
    pub(crate) fn look(netlink: &mut Netlink, desired: &Desired) -> Result<Self, ControlError> {
        let device = netlink.link(&desired.device)?;
        let routes = match &device {
            Some(link) => netlink.routes_by(ROUTE_PROTOCOL, link.index)?,
            None => Vec::new(),
        };
        Ok(Self { device, routes })
    }
}

/// The routes that are wanted, as the kernel knows them.
pub(crate) fn wanted_routes(desired: &Desired, device: u32) -> Vec<Route> {
    let has_many = has_many_gateways(desired);
    desired.routes.iter().map(|route| kernel_route(route, device, has_many)).collect()
}

pub(crate) fn local_addresses(
    netlink: &mut Netlink,
    underlay: Ipv4Addr,
) -> Result<Vec<Ipv4Addr>, ControlError> {
    let local: Vec<Ipv4Addr> =
        netlink.addresses(None)?.into_iter().map(|address| address.prefix.addr()).collect();
    if !local.contains(&underlay) {
        let found: Vec<String> =
            local.iter().filter(|address| !address.is_loopback()).map(Ipv4Addr::to_string).collect();
        let found = if found.is_empty() { "none yet".to_owned() } else { found.join(", ") };
        return Err(ControlError::UnderlayMissing { address: underlay, found });
    }
    Ok(local)
}

/// The largest datagram that the underlay takes towards every peer.
pub(crate) fn underlay_mtu(netlink: &mut Netlink, config: &Config) -> Result<u16, ControlError> {
    let peers: Vec<Ipv4Addr> = config.peers.iter().map(|peer| peer.underlay).collect();
    Ok(smallest_mtu(netlink, &peers, config.site.underlay)?.unwrap_or(1500))
}

/// The same towards these addresses, from our own; `None`: there is no way to any.
pub(crate) fn smallest_mtu(
    netlink: &mut Netlink,
    peers: &[Ipv4Addr],
    own: Ipv4Addr,
) -> Result<Option<u16>, ControlError> {
    let links = netlink.links()?;
    let mut smallest = None;
    // A peer without a route yet is no reason not to start.
    for route in netlink.routes_to(peers, Some(own))?.into_iter().flatten() {
        let link = links.iter().find(|link| link.index == route.device).map(|link| link.mtu);
        smallest = smallest.into_iter().chain(link).min();
    }
    Ok(smallest.map(|mtu| mtu.min(u32::from(u16::MAX)) as u16))
}

pub(crate) fn refuse_foreign_device(netlink: &mut Netlink, desired: &Desired) -> Result<(), ControlError> {
    match netlink.link(&desired.device)? {
        Some(link) if link.alias.as_deref() != Some(&desired.alias) => {
            let what = match (&link.alias, &link.kind) {
                (Some(alias), _) => format!("its alias is `{alias}`"),
                (None, Some(kind)) => format!("a device of kind `{kind}` without our alias"),
                (None, None) => "a device without our alias".to_owned(),
            };
            Err(ControlError::ForeignDevice { device: desired.device.clone(), what })
        }
        _ => Ok(()),
    }
}

pub(crate) fn refuse_foreign_routes(netlink: &mut Netlink, desired: &Desired) -> Result<(), ControlError> {
    let foreign = foreign(netlink, desired)?;
    refuse_foreign(netlink, foreign)
}

/// The same for some of them, without a listing of all routes where that is possible.
pub(crate) fn refuse_foreign_among(
    netlink: &mut Netlink,
    desired: &Desired,
    wanted: &[&DesiredRoute],
) -> Result<(), ControlError> {
    let networks: Vec<Ipv4Net> = wanted.iter().map(|route| route.network).collect();
    match netlink.routes_to_exactly(&networks)? {
        Some(found) if found.is_empty() => Ok(()),
        _ => {
            let foreign = foreign_among(netlink, desired, wanted)?;
            refuse_foreign(netlink, foreign)
        }
    }
}

fn refuse_foreign(netlink: &mut Netlink, foreign: Vec<(Route, &DesiredRoute)>) -> Result<(), ControlError> {
    let Some((route, wanted)) = foreign.into_iter().next() else { return Ok(()) };
    let links = netlink.links()?;
    Err(ControlError::ForeignRoute {
        network: wanted.network,
        peer: wanted.peer.clone(),
        what: describe(&route, &links),
    })
}

/// The wanted networks that somebody else has a route to.
pub(crate) fn foreign_routes(netlink: &mut Netlink, desired: &Desired) -> Result<Vec<Ipv4Net>, ControlError> {
    Ok(foreign(netlink, desired)?.into_iter().map(|(route, _)| route.destination).collect())
}

fn foreign<'a>(
    netlink: &mut Netlink,
    desired: &'a Desired,
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let wanted: Vec<&DesiredRoute> = desired.routes.iter().collect();
    foreign_among(netlink, desired, &wanted)
}

fn foreign_among<'a>(
    netlink: &mut Netlink,
    desired: &Desired,
    wanted: &[&'a DesiredRoute],
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let device = netlink.link(&desired.device)?.map(|link| link.index);
    let wanted: HashMap<_, _> = wanted.iter().map(|route| (route.network, *route)).collect();
    let is_foreign =
        |route: &Route| route.protocol != ROUTE_PROTOCOL || device.is_some() && route.device != device;
    let routes = netlink.routes()?.into_iter().filter(is_foreign);
    Ok(routes.filter_map(|route| Some((route.clone(), *wanted.get(&route.destination)?))).collect())
}

fn describe(route: &Route, links: &[Link]) -> String {
    let mut what = Vec::new();
    if let Some(gateway) = route.gateway {
        what.push(format!("via {gateway}"));
    }
    if let Some(link) = links.iter().find(|link| Some(link.index) == route.device) {
        what.push(format!("dev {}", link.name));
    }
    what.push(format!("proto {}", route.protocol));
    what.join(" ")
}

pub(crate) fn set_up_device(netlink: &mut Netlink, desired: &Desired) -> Result<Link, ControlError> {
    let missing = || ControlError::ForeignDevice {
        device: desired.device.clone(),
        what: "it vanished while it was being set up".to_owned(),
    };
    let link = netlink.link(&desired.device)?.ok_or_else(missing)?;
    netlink.set_alias(link.index, &desired.alias)?;
    netlink.set_mtu(link.index, u32::from(desired.mtu))?;
    netlink.set_txqueuelen(link.index, DEVICE_QUEUE)?;
    // Only IPv4 is carried; without this the kernel would send router solicitations into it.
    // A kernel without IPv6 has no such knob.
    let _ = sysctl::write(&format!("net/ipv6/conf/{}/disable_ipv6", desired.device), "1");
    netlink.set_up(link.index)?;
    Ok(link)
}

/// Routes of ours that are no longer wanted go, those that are wanted come; those that are as they should
/// be are left alone.
pub(crate) fn set_routes(netlink: &mut Netlink, desired: &Desired, device: u32) -> Result<(), ControlError> {
    set_routes_but(netlink, desired, device, &[])
}

/// The same, but for networks that somebody else has a route to.
pub(crate) fn set_routes_but(
    netlink: &mut Netlink,
    desired: &Desired,
    device: u32,
    foreign: &[Ipv4Net],
) -> Result<(), ControlError> {
    let wanted = wanted_routes(desired, device);
    let at: HashMap<_, _> = wanted.iter().map(|route| route.destination).zip(0..).collect();
    let mut is_set = vec![false; wanted.len()];
    let mut unwanted = Vec::new();
    for route in netlink.routes_by(ROUTE_PROTOCOL, device)? {
        match at.get(&route.destination) {
            Some(&place) => is_set[place] |= wanted[place].is_already(&route),
            None => unwanted.push(route),
        }
    }
    netlink.delete_routes(&unwanted)?;
    let missing = wanted.into_iter().zip(is_set).filter(|(_, is_set)| !is_set).map(|(route, _)| route);
    let missing: Vec<Route> = missing.filter(|route| !foreign.contains(&route.destination)).collect();
    Ok(netlink.replace_routes(&missing)?)
}

/// The kernel compares a route with all those it keeps for the same device, one after another, but for those
/// that lead by the same gateway: with 10,000 gateways, that is two seconds.
pub(crate) const GATEWAYS: usize = 256;
/// Stands for whichever peer it is: the address that RFC 7600 sets aside for a host that has none. That
/// there is a gateway is all that counts, see [`DesiredRoute::via`].
const ANY_PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

pub(crate) fn has_many_gateways(desired: &Desired) -> bool {
    let mut gateways = HashSet::new();
    desired.routes.iter().any(|route| gateways.insert(route.via) && gateways.len() > GATEWAYS)
}

pub(crate) fn kernel_route(route: &DesiredRoute, device: u32, has_many: bool) -> Route {
    Route {
        destination: route.network,
        device: Some(device),
        gateway: route.via.map(|peer| if has_many { ANY_PEER } else { peer }),
        onlink: route.via.is_some(),
        preferred_source: route.preferred_source,
        protocol: ROUTE_PROTOCOL,
        ..Route::default()
    }
}
