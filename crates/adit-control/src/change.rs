//! What would change, and by which `ip` commands: two configurations compared, and an overlay's wish with the kernel's
//! truth. Pure.

use std::collections::{HashMap, HashSet};
use std::fmt;

use adit_config::{Config, Peer};
use adit_linux::netlink::{INHERIT_TOS, Ipip, Link, Route};
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::desired::{Desired, DesiredDevice};
use crate::kernel::{Actual, wanted_routes};

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Whether something comes, becomes another, or goes.
    pub kind: Kind,
    /// Of what it is one.
    pub object: Object,
    /// Which, and how, for people.
    pub what: String,
    /// The `ip` commands that it is equal to; none where iproute2 knows nothing of the kind.
    pub commands: Vec<String>,
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is made.
    Add,
    /// It stays, and is something else.
    Change,
    /// It goes.
    Remove,
}

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Object {
    /// This side, and how the tunnel treats what it carries.
    Site,
    /// Another side.
    Peer,
    /// The tunnel's interface.
    Device,
    /// A route into it.
    Route,
    /// The table of nf_tables that says who may send what, of the kernel data plane.
    Table,
    /// The programs in the kernel, or the threads behind them.
    DataPlane,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Site, Self::Peer, Self::Device, Self::Route, Self::Table, Self::DataPlane];

    /// Its name, as in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Peer => "peer",
            Self::Device => "device",
            Self::Route => "route",
            Self::Table => "table",
            Self::DataPlane => "data-plane",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.kind {
            Kind::Add => '+',
            Kind::Change => '~',
            Kind::Remove => '-',
        };
        write!(f, "{sign} {} {}", self.object.as_str(), self.what)
    }
}

impl Change {
    pub(crate) fn new(kind: Kind, object: Object, what: impl Into<String>) -> Self {
        Self { kind, object, what: what.into(), commands: Vec::new() }
    }

    /// Whether it is a route to this network.
    pub(crate) fn is_about(&self, network: Ipv4Net) -> bool {
        self.object == Object::Route && self.what.split(' ').next() == Some(&network.to_string())
    }

    fn by(mut self, command: String) -> Self {
        self.commands.push(command);
        self
    }
}

/// What a configuration changes about the one that runs; `None`: nothing runs.
pub(crate) fn of_configs(old: Option<&Config>, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    let Some(old) = old else {
        let site = &new.site;
        let what = format!("{} underlay {} networks {}", site.name, site.underlay, list(&site.networks));
        changes.push(Change::new(Kind::Add, Object::Site, what));
        changes.extend(new.peers.iter().map(|peer| Change::new(Kind::Add, Object::Peer, described(peer))));
        return changes;
    };
    changes.extend(settings(old, new));
    let before: HashMap<_, _> = old.peers.iter().map(|peer| (peer.name.to_string(), peer)).collect();
    let after: HashMap<_, _> = new.peers.iter().map(|peer| (peer.name.to_string(), peer)).collect();
    for peer in &new.peers {
        match before.get(peer.name.as_str()) {
            None => changes.push(Change::new(Kind::Add, Object::Peer, described(peer))),
            Some(old) if *old == peer => {}
            Some(old) => changes.push(Change::new(Kind::Change, Object::Peer, differences(old, peer))),
        }
    }
    for peer in old.peers.iter().filter(|peer| !after.contains_key(peer.name.as_str())) {
        changes.push(Change::new(Kind::Remove, Object::Peer, described(peer)));
    }
    changes
}

/// Every key of `[site]` and `[tunnel]` that has another value.
fn settings(old: &Config, new: &Config) -> Vec<Change> {
    let keys = |config: &Config| -> Vec<(String, String)> {
        let without_peers = Config { peers: Vec::new(), ..config.clone() };
        let text = without_peers.to_toml();
        let lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    };
    let before: HashMap<String, String> = keys(old).into_iter().collect();
    let mut changes = Vec::new();
    for (key, value) in keys(new) {
        let old = before.get(&key).map_or("nothing", String::as_str);
        if old != value {
            changes.push(Change::new(Kind::Change, Object::Site, format!("{key} {old} -> {value}")));
        }
    }
    changes
}

