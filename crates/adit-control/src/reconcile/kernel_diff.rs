//! Desired and actual state compared: the packet filter, the interfaces and the routes that differ.
//! Pure.

use std::collections::{HashMap, HashSet};

use adit_config::Config;
use adit_dataplane::kernel::table_name;
use adit_linux::netlink::{INHERIT_TOS, IpTunnel, Link, Route, RouteKey, TunnelDriver};
use ipnet::IpNet;

use crate::host::Ipv6;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::{
    DesiredDevice, HIDDEN_MAC, HIDDEN_MTU, HiddenEnd, VISIBLE_MAC, ipv6_settings, is_no_arp,
};
use crate::reconcile::guard_routes;
use crate::reconcile::linux_drivers::LinuxDrivers;
use crate::reconcile::objects::{Actual, desired_routes};

/// Returns what has to change in the kernel. The commands are those for the kernel's own tunnel
/// drivers, as one types them by hand.
pub(crate) fn compare(config: &Config, desired: &Desired, actual: &Actual) -> Vec<Change> {
    let mut changes: Vec<Change> = filter_change(desired, actual).into_iter().collect();
    let drivers = LinuxDrivers::of(config, desired);
    for (position, device) in desired.devices.iter().enumerate() {
        match actual.devices.get(position).and_then(Option::as_ref) {
            None => changes.push(new_device(&drivers, desired, device)),
            Some(link) => changes.extend(device_changes(desired, device, link)),
        }
    }
    if let (Some(hidden), Some(link)) = (&desired.hidden, &actual.hidden) {
        changes.extend(hidden_changes(hidden, link));
    }
    for offload in &actual.unreadable_offloads {
        let (device, prefix) = (&desired.device, in_netns(desired.netns.as_deref()));
        let change = Change::new(Kind::Change, Object::Device, format!("{device} {offload} on -> off"));
        changes.push(change.by(format!("{prefix}ethtool -K {device} {offload} off")));
    }
    changes.extend(ipv6_changes(desired, actual));
    let (missing_guards, unwanted_guards) = guard_changes(desired, actual);
    changes.extend(missing_guards);
    changes.extend(route_changes(config, &drivers, desired, actual));
    changes.extend(unwanted_guards);
    changes.extend(actual.unwanted.iter().map(|link| {
        let name = &link.name;
        Change::new(Kind::Remove, Object::Device, name).by(format!("ip link delete {name}"))
    }));
    changes
}

/// Compares the packet filter, which exists before any interface.
fn filter_change(desired: &Desired, actual: &Actual) -> Option<Change> {
    let filter = desired.filter.as_ref()?;
    let (name, rulesets) = (table_name(&filter.site), filter.rulesets());
    let mut change = match actual.filter {
        Some(true) => return None,
        Some(false) => {
            Change::new(Kind::Change, Object::Table, name.clone()).by(format!("nft delete table ip {name}"))
        }
        None => Change::new(Kind::Add, Object::Table, name.clone()),
    };
    if actual.filter.is_some() && rulesets.len() > 1 {
        // It may be missing, and then it cannot be deleted.
        change = change.by(format!("nft 'add table ip6 {name}; delete table ip6 {name}'"));
    }
    let text: Vec<String> = rulesets.iter().map(ToString::to_string).collect();
    Some(change.by(format!("nft -f - <<'END'\n{}\nEND", text.join("\n"))))
}

/// Returns the change that creates an interface.
fn new_device(drivers: &LinuxDrivers, desired: &Desired, device: &DesiredDevice) -> Change {
    let mut change = Change::new(Kind::Add, Object::Device, String::new());
    match &device.tunnel {
        Some(tunnel) => {
            let remote = tunnel.remote.map(|remote| format!(" remote {remote}")).unwrap_or_default();
            let kind = format!("{} local {}{remote}{}", tunnel.driver.kind(), tunnel.local, options(tunnel));
            change.commands = link_commands(desired, &device.name, &kind, device.ipv6);
        }
        None => {
            let interfaces = drivers.interfaces();
            change.commands =
                interfaces.flat_map(|(name, kind)| link_commands(desired, name, kind, false)).collect();
        }
    }
    let mut what = format!("{} mtu {}", device.name, desired.mtu);
    if let Some(netns) = &desired.netns {
        what.push_str(&format!(" netns {netns}"));
    }
    if let Some(vrf) = &desired.vrf {
        what.push_str(&format!(" vrf {}", vrf.name));
    }
    Change { what, ..change }
}

