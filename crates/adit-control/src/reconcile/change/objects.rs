//! An overlay's wish compared with the kernel's truth: interfaces, routes, the table. Pure.

use std::collections::{HashMap, HashSet};

use adit_config::Config;
use adit_linux::netlink::{INHERIT_TOS, Ipip, Link, Route};
use ipnet::Ipv4Net;

use super::{Change, Kind, Object};
use crate::reconcile::desired::{Desired, DesiredDevice};
use crate::reconcile::objects::{Actual, wanted_routes};

/// What has to be done to the kernel's objects. The commands are those of the kernel's own tunnel driver, as one would
/// type them by hand.
pub(crate) fn of_kernel(config: &Config, desired: &Desired, actual: &Actual) -> Vec<Change> {
    let mut changes: Vec<Change> = filter(desired, actual).into_iter().collect();
    for (place, device) in desired.devices.iter().enumerate() {
        match actual.devices.get(place).and_then(Option::as_ref) {
            None => changes.push(new_device(config, desired, device)),
            Some(link) => changes.extend(of_device(desired, device, link)),
        }
    }
    changes.extend(routes(desired, actual));
    changes.extend(actual.unwanted.iter().map(|link| {
        let name = &link.name;
        Change::new(Kind::Remove, Object::Device, name).by(format!("ip link delete {name}"))
    }));
    changes
}

/// The table that says who may send what: before there is any interface.
fn filter(desired: &Desired, actual: &Actual) -> Option<Change> {
    let ruleset = desired.filter.as_ref()?.ruleset();
    let change = match actual.filter {
        Some(true) => return None,
        Some(false) => Change::new(Kind::Change, Object::Table, ruleset.table.clone())
            .by(format!("nft delete table ip {}", ruleset.table)),
        None => Change::new(Kind::Add, Object::Table, ruleset.table.clone()),
    };
    Some(change.by(format!("nft -f - <<'END'\n{ruleset}\nEND")))
}

fn new_device(config: &Config, desired: &Desired, device: &DesiredDevice) -> Change {
    let name = &device.name;
    let only_peer = config.peers.iter().next().filter(|_| config.peers.len() == 1);
    let remote = match &device.ipip {
        Some(ipip) => ipip.remote,
        None => only_peer.map(|peer| peer.underlay),
    };
    let remote = remote.map(|remote| format!(" remote {remote}")).unwrap_or_default();
    let settings = device.ipip.as_ref().map(words_of).unwrap_or_default();
    let (local, ip) = (desired.underlay, ip(desired));
    let mut what = format!("{name} mtu {}", desired.mtu);
    let mut commands = vec![format!("ip link add name {name} type ipip local {local}{remote}{settings}")];
    if let Some(netns) = &desired.netns {
        what.push_str(&format!(" netns {netns}"));
        // The driver's outside stays where it was made.
        commands.push(format!("ip link set {name} netns {netns}"));
    }
    if let Some(vrf) = &desired.vrf {
        what.push_str(&format!(" vrf {}", vrf.name));
        commands.push(format!("{ip} link set {name} vrf {}", vrf.name));
    }
    commands.push(format!("{ip} link set {name} up"));
    Change { commands, ..Change::new(Kind::Add, Object::Device, what) }
}

/// The command, for where the inside is.
fn ip(desired: &Desired) -> String {
    desired.netns.as_ref().map_or_else(|| "ip".to_owned(), |netns| format!("ip -n {netns}"))
}

/// What is not as ip(8) has it by itself.
fn words_of(ipip: &Ipip) -> String {
    let ttl = if ipip.ttl > 0 { format!(" ttl {}", ipip.ttl) } else { String::new() };
    let tos = match ipip.tos {
        0 => String::new(),
        tos if tos & INHERIT_TOS != 0 => " tos inherit".to_owned(),
        tos => format!(" tos {tos:#04x}"),
    };
    let mode = match ipip.protocol {
        0 => "any",
        4 => "ipip",
        _ => "mplsip",
    };
    format!(" mode {mode}{ttl}{tos}{}", if ipip.path_mtu_discovery { "" } else { " nopmtudisc" })
}

