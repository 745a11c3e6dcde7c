//! Two configurations compared: the settings and the peers that differ. Pure.

use std::collections::HashMap;

use adit_config::{Config, Peer, PeerDelta, PeerSet, UnderlayAddresses};
use ipnet::IpNet;

use crate::reconcile::change::{Change, Kind, Object};

/// Returns what `new` changes about the configuration that runs; `None`: nothing runs. `underlay`
/// are our addresses on the underlay, which the file may name by their interface.
pub(crate) fn compare(old: Option<&Config>, new: &Config, underlay: UnderlayAddresses) -> Vec<Change> {
    let mut changes = Vec::new();
    let Some(old) = old else {
        let site = &new.site;
        let at = site.underlay.interface().map_or(String::new(), |name| format!(" ({name})"));
        let (underlay, networks) = (list(underlay.iter()), list(&site.networks));
        let what = format!("{} underlay {underlay}{at} networks {networks}", site.name);
        changes.push(Change::new(Kind::Add, Object::Site, what));
        changes.extend(new.peers.iter().map(|peer| Change::new(Kind::Add, Object::Peer, described(peer))));
        return changes;
    };
    changes.extend(settings(old, new));
    changes.extend(peer_changes(&old.peers, &old.peers.delta_to(&new.peers)));
    changes
}

/// Returns a change for each peer that `delta` changes about the peers that run.
pub(crate) fn peer_changes(running: &PeerSet, delta: &PeerDelta) -> Vec<Change> {
    let find = |name| running.get(name);
    let replaced = delta.replaced.iter().filter_map(|peer| {
        Some(Change::new(Kind::Change, Object::Peer, differences(find(&peer.name)?, peer)))
    });
    let inserted = delta.inserted.iter().map(|peer| Change::new(Kind::Add, Object::Peer, described(peer)));
    let removed = delta.removed.iter().filter_map(find);
    let removed = removed.map(|peer| Change::new(Kind::Remove, Object::Peer, described(peer)));
    replaced.chain(inserted).chain(removed).collect()
}

/// Returns a change for each key of `[site]` and `[tunnel]` with another value.
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
    format!("{} underlay {} networks {}", peer.name, list(peer.underlay.iter()), list(&peer.networks))
}

fn differences(old: &Peer, new: &Peer) -> String {
    let mut what = new.name.to_string();
    if old.underlay != new.underlay {
        let [old, new] = [old, new].map(|peer| list(peer.underlay.iter()));
        what.push_str(&format!(" underlay {old} -> {new}"));
    }
    let added: Vec<IpNet> =
        new.networks.iter().filter(|network| !old.networks.contains(network)).copied().collect();
    let removed: Vec<IpNet> =
        old.networks.iter().filter(|network| !new.networks.contains(network)).copied().collect();
    for (sign, networks) in [('+', added), ('-', removed)] {
        if !networks.is_empty() {
            what.push_str(&format!(" networks {sign}{}", list(&networks)));
        }
    }
    what
}

fn list(items: impl IntoIterator<Item: ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse("a.toml", text).expect("it is valid")
    }

    const US: [u8; 4] = [10, 1, 1, 1];
    const A: &str = include_str!("../../../../examples/a.toml");

    fn lines(changes: &[Change]) -> Vec<String> {
        changes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn configurations_are_compared_key_by_key_and_peer_by_peer() {
        let old = config(A);
        assert_eq!(compare(Some(&old), &old, US.into()), []);
        let more = "[[peer]]\nname = \"c\"\nunderlay = \"10.1.1.3\"\nnetworks = [\"10.3.0.0/16\"]\n";
        let new = config(&format!("{}{more}", A.replace("[tunnel]", "[tunnel]\nttl = 32")));
        assert_eq!(
            lines(&compare(Some(&old), &new, US.into())),
            ["~ site ttl 64 -> 32", "+ peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        assert_eq!(
            lines(&compare(Some(&new), &old, US.into())),
            ["~ site ttl 32 -> 64", "- peer c underlay 10.1.1.3 networks 10.3.0.0/16"]
        );
        let moved =
            config(&A.replace("192.168.199.0/24", "192.168.198.0/24").replace("10.1.1.2", "10.1.1.9"));
        assert_eq!(
            lines(&compare(Some(&old), &moved, US.into())),
            ["~ peer b underlay 10.1.1.2 -> 10.1.1.9 networks +192.168.198.0/24 networks -192.168.199.0/24"]
        );
        assert_eq!(
            lines(&compare(None, &old, US.into())),
            [
                "+ site a underlay 10.1.1.1 networks 172.16.17.0/24",
                "+ peer b underlay 10.1.1.2 networks 192.168.199.0/24"
            ]
        );
    }
}
