//! What would change, and by which `ip` commands: two configurations compared, and an overlay's wish with the kernel's
//! truth. Pure.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use adit_config::{Config, Peer};
use ipnet::Ipv4Net;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod objects;

pub(crate) use objects::{of_kernel, of_route};

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
    /// Where the route leads, if it is one: for us alone.
    #[serde(skip)]
    pub(crate) network: Option<Ipv4Net>,
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
    /// Our address on the underlay, where the file names its interface.
    Underlay,
}

impl Object {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Site, Self::Peer, Self::Device, Self::Route, Self::Table, Self::DataPlane, Self::Underlay];

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
            Self::Underlay => "underlay",
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
        Self { kind, object, what: what.into(), commands: Vec::new(), network: None }
    }

    fn by(mut self, command: String) -> Self {
        self.commands.push(command);
        self
    }
}

/// What a configuration changes about the one that runs; `None`: nothing runs. `underlay` is the address that an
/// interface has which it names.
pub(crate) fn of_configs(old: Option<&Config>, new: &Config, underlay: Ipv4Addr) -> Vec<Change> {
    let mut changes = Vec::new();
    let Some(old) = old else {
        let site = &new.site;
        let at = site.underlay.interface().map_or(String::new(), |name| format!(" ({name})"));
        let what = format!("{} underlay {underlay}{at} networks {}", site.name, list(&site.networks));
        changes.push(Change::new(Kind::Add, Object::Site, what));
        changes.extend(new.peers.iter().map(|peer| Change::new(Kind::Add, Object::Peer, described(peer))));
        return changes;
    };
    changes.extend(settings(old, new));
    for peer in &new.peers {
        match old.peers.get(&peer.name) {
            None => changes.push(Change::new(Kind::Add, Object::Peer, described(peer))),
            Some(before) if before == peer => {}
            Some(before) => changes.push(Change::new(Kind::Change, Object::Peer, differences(before, peer))),
        }
    }
    for peer in old.peers.iter().filter(|peer| new.peers.get(&peer.name).is_none()) {
        changes.push(Change::new(Kind::Remove, Object::Peer, described(peer)));
    }
    changes
}

/// Every key of `[site]` and `[tunnel]` that has another value.
fn settings(old: &Config, new: &Config) -> Vec<Change> {
    let keys = |config: &Config| -> Vec<(String, String)> {
        let text = config.site.to_toml();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::{Desired, Machine};
    use crate::reconcile::objects::{Actual, wanted_routes};
    use adit_linux::netlink::{Link, LinkLayer, Route};

    fn config(text: &str) -> Config {
        Config::parse("a.toml", text).expect("it is valid")
    }

    const US: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
    const A: &str = include_str!("../../../../examples/a.toml");

    fn desired(config: &Config) -> Desired {
        let local = vec!["172.16.17.1".parse().expect("an address")];
        Desired::of(config, &Machine { underlay: US, local, underlay_mtu: 1500, vrf: None })
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
            master: None,
            vrf_table: None,
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
        assert_eq!(of_configs(Some(&old), &old, US), []);
        let more = "[[peer]]\nname = \"c\"\nunderlay = \"10.1.1.3\"\nnetworks = [\"10.3.0.0/16\"]\n";
        let new = config(&format!("{}{more}", A.replace("[tunnel]", "[tunnel]\nttl = 32")));
        assert_eq!(
            lines(&of_configs(Some(&old), &new, US)),
            ["~ site ttl 64 -> 32", "+ peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        assert_eq!(
            lines(&of_configs(Some(&new), &old, US)),
            ["~ site ttl 32 -> 64", "- peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        let moved =
            config(&A.replace("192.168.199.0/24", "192.168.198.0/24").replace("10.1.1.2", "10.1.1.9"));
        assert_eq!(
            lines(&of_configs(Some(&old), &moved, US)),
            ["~ peer b underlay 10.1.1.2 -> 10.1.1.9 networks +192.168.198.0/24 networks -192.168.199.0/24"]
        );
        assert_eq!(
            lines(&of_configs(None, &old, US)),
            [
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24"
            ]
        );
    }
}
