//! The kernel's objects of an overlay: looked at, and made as they are wanted.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;

use adit_config::Config;
use adit_linux::netlink::{Link, MAIN_TABLE, Netlink, ROUTE_PROTOCOL, Route};
use adit_linux::sysctl;
use ipnet::Ipv4Net;

use crate::error::ControlError;
use crate::namespaces::{Sides, namespace};
use crate::reconcile::desired::{Desired, DesiredDevice, DesiredRoute, Machine};
use crate::reconcile::devices::is_of_site;
use crate::underlay;

pub(crate) mod ipip;

/// Datagrams that wait for the tunnel: the kernel's default of 500 is less than two superpackets
/// of small datagrams.
const DEVICE_QUEUE: u32 = 4096;

/// What there is of an overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actual {
    /// The interfaces, in the order of those that are wanted: of the wanted name, whoever made it, or, of Linux's
    /// driver, whatever it is called.
    pub(crate) devices: Vec<Option<Link>>,
    /// Interfaces of ours that are no longer wanted.
    pub(crate) unwanted: Vec<Link>,
    /// Our routes that lead into them.
    pub(crate) routes: Vec<Route>,
    /// Whether the table that says who may send what is there as it is wanted; `None`: there is none.
    pub(crate) filter: Option<bool>,
}

impl Actual {
    /// `known` are the indices of the overlay's interfaces, if it runs.
    pub(crate) fn look(
        netlink: &mut Netlink,
        site: &str,
        desired: &Desired,
        known: &[u32],
    ) -> Result<Self, ControlError> {
        if desired.is_drivers() {
            return ipip::look(netlink, site, desired, known);
        }
        let device = netlink.link(&desired.device)?;
        let routes = match &device {
            Some(link) => netlink.routes_by(ROUTE_PROTOCOL, link.index, table(desired))?,
            None => Vec::new(),
        };
        Ok(Self { devices: vec![device], routes, ..Self::default() })
    }

    /// The index of the interface in that place; 0: it is not there.
    pub(crate) fn index(&self, place: usize) -> u32 {
        self.devices.get(place).and_then(Option::as_ref).map_or(0, |link| link.index)
    }

    /// The interfaces' indices.
    pub(crate) fn indices(&self) -> Vec<u32> {
        (0..self.devices.len()).map(|place| self.index(place)).collect()
    }
}

/// The routes that are wanted, as the kernel knows them.
pub(crate) fn wanted_routes(desired: &Desired, devices: &[u32]) -> Vec<Route> {
    // The driver's gateways are what it sends to.
    let has_many = !desired.is_drivers() && has_many_gateways(desired);
    let index = |route: &DesiredRoute| devices.get(route.device).copied().unwrap_or(0);
    let table = table(desired);
    desired.routes.iter().map(|route| kernel_route(route, index(route), table, has_many)).collect()
}

/// What `config` needs to know of the machine; the underlay address that is `in_use` stays if it can.
pub(crate) fn look_at_machine(
    sides: &mut Sides,
    config: &Config,
    in_use: Option<Ipv4Addr>,
) -> Result<Machine, ControlError> {
    let vrf = sides.vrf()?;
    let underlay = underlay::find(&mut sides.outside, config, in_use)?;
    underlay::refuse_vrf(&mut sides.outside, underlay)?;
    let local = local_addresses(&mut sides.inside, underlay)?;
    let underlay_mtu = underlay_mtu(&mut sides.outside, config, underlay)?;
    Ok(Machine { underlay, local, underlay_mtu, vrf })
}

/// The addresses that the machine has inside, and our own of the underlay, which may be elsewhere.
pub(crate) fn local_addresses(
    inside: &mut Netlink,
    underlay: Ipv4Addr,
) -> Result<Vec<Ipv4Addr>, ControlError> {
    let found = inside.addresses(None)?.into_iter().map(|address| address.prefix.addr());
    let mut local: Vec<Ipv4Addr> = found.collect();
    if !local.contains(&underlay) {
        local.push(underlay);
    }
    Ok(local)
}

/// The table that an overlay's routes are in.
pub(crate) fn table(desired: &Desired) -> u32 {
    desired.vrf.as_ref().map_or(MAIN_TABLE, |vrf| vrf.table)
}

/// The largest datagram that the underlay takes towards every peer.
fn underlay_mtu(netlink: &mut Netlink, config: &Config, underlay: Ipv4Addr) -> Result<u16, ControlError> {
    let peers: Vec<Ipv4Addr> = config.peers.iter().map(|peer| peer.underlay).collect();
    Ok(smallest_mtu(netlink, &peers, underlay)?.unwrap_or(1500))
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

pub(crate) fn refuse_foreign_device(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
) -> Result<(), ControlError> {
    desired.devices.iter().try_for_each(|device| refuse_foreign_link(netlink, site, device))
}

fn refuse_foreign_link(
    netlink: &mut Netlink,
    site: &str,
    desired: &DesiredDevice,
) -> Result<(), ControlError> {
    let is_ours = |link: &Link| link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site));
    match netlink.link(&desired.name)? {
        Some(link) if is_ours(&link) && link.ipip.is_some() != desired.ipip.is_some() => {
            Err(ControlError::OtherKind {
                device: desired.name.clone(),
                kind: link.kind.unwrap_or_default(),
                site: site.to_owned(),
            })
        }
        Some(link) if !is_ours(&link) && !ipip::is_half_made(&link, desired) => {
            let what = match (&link.alias, &link.kind) {
                (Some(alias), _) => format!("its alias is `{alias}`"),
                (None, Some(kind)) => format!("a device of kind `{kind}` without our alias"),
                (None, None) => "a device without our alias".to_owned(),
            };
            Err(ControlError::ForeignDevice { device: desired.name.clone(), what })
        }
        _ => Ok(()),
    }
}