/// Returns the commands that make an interface of a driver of Linux. `asks_no_routers`: it has
/// IPv6, and the kernel would make a link-local address and ask the peer for routers.
fn link_commands(desired: &Desired, name: &str, kind: &str, asks_no_routers: bool) -> Vec<String> {
    let ip = ip(desired);
    let mut commands = vec![format!("ip link add name {name} type {kind}")];
    if let Some(netns) = &desired.netns {
        // The driver keeps sending from the namespace in which the interface was created.
        commands.push(format!("ip link set {name} netns {netns}"));
    }
    if let Some(vrf) = &desired.vrf {
        commands.push(format!("{ip} link set {name} vrf {}", vrf.name));
    }
    if asks_no_routers {
        commands.push(format!("{ip} link set {name} addrgenmode none"));
    }
    commands.push(format!("{ip} link set {name} up"));
    commands
}

/// Returns what a command begins with that is for a network namespace.
pub(crate) fn in_netns(netns: Option<&str>) -> String {
    netns.map_or_else(String::new, |netns| format!("ip netns exec {netns} "))
}

/// Returns the `ip` command for the namespace of the inner side.
fn ip(desired: &Desired) -> String {
    desired.netns.as_ref().map_or_else(|| "ip".to_owned(), |netns| format!("ip -n {netns}"))
}

/// Returns the options of an interface of Linux's tunnel drivers, in ip(8)'s words.
fn options(tunnel: &IpTunnel) -> String {
    let (ttl, tos) = match tunnel.driver {
        TunnelDriver::Ipip | TunnelDriver::Sit => ("ttl", "tos"),
        TunnelDriver::Ip6tnl => ("hoplimit", "tclass"),
    };
    let ttl = match tunnel.ttl {
        // ip(8) itself would fix it.
        0 if tunnel.driver == TunnelDriver::Ip6tnl => format!(" {ttl} 0"),
        0 => String::new(),
        fixed => format!(" {ttl} {fixed}"),
    };
    let tos = match tunnel.tos {
        0 => String::new(),
        value if value & INHERIT_TOS != 0 => format!(" {tos} inherit"),
        value => format!(" {tos} {value:#04x}"),
    };
    let mode = match (tunnel.protocol, tunnel.driver) {
        (0, _) => "any",
        (4, TunnelDriver::Ip6tnl) => "ipip6",
        (4, _) => "ipip",
        (41, TunnelDriver::Ip6tnl) => "ip6ip6",
        (41, _) => "ip6ip",
        _ => "mplsip",
    };
    let limit = match (tunnel.driver, tunnel.encap_limit) {
        (TunnelDriver::Ip6tnl, None) => " encaplimit none".to_owned(),
        (_, Some(limit)) => format!(" encaplimit {limit}"),
        _ => String::new(),
    };
    let fragments = if tunnel.path_mtu_discovery { "" } else { " nopmtudisc" };
    format!(" mode {mode}{ttl}{tos}{fragments}{limit}")
}