/// What differs.
fn of_device(desired: &Desired, device: &DesiredDevice, link: &Link) -> Vec<Change> {
    let mut changes = Vec::new();
    let (device_name, ip) = (&device.name, ip(desired));
    let mut change = |what: String, command: String| {
        changes.push(Change::new(Kind::Change, Object::Device, what).by(command));
    };
    if let (Some(wanted), Some(found)) = (&device.ipip, &link.ipip)
        && wanted != found
    {
        let ends = |ipip: &Ipip| match ipip.remote {
            Some(remote) => format!("local {} remote {remote}{}", ipip.local, words_of(ipip)),
            None => format!("local {} remote any{}", ipip.local, words_of(ipip)),
        };
        change(
            format!("{device_name} {} -> {}", ends(found), ends(wanted)),
            format!("{ip} link change {device_name} type ipip {}", ends(wanted)),
        );
    }
    if link.alias.as_deref() != Some(&device.alias) {
        let alias = link.alias.as_deref().unwrap_or("none");
        change(
            format!("{device_name} alias {alias} -> {}", device.alias),
            format!("{ip} link set {device_name} alias {}", device.alias),
        );
    }
    if link.mtu != u32::from(desired.mtu) {
        change(
            format!("{device_name} mtu {} -> {}", link.mtu, desired.mtu),
            format!("{ip} link set {device_name} mtu {}", desired.mtu),
        );
    }
    if !link.up {
        change(format!("{device_name} down -> up"), format!("{ip} link set {device_name} up"));
    }
    match &desired.vrf {
        Some(vrf) if link.master != Some(vrf.index) => {
            let name = &vrf.name;
            change(format!("{device_name} to vrf {name}"), format!("{ip} link set {device_name} vrf {name}"));
        }
        None if link.master.is_some() && device.ipip.is_none() => {
            change(format!("{device_name} to no master"), format!("{ip} link set {device_name} nomaster"));
        }
        _ => {}
    }
    changes
}

fn routes(desired: &Desired, actual: &Actual) -> Vec<Change> {
    let mut changes = Vec::new();
    let wanted = wanted_routes(desired, &actual.indices());
    let there: HashMap<Ipv4Net, &Route> =
        actual.routes.iter().map(|route| (route.destination, route)).collect();
    let links = actual.devices.iter().flatten().chain(&actual.unwanted);
    let names: HashMap<u32, &str> = links.map(|link| (link.index, link.name.as_str())).collect();
    let places = desired.routes.iter().map(|route| route.device);
    for (wanted, place) in wanted.iter().zip(places) {
        let device = desired.devices.get(place).map_or(desired.device.as_str(), |device| &device.name);
        match there.get(&wanted.destination) {
            Some(found) if wanted.is_already(found) => {}
            Some(_) => changes.push(of_route(Kind::Change, wanted, device, desired)),
            None => changes.push(of_route(Kind::Add, wanted, device, desired)),
        }
    }
    let networks: HashSet<Ipv4Net> = wanted.iter().map(|route| route.destination).collect();
    for found in actual.routes.iter().filter(|found| !networks.contains(&found.destination)) {
        let name = found.device.and_then(|device| names.get(&device).copied());
        changes.push(of_route(Kind::Remove, found, name.unwrap_or(&desired.device), desired));
    }
    changes
}

/// A route that comes, becomes another or goes.
pub(crate) fn of_route(kind: Kind, route: &Route, device: &str, desired: &Desired) -> Change {
    let verb = match kind {
        Kind::Add => "add",
        Kind::Change => "replace",
        Kind::Remove => "delete",
    };
    let mut what = words(route, device);
    if let Some(vrf) = &desired.vrf {
        what.push_str(&format!(" vrf {}", vrf.name));
    }
    let ip = ip(desired);
    let change = Change::new(kind, Object::Route, what.clone()).by(format!("{ip} route {verb} {what}"));
    Change { network: Some(route.destination), ..change }
}

/// A route in iproute2's words.
fn words(route: &Route, device: &str) -> String {
    let mut what = route.destination.to_string();
    if let Some(gateway) = route.gateway {
        what.push_str(&format!(" via {gateway}"));
    }
    what.push_str(&format!(" dev {device}"));
    if route.onlink {
        what.push_str(" onlink");
    }
    if let Some(source) = route.preferred_source {
        what.push_str(&format!(" src {source}"));
    }
    what
}