fn described(peer: &Peer) -> String {
    format!("{} underlay {} networks {}", peer.name, peer.underlay, list(&peer.networks))
}

fn differences(old: &Peer, new: &Peer) -> String {
    let mut what = new.name.to_string();
    if old.underlay != new.underlay {
        what.push_str(&format!(" underlay {} -> {}", old.underlay, new.underlay));
    }
    let added: Vec<Ipv4Net> =
        new.networks.iter().filter(|network| !old.networks.contains(network)).copied().collect();
    let removed: Vec<Ipv4Net> =
        old.networks.iter().filter(|network| !new.networks.contains(network)).copied().collect();
    for (sign, networks) in [('+', added), ('-', removed)] {
        if !networks.is_empty() {
            what.push_str(&format!(" networks {sign}{}", list(&networks)));
        }
    }
    what
}

fn list(networks: &[Ipv4Net]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

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
    let remote = match (&device.ipip, &config.peers[..]) {
        (Some(ipip), _) => ipip.remote,
        (None, [peer]) => Some(peer.underlay),
        (None, _) => None,
    };
    let remote = remote.map(|remote| format!(" remote {remote}")).unwrap_or_default();
    let settings = device.ipip.as_ref().map(words_of).unwrap_or_default();
    let local = config.site.underlay;
    Change::new(Kind::Add, Object::Device, format!("{name} mtu {}", desired.mtu))
        .by(format!("ip link add name {name} type ipip local {local}{remote}{settings}"))
        .by(format!("ip link set {name} up"))
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
    let device_name = &device.name;
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
            format!("ip link change {device_name} type ipip {}", ends(wanted)),
        );
    }
    if link.alias.as_deref() != Some(&device.alias) {
        let alias = link.alias.as_deref().unwrap_or("none");
        change(
            format!("{device_name} alias {alias} -> {}", device.alias),
            format!("ip link set {device_name} alias {}", device.alias),
        );
    }
    if link.mtu != u32::from(desired.mtu) {
        change(
            format!("{device_name} mtu {} -> {}", link.mtu, desired.mtu),
            format!("ip link set {device_name} mtu {}", desired.mtu),
        );
    }
    if !link.up {
        change(format!("{device_name} down -> up"), format!("ip link set {device_name} up"));
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
    let route = |kind, route: &Route, device: &str, verb: &str| {
        let what = words(route, device);
        Change::new(kind, Object::Route, what.clone()).by(format!("ip route {verb} {what}"))
    };
    let places = desired.routes.iter().map(|route| route.device);
    for (wanted, place) in wanted.iter().zip(places) {
        let device = desired.devices.get(place).map_or(desired.device.as_str(), |device| &device.name);
        match there.get(&wanted.destination) {
            Some(found) if wanted.is_already(found) => {}
            Some(_) => changes.push(route(Kind::Change, wanted, device, "replace")),
            None => changes.push(route(Kind::Add, wanted, device, "add")),
        }
    }
    let networks: HashSet<Ipv4Net> = wanted.iter().map(|route| route.destination).collect();
    for found in actual.routes.iter().filter(|found| !networks.contains(&found.destination)) {
        let name = found.device.and_then(|device| names.get(&device).copied());
        changes.push(route(Kind::Remove, found, name.unwrap_or(&desired.device), "delete"));
    }
    changes
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

#[cfg(test)]
mod tests {
    use super::*;
    use adit_linux::netlink::LinkLayer;

    fn config(text: &str) -> Config {
        Config::parse("a.toml", text).expect("it is valid")
    }

    const A: &str = include_str!("../../../examples/a.toml");

    fn desired(config: &Config) -> Desired {
        Desired::of(config, &["172.16.17.1".parse().expect("an address")], 1500)
    }

    fn link(mtu: u32, up: bool, alias: Option<&str>) -> Link {
        Link {
            index: 7,
            name: "ipipA".to_owned(),
            mtu,
            up,
            running: up,
            mac: None,
            alias: alias.map(str::to_owned),
            kind: Some("tun".to_owned()),
            ipip: None,
            hardware: LinkLayer::None,
            flags: 0,
        }
    }

    fn lines(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_articles_network_is_the_articles_commands() {
        let config = config(A);
        let changes = of_kernel(&config, &desired(&config), &Actual::default());
        let commands: Vec<String> = changes.iter().flat_map(|change| change.commands.clone()).collect();
        let expected = [
            "ip link add name ipipA type ipip local 10.1.1.1 remote 10.1.1.2",
            "ip link set ipipA up",
            "ip route add 192.168.199.0/24 dev ipipA src 172.16.17.1",
        ];
        assert_eq!(commands, expected);
        let expected = ["+ device ipipA mtu 1480", "+ route 192.168.199.0/24 dev ipipA src 172.16.17.1"];
        assert_eq!(lines(&changes), expected);
    }

    #[test]
    fn what_is_as_it_should_be_is_no_change_and_each_difference_is_one() {
        let config = config(A);
        let desired = desired(&config);
        let routes = wanted_routes(&desired, &[7]);
        let listed = Route { scope: Some(adit_linux::netlink::RouteScope::Link), ..routes[0].clone() };
        let there = |device| Actual {
            devices: vec![Some(device)],
            routes: vec![listed.clone()],
            ..Actual::default()
        };
        let good = there(link(1480, true, Some("adit:a")));
        assert_eq!(lines(&of_kernel(&config, &desired, &good)), [] as [&str; 0]);
        for (actual, expected) in [
            (there(link(1400, true, Some("adit:a"))), "~ device ipipA mtu 1400 -> 1480"),
            (there(link(1480, false, Some("adit:a"))), "~ device ipipA down -> up"),
            (there(link(1480, true, None)), "~ device ipipA alias none -> adit:a"),
            (
                Actual { routes: Vec::new(), ..good.clone() },
                "+ route 192.168.199.0/24 dev ipipA src 172.16.17.1",
            ),
            (
                Actual { routes: vec![Route { preferred_source: None, ..listed.clone() }], ..good.clone() },
                "~ route 192.168.199.0/24 dev ipipA src 172.16.17.1",
            ),
        ] {
            assert_eq!(lines(&of_kernel(&config, &desired, &actual)), [expected]);
        }
        let stray = Route { destination: "10.9.0.0/16".parse().expect("a network"), ..listed.clone() };
        let more = Actual { routes: vec![listed.clone(), stray], ..good };
        assert_eq!(
            lines(&of_kernel(&config, &desired, &more)),
            ["- route 10.9.0.0/16 dev ipipA src 172.16.17.1"]
        );
    }

    #[test]
    fn configurations_are_compared_key_by_key_and_peer_by_peer() {
        let old = config(A);
        assert_eq!(of_configs(Some(&old), &old), []);
        let more = "[[peer]]\nname = \"c\"\nunderlay = \"10.1.1.3\"\nnetworks = [\"10.3.0.0/16\"]\n";
        let new = config(&format!("{}{more}", A.replace("[tunnel]", "[tunnel]\nttl = 32")));
        assert_eq!(
            lines(&of_configs(Some(&old), &new)),
            ["~ site ttl 64 -> 32", "+ peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        assert_eq!(
            lines(&of_configs(Some(&new), &old)),
            ["~ site ttl 32 -> 64", "- peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        let moved =
            config(&A.replace("192.168.199.0/24", "192.168.198.0/24").replace("10.1.1.2", "10.1.1.9"));
        assert_eq!(
            lines(&of_configs(Some(&old), &moved)),
            ["~ peer b underlay 10.1.1.2 -> 10.1.1.9 networks +192.168.198.0/24 networks -192.168.199.0/24"]
        );
        assert_eq!(
            lines(&of_configs(None, &old)),
            [
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24"
            ]
        );
    }
}