/// Compares an interface.
fn device_changes(desired: &Desired, device: &DesiredDevice, link: &Link) -> Vec<Change> {
    let mut changes = Vec::new();
    let (device_name, ip) = (&device.name, ip(desired));
    let mut change = |what: String, command: String| {
        changes.push(Change::new(Kind::Change, Object::Device, what).by(command));
    };
    if let (Some(wanted), Some(found)) = (&device.tunnel, &link.tunnel)
        && wanted != found
    {
        let ends = |tunnel: &IpTunnel| match tunnel.remote {
            Some(remote) => format!("local {} remote {remote}{}", tunnel.local, options(tunnel)),
            None => format!("local {} remote any{}", tunnel.local, options(tunnel)),
        };
        change(
            format!("{device_name} {} -> {}", ends(found), ends(wanted)),
            format!("{ip} link change {device_name} type {} {}", wanted.driver.kind(), ends(wanted)),
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
    if device.tunnel.is_none() {
        changes.extend(ethernet_changes(&ip, device_name, link, VISIBLE_MAC));
    }
    let mut change = |what: String, command: String| {
        changes.push(Change::new(Kind::Change, Object::Device, what).by(command));
    };
    match &desired.vrf {
        Some(vrf) if link.master != Some(vrf.index) => {
            let name = &vrf.name;
            change(format!("{device_name} to vrf {name}"), format!("{ip} link set {device_name} vrf {name}"));
        }
        None if link.master.is_some() && device.tunnel.is_none() => {
            change(format!("{device_name} to no master"), format!("{ip} link set {device_name} nomaster"));
        }
        _ => {}
    }
    changes
}

/// Compares the hidden end of the tunnel interface, in the namespace of the underlay.
fn hidden_changes(hidden: &HiddenEnd, link: &Link) -> Vec<Change> {
    let mut changes = Vec::new();
    let name = &link.name;
    let mut change = |what: String, command: String| {
        changes.push(Change::new(Kind::Change, Object::Device, what).by(command));
    };
    if link.alias.as_deref() != Some(&hidden.alias) {
        let alias = link.alias.as_deref().unwrap_or("none");
        change(
            format!("{name} alias {alias} -> {}", hidden.alias),
            format!("ip link set {name} alias {}", hidden.alias),
        );
    }
    if link.mtu != HIDDEN_MTU {
        change(
            format!("{name} mtu {} -> {HIDDEN_MTU}", link.mtu),
            format!("ip link set {name} mtu {HIDDEN_MTU}"),
        );
    }
    if !link.up {
        change(format!("{name} down -> up"), format!("ip link set {name} up"));
    }
    if link.master.is_some() {
        // A bridge would forward what it gets from there.
        change(format!("{name} to no master"), format!("ip link set {name} nomaster"));
    }
    changes.extend(ethernet_changes("ip", name, link, HIDDEN_MAC));
    changes
}

/// Compares whether IPv6 is on and off on the interfaces and on the hidden end as it should be.
fn ipv6_changes(desired: &Desired, actual: &Actual) -> Vec<Change> {
    let prefix = in_netns(desired.netns.as_deref());
    let found =
        desired.devices.iter().zip(&actual.devices).filter_map(|(of, link)| Some((of, link.as_ref()?)));
    let devices =
        found.zip(&actual.ipv6).map(|((device, link), found)| (prefix.as_str(), link, *found, device.ipv6));
    let ends = devices.chain(actual.hidden.iter().map(|link| ("", link, actual.hidden_ipv6, false)));
    let differing = ends.filter(|(_, _, found, wanted)| found.differs_from(*wanted));
    let change = |(prefix, link, found, wanted): (&str, &Link, Ipv6, bool)| {
        let name = &link.name;
        let what = match (found, wanted) {
            (_, false) => "on -> off",
            (Ipv6::Off, true) => "off -> on",
            (_, true) => "auto -> static",
        };
        let settings =
            ipv6_settings(name, wanted).into_iter().map(|(knob, value)| format!(" {knob}={value}"));
        Change::new(Kind::Change, Object::Device, format!("{name} ipv6 {what}"))
            .by(format!("{prefix}sysctl -w{}", settings.collect::<String>()))
    };
    differing.map(change).collect()
}

/// Compares what an end of a veth pair has as an Ethernet interface.
fn ethernet_changes(ip: &str, name: &str, link: &Link, mac: [u8; 6]) -> Vec<Change> {
    let mut changes = Vec::new();
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    if link.mac != Some(mac) {
        let before = link.mac.map_or_else(|| "none".to_owned(), text);
        let what = format!("{name} address {before} -> {}", text(mac));
        let command = format!("{ip} link set {name} address {}", text(mac));
        changes.push(Change::new(Kind::Change, Object::Device, what).by(command));
    }
    if !is_no_arp(link) {
        let what = format!("{name} arp on -> off");
        changes.push(
            Change::new(Kind::Change, Object::Device, what).by(format!("{ip} link set {name} arp off")),
        );
    }
    changes
}

/// Compares the routes.
fn route_changes(config: &Config, drivers: &LinuxDrivers, desired: &Desired, actual: &Actual) -> Vec<Change> {
    let mut changes = Vec::new();
    let wanted = desired_routes(desired, &actual.indices());
    let there: HashMap<RouteKey, &Route> = actual.routes.iter().map(|route| (route.key(), route)).collect();
    let links = actual.devices.iter().flatten().chain(&actual.unwanted);
    let names: HashMap<u32, &str> = links.map(|link| (link.index, link.name.as_str())).collect();
    for (wanted, route) in wanted.iter().zip(&desired.routes) {
        let found = there.get(&wanted.key());
        if found.is_some_and(|found| wanted.is_already(found)) {
            continue;
        }
        let device = desired.devices.get(route.device).map_or(desired.device.as_str(), |device| &device.name);
        let kind = if found.is_some() { Kind::Change } else { Kind::Add };
        let mut change = route_change(kind, wanted, device, desired);
        let has_driver = desired.devices.get(route.device).is_some_and(|device| device.tunnel.is_some());
        // With a driver, what Adit makes is what one types by hand.
        if let Some(gateway) = wanted.gateway.filter(|_| !has_driver) {
            for command in &mut change.commands {
                *command = drivers.route_command(command, gateway, &route.peer, config, desired);
            }
        }
        changes.push(change);
    }
    let keys: HashSet<RouteKey> = wanted.iter().map(Route::key).collect();
    for found in actual.routes.iter().filter(|found| !keys.contains(&found.key())) {
        let name = found.device.and_then(|device| names.get(&device).copied());
        changes.push(route_change(Kind::Remove, found, name.unwrap_or(&desired.device), desired));
    }
    changes
}

/// Compares the guards. Returns the additions, which come before the changes of the tunnel's
/// routes, and the removals, which come after them.
fn guard_changes(desired: &Desired, actual: &Actual) -> (Vec<Change>, Vec<Change>) {
    let there: HashSet<IpNet> = actual.guards.iter().map(|route| route.destination).collect();
    let networks: HashSet<IpNet> = desired.routes.iter().map(|route| route.network).collect();
    let missing = guard_routes::desired_guards(desired)
        .filter(|route| !there.contains(&route.destination))
        .map(|route| guard_change(Kind::Add, &route, desired));
    let unwanted = actual.guards.iter().filter(|route| !networks.contains(&route.destination));
    let unwanted = unwanted.map(|route| guard_change(Kind::Remove, route, desired));
    (missing.collect(), unwanted.collect())
}

/// Returns the change of one guard.
pub(crate) fn guard_change(kind: Kind, route: &Route, desired: &Desired) -> Change {
    let metric = route.metric.unwrap_or_default();
    let words = format!("unreachable {} metric {metric}", route.destination);
    Change { is_guard: true, ..change_in_words(kind, route, words, desired) }
}

/// Returns the change of one route.
pub(crate) fn route_change(kind: Kind, route: &Route, device: &str, desired: &Desired) -> Change {
    change_in_words(kind, route, words(route, device), desired)
}

fn change_in_words(kind: Kind, route: &Route, mut what: String, desired: &Desired) -> Change {
    let verb = match kind {
        Kind::Add => "add",
        Kind::Change => "replace",
        Kind::Remove => "delete",
    };
    if let Some(vrf) = &desired.vrf {
        what.push_str(&format!(" vrf {}", vrf.name));
    }
    let ip = ip(desired);
    let change = Change::new(kind, Object::Route, what.clone()).by(format!("{ip} route {verb} {what}"));
    Change { network: Some(route.destination), ..change }
}

/// Returns a route in iproute2's words.
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
    if let Some(metric) = route.metric {
        what.push_str(&format!(" metric {metric}"));
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::Machine;
    use std::net::IpAddr;

    use adit_linux::netlink::LinkLayer;

    fn config(text: &str) -> Config {
        Config::parse("a.toml", text).expect("it is valid")
    }

    const US: [u8; 4] = [10, 1, 1, 1];
    const A: &str = include_str!("../../../../examples/a.toml");

    fn machine(local: &str) -> Machine {
        let local = vec![local.parse().expect("an address")];
        Machine { underlay: US.into(), local, underlay_mtu: 1500, vrf: None }
    }

    fn desired(config: &Config) -> Desired {
        Desired::of(config, &machine("172.16.17.1"))
    }

    fn link(mtu: u32, up: bool, alias: Option<&str>) -> Link {
        Link {
            index: 7,
            name: "ipipA".to_owned(),
            mtu,
            up,
            running: up,
            mac: Some(VISIBLE_MAC),
            alias: alias.map(str::to_owned),
            kind: Some("veth".to_owned()),
            master: None,
            lower: None,
            is_lower_elsewhere: false,
            vrf_table: None,
            tunnel: None,
            hardware: LinkLayer::Ethernet,
            // IFF_NOARP.
            flags: 0x80,
        }
    }

    fn lines(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_two_site_network_takes_four_ip_commands() {
        let config = config(A);
        let changes = compare(&config, &desired(&config), &Actual::default());
        let commands: Vec<String> = changes.iter().flat_map(|change| change.commands.clone()).collect();
        let expected = [
            "ip link add name ipipA type ipip local 10.1.1.1 remote 10.1.1.2",
            "ip link set ipipA up",
            "ip route add unreachable 192.168.199.0/24 metric 4278987208",
            "ip route add 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
        ];
        assert_eq!(commands, expected);
        let expected = [
            "+ device ipipA mtu 1480",
            "+ route unreachable 192.168.199.0/24 metric 4278987208",
            "+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
        ];
        assert_eq!(lines(&changes), expected);
    }

    #[test]
    fn commands_over_ipv6_are_those_of_the_driver_ip6tnl() {
        const A6: &str = "[site]\nname = \"a\"\nunderlay = \"2001:db8::1\"\ndevice = \"adit0\"\n\
                          networks = [\"172.16.17.0/24\", \"fd00:a::/32\"]\n\
                          [[peer]]\nname = \"b\"\nunderlay = \"2001:db8::2\"\n\
                          networks = [\"192.168.199.0/24\", \"fd00:b::/32\"]\n";
        let commands = |text: &str| -> Vec<String> {
            let config = config(text);
            let ours: IpAddr = "2001:db8::1".parse().expect("an address");
            let machine = Machine { underlay: ours.into(), ..machine("172.16.17.1") };
            let changes = compare(&config, &Desired::of(&config, &machine), &Actual::default());
            changes.into_iter().filter(|change| !change.is_guard).flat_map(|change| change.commands).collect()
        };
        let expected = [
            "ip link add name adit0 type ip6tnl mode any local 2001:db8::1 remote 2001:db8::2 encaplimit none",
            "ip link set adit0 up",
            "ip route add 192.168.199.0/24 dev adit0 src 172.16.17.1",
            "ip route add fd00:b::/32 dev adit0",
        ];
        assert_eq!(commands(A6), expected);
        let third = "[[peer]]\nname = \"c\"\nunderlay = \"2001:db8::3\"\nnetworks = [\"192.168.200.0/24\"]\n";
        let expected = [
            "ip link add name adit0 type ip6tnl external",
            "ip link set adit0 up",
            "ip route add 192.168.199.0/24 encap ip6 dst 2001:db8::2 src 2001:db8::1 hoplimit 64 dev adit0 src 172.16.17.1",
            "ip route add fd00:b::/32 encap ip6 dst 2001:db8::2 src 2001:db8::1 hoplimit 64 dev adit0",
            "ip route add 192.168.200.0/24 encap ip6 dst 2001:db8::3 src 2001:db8::1 hoplimit 64 dev adit0 src 172.16.17.1",
        ];
        assert_eq!(commands(&format!("{A6}{third}")), expected);
    }

    const KERNEL: &str = "[site]\nname = \"a\"\nunderlay = \"US\"\ndevice = \"adit0\"\ndataplane = \"kernel\"\n\
                          networks = [\"172.16.17.0/24\", \"fd00:a::/32\"]\n\
                          [[peer]]\nname = \"b\"\nunderlay = \"THEM\"\n\
                          networks = [\"192.168.199.0/24\", \"fd00:b::/32\"]\n";

    fn over([us, them]: [&str; 2]) -> (Config, Desired) {
        let config = config(&KERNEL.replace("US", us).replace("THEM", them));
        let machine =
            Machine { underlay: us.parse::<IpAddr>().expect("an address").into(), ..machine("172.16.17.1") };
        let desired = Desired::of(&config, &machine);
        (config, desired)
    }

    #[test]
    fn commands_of_the_kernel_plane_name_the_driver_of_the_underlay() {
        for (ends, tunnel, gateway) in [
            (
                ["10.1.1.1", "10.1.1.2"],
                "sit local 10.1.1.1 remote 10.1.1.2 mode any ttl 64 tos inherit",
                "a01:102",
            ),
            (
                ["2001:db8::1", "2001:db8::2"],
                "ip6tnl local 2001:db8::1 remote 2001:db8::2 mode any hoplimit 64 tclass inherit encaplimit none",
                "2",
            ),
        ] {
            let (config, desired) = over(ends);
            let changes = compare(&config, &desired, &Actual::default());
            let commands: Vec<String> = changes
                .iter()
                .filter(|change| !change.is_guard)
                .flat_map(|change| change.commands.clone())
                .collect();
            let (tables, rest) = commands.split_first().expect("some");
            assert!(tables.starts_with("nft -f - <<'END'\ntable ip adit_a {"), "{tables}");
            assert!(tables.contains("\n}\ntable ip6 adit_a {"), "{tables}");
            let expected = [
                format!("ip link add name adit0 type {tunnel}"),
                "ip link set adit0 addrgenmode none".to_owned(),
                "ip link set adit0 up".to_owned(),
                "ip route add 192.168.199.0/24 dev adit0 src 172.16.17.1".to_owned(),
                format!("ip route add fd00:b::/32 via fe80::{gateway} dev adit0 onlink"),
            ];
            assert_eq!(rest, expected);
        }
    }

    #[test]
    fn each_difference_of_a_tunnel_of_both_families_is_a_change() {
        let (config, desired) = over(["2001:db8::1", "2001:db8::2"]);
        let tunnel = desired.devices[0].tunnel.expect("it has a driver");
        let good =
            Link { name: "adit0".to_owned(), tunnel: Some(tunnel), ..link(1460, true, Some("adit:a:b")) };
        let lines = |link: &Link, ipv6, filter| {
            let actual = Actual {
                devices: vec![Some(link.clone())],
                ipv6: vec![ipv6],
                filter,
                routes: desired_routes(&desired, &[link.index]).iter().map(listed).collect(),
                guards: guard_routes::desired_guards(&desired).collect(),
                ..Actual::default()
            };
            let changes = compare(&config, &desired, &actual);
            changes.iter().map(|change| (change.to_string(), change.commands.join("; "))).collect::<Vec<_>>()
        };
        assert_eq!(lines(&good, Ipv6::Static, Some(true)), []);
        let limit = Link { tunnel: Some(IpTunnel { encap_limit: Some(4), ..tunnel }), ..good.clone() };
        let (what, command) = &lines(&limit, Ipv6::Static, Some(true))[0];
        assert!(what.contains("encaplimit 4 -> ") && what.ends_with("encaplimit none"), "{what}");
        assert!(command.starts_with("ip link change adit0 type ip6tnl local 2001:db8::1"), "{command}");
        let (what, command) = &lines(&good, Ipv6::Auto, Some(true))[0];
        assert_eq!(what, "~ device adit0 ipv6 auto -> static");
        assert!(command.contains("net/ipv6/conf/adit0/addr_gen_mode=1"), "{command}");
        let (what, command) = &lines(&good, Ipv6::Static, Some(false))[0];
        assert_eq!(what, "~ table adit_a");
        let expected =
            "nft delete table ip adit_a; nft 'add table ip6 adit_a; delete table ip6 adit_a'; nft -f -";
        assert!(command.starts_with(expected), "{command}");
    }

    /// A route as the kernel lists it.
    fn listed(route: &Route) -> Route {
        let scope = match (route.destination, route.gateway) {
            (IpNet::V4(_), None) => adit_linux::netlink::RouteScope::Link,
            _ => adit_linux::netlink::RouteScope::Universe,
        };
        Route {
            scope: Some(scope),
            metric: Some(route.key().metric).filter(|metric| *metric > 0),
            ..route.clone()
        }
    }

    /// Adit's own routes then name a placeholder. Linux's ipip driver would send everything there.
    #[test]
    fn commands_for_many_peers_name_each_as_its_gateway() {
        let mut text = "[site]\nname = \"a\"\nunderlay = \"10.1.1.1\"\ndevice = \"ipipA\"\n\
                        networks = [\"172.16.17.0/24\"]\n"
            .to_owned();
        for n in 0..300 {
            let (high, low) = (n / 256, n % 256);
            text += &format!(
                "[[peer]]\nname = \"p{n}\"\nunderlay = \"10.2.{high}.{low}\"\nnetworks = [\"10.{}.{low}.0/24\"]\n",
                3 + high
            );
        }
        let config = config(&text);
        let changes = compare(&config, &desired(&config), &Actual::default());
        let last = changes.last().expect("a route");
        let shown = "+ route 10.4.43.0/24 via 192.0.0.8 dev ipipA onlink src 172.16.17.1";
        assert_eq!(last.to_string(), shown, "what Adit makes");
        let by_hand = "ip route add 10.4.43.0/24 via 10.2.1.43 dev ipipA onlink src 172.16.17.1";
        assert_eq!(last.commands, [by_hand]);
        let commands: Vec<&String> = changes.iter().flat_map(|change| &change.commands).collect();
        assert_eq!(commands[0], "ip link add name ipipA type ipip local 10.1.1.1");
        assert!(commands.iter().all(|command| !command.contains("192.0.0.8")), "{commands:?}");
    }

    #[test]
    fn each_difference_of_the_hidden_end_is_a_change_under_the_name_that_it_has() {
        let config = config(A);
        let desired = desired(&config);
        let good = Link {
            index: 8,
            name: "other".to_owned(),
            mac: Some(HIDDEN_MAC),
            ..link(HIDDEN_MTU, true, Some("adit:a::hidden"))
        };
        let changes = |hidden: Link| {
            let actual = Actual {
                devices: vec![Some(link(1480, true, Some("adit:a")))],
                hidden: Some(hidden),
                ..Actual::default()
            };
            let changes = compare(&config, &desired, &actual);
            let of_devices = changes.into_iter().filter(|change| change.object == Object::Device);
            of_devices.map(|change| (change.to_string(), change.commands)).collect::<Vec<_>>()
        };
        assert_eq!(changes(good.clone()), []);
        for (hidden, what, command) in [
            (Link { mtu: 1500, ..good.clone() }, "mtu 1500 -> 65535", "mtu 65535"),
            (Link { up: false, ..good.clone() }, "down -> up", "up"),
            (Link { alias: None, ..good.clone() }, "alias none -> adit:a::hidden", "alias adit:a::hidden"),
            (
                Link { mac: None, ..good.clone() },
                "address none -> 02:ad:17:00:00:02",
                "address 02:ad:17:00:00:02",
            ),
            (Link { flags: 0, ..good.clone() }, "arp on -> off", "arp off"),
            (Link { master: Some(3), ..good }, "to no master", "nomaster"),
        ] {
            let expected = (format!("~ device other {what}"), vec![format!("ip link set other {command}")]);
            assert_eq!(changes(hidden), [expected]);
        }
    }

    #[test]
    fn an_equal_state_is_no_change_and_each_difference_is_one() {
        let config = config(A);
        let desired = desired(&config);
        let routes = desired_routes(&desired, &[7]);
        let listed = Route { scope: Some(adit_linux::netlink::RouteScope::Universe), ..routes[0].clone() };
        let there = |device| Actual {
            devices: vec![Some(device)],
            routes: vec![listed.clone()],
            guards: guard_routes::desired_guards(&desired).collect(),
            ..Actual::default()
        };
        let good = there(link(1480, true, Some("adit:a")));
        assert_eq!(lines(&compare(&config, &desired, &good)), [] as [&str; 0]);
        for (actual, expected) in [
            (there(link(1400, true, Some("adit:a"))), "~ device ipipA mtu 1400 -> 1480"),
            (there(link(1480, false, Some("adit:a"))), "~ device ipipA down -> up"),
            (there(link(1480, true, None)), "~ device ipipA alias none -> adit:a"),
            (
                there(Link { mac: Some(HIDDEN_MAC), ..link(1480, true, Some("adit:a")) }),
                "~ device ipipA address 02:ad:17:00:00:02 -> 02:ad:17:00:00:01",
            ),
            (there(Link { flags: 0, ..link(1480, true, Some("adit:a")) }), "~ device ipipA arp on -> off"),
            (
                there(Link { master: Some(3), ..link(1480, true, Some("adit:a")) }),
                "~ device ipipA to no master",
            ),
            (
                Actual { unreadable_offloads: vec!["tx-udp-segmentation".to_owned()], ..good.clone() },
                "~ device ipipA tx-udp-segmentation on -> off",
            ),
            (
                Actual { ipv6: vec![Ipv6::Static], hidden_ipv6: Ipv6::AlwaysAuto, ..good.clone() },
                "~ device ipipA ipv6 on -> off",
            ),
            (
                Actual { routes: Vec::new(), ..good.clone() },
                "+ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
            ),
            (
                Actual { guards: Vec::new(), ..good.clone() },
                "+ route unreachable 192.168.199.0/24 metric 4278987208",
            ),
            (
                Actual { routes: vec![Route { preferred_source: None, ..listed.clone() }], ..good.clone() },
                "~ route 192.168.199.0/24 via 10.1.1.2 dev ipipA onlink src 172.16.17.1",
            ),
        ] {
            assert_eq!(lines(&compare(&config, &desired, &actual)), [expected]);
        }
        let stray = Route { destination: "10.9.0.0/16".parse().expect("a network"), ..listed.clone() };
        let mut guards = good.guards.clone();
        guards.push(Route { destination: stray.destination, ..guards[0].clone() });
        assert_eq!(
            lines(&compare(&config, &desired, &Actual { guards, ..good.clone() })),
            ["- route unreachable 10.9.0.0/16 metric 4278987208"]
        );
        let more = Actual { routes: vec![listed.clone(), stray], ..good };
        assert_eq!(
            lines(&compare(&config, &desired, &more)),
            ["- route 10.9.0.0/16 via 10.1.1.2 dev ipipA onlink src 172.16.17.1"]
        );
    }
}