pub(crate) fn refuse_foreign_routes(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
) -> Result<(), ControlError> {
    let foreign = foreign(netlink, site, desired)?;
    refuse_foreign(netlink, foreign)
}

/// The same for some of them, without a listing of all routes where that is possible.
pub(crate) fn refuse_foreign_among(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
    wanted: &[&DesiredRoute],
) -> Result<(), ControlError> {
    let networks: Vec<Ipv4Net> = wanted.iter().map(|route| route.network).collect();
    // The kernel looks for these in the main table.
    let found = if desired.vrf.is_some() { None } else { netlink.routes_to_exactly(&networks)? };
    match found {
        Some(found) if found.is_empty() => Ok(()),
        _ => {
            let foreign = foreign_among(netlink, site, desired, wanted)?;
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
pub(crate) fn foreign_routes(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
) -> Result<Vec<Ipv4Net>, ControlError> {
    Ok(foreign(netlink, site, desired)?.into_iter().map(|(route, _)| route.destination).collect())
}

fn foreign<'a>(
    netlink: &mut Netlink,
    site: &str,
    desired: &'a Desired,
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let wanted: Vec<&DesiredRoute> = desired.routes.iter().collect();
    foreign_among(netlink, site, desired, &wanted)
}

fn foreign_among<'a>(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
    wanted: &[&'a DesiredRoute],
) -> Result<Vec<(Route, &'a DesiredRoute)>, ControlError> {
    let links = netlink.links()?;
    let names: HashSet<&str> = desired.devices.iter().map(|device| device.name.as_str()).collect();
    let ours: HashSet<u32> = links
        .iter()
        .filter(|link| {
            names.contains(link.name.as_str())
                || link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site))
        })
        .map(|link| link.index)
        .collect();
    let wanted: HashMap<_, _> = wanted.iter().map(|route| (route.network, *route)).collect();
    let is_foreign = |route: &Route| {
        route.protocol != ROUTE_PROTOCOL
            || !ours.is_empty() && !route.device.is_some_and(|device| ours.contains(&device))
    };
    let routes = netlink.routes_of(table(desired))?.into_iter().filter(is_foreign);
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
    let vrf = desired.vrf.as_ref().map(|vrf| vrf.index);
    if link.master != vrf {
        // Takes all routes from it, so those come later.
        netlink.set_master(link.index, vrf)?;
    }
    if let Some(device) = desired.devices.first() {
        set_up(netlink, &link, device, desired)?;
    }
    netlink.set_up(link.index)?;
    Ok(link)
}

/// All but up.
fn set_up(
    netlink: &mut Netlink,
    link: &Link,
    device: &DesiredDevice,
    desired: &Desired,
) -> Result<(), ControlError> {
    netlink.set_alias(link.index, &device.alias)?;
    netlink.set_mtu(link.index, u32::from(desired.mtu))?;
    if device.ipip.is_none() {
        netlink.set_txqueuelen(link.index, DEVICE_QUEUE)?;
    }
    // Only IPv4 is carried; without this the kernel would send router solicitations into it.
    // A kernel without IPv6 has no such knob.
    let no_ipv6 = || sysctl::write(&format!("net/ipv6/conf/{}/disable_ipv6", link.name), "1");
    let _ = match &desired.netns {
        Some(netns) => namespace(netns)?.run(no_ipv6)?,
        None => no_ipv6(),
    };
    Ok(())
}

/// Routes of ours that are no longer wanted go, those that are wanted come; those that are as they should
/// be are left alone.
pub(crate) fn set_routes(
    netlink: &mut Netlink,
    desired: &Desired,
    devices: &[u32],
) -> Result<(), ControlError> {
    set_routes_but(netlink, desired, devices, &[])
}

/// The same, but for networks that somebody else has a route to.
pub(crate) fn set_routes_but(
    netlink: &mut Netlink,
    desired: &Desired,
    devices: &[u32],
    foreign: &[Ipv4Net],
) -> Result<(), ControlError> {
    let wanted = wanted_routes(desired, devices);
    let at: HashMap<_, _> = wanted.iter().map(|route| route.destination).zip(0..).collect();
    let mut is_set = vec![false; wanted.len()];
    let mut unwanted = Vec::new();
    for route in our_routes(netlink, devices, table(desired))? {
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

/// Those that lead into these devices.
fn our_routes(netlink: &mut Netlink, devices: &[u32], table: u32) -> Result<Vec<Route>, ControlError> {
    if let &[device] = devices {
        return Ok(netlink.routes_by(ROUTE_PROTOCOL, device, table)?);
    }
    let devices: HashSet<u32> = devices.iter().copied().collect();
    let is_ours = |route: &Route| {
        route.protocol == ROUTE_PROTOCOL && route.device.is_some_and(|device| devices.contains(&device))
    };
    Ok(netlink.routes_of(table)?.into_iter().filter(is_ours).collect())
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

pub(crate) fn kernel_route(route: &DesiredRoute, device: u32, table: u32, has_many: bool) -> Route {
    Route {
        destination: route.network,
        device: Some(device),
        gateway: route.via.map(|peer| if has_many { ANY_PEER } else { peer }),
        onlink: route.via.is_some(),
        preferred_source: route.preferred_source,
        protocol: ROUTE_PROTOCOL,
        table,
        ..Route::default()
    }
}
