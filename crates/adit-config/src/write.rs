//! A configuration written as a file.

use std::fmt::Display;
use std::time::Duration;

use adit_peers::{Keepalive, Peer, Relay, UnderlayAddresses};
use toml::Value;

use crate::model::{
    Config, DataplaneChoice, DscpChoice, EcnChoice, Mtu, SiteConfig, Ttl, TunnelOptions, Underlay,
};
use crate::read::{DATAPLANES, ECN_MODES};
use crate::schema::{AUTO, DEFAULT, OFF, PEER, SITE, TUNNEL, TableSpec};

impl Config {
    /// The configuration as a file with every key written out. [`Config::parse`] reads the same
    /// configuration from it if its values are valid: a TTL of 0, for example, becomes a file with
    /// that mistake.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let peers = self.peers.iter().map(|peer| table(&PEER, |key| of_peer(peer, key)));
        std::iter::once(self.site.to_toml()).chain(peers).collect::<Vec<_>>().join("\n")
    }
}

impl SiteConfig {
    /// The sections `[site]` and `[tunnel]` of a file, with every key written out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let site = table(&SITE, |key| of_site(self, key));
        let tunnel = table(&TUNNEL, |key| of_tunnel(&self.tunnel, key));
        format!("{site}\n{tunnel}")
    }
}

/// A section with its keys. `None` of a value: the table has a key that is not written, which the
/// tests find.
fn table(spec: &TableSpec, value: impl Fn(&str) -> Option<Value>) -> String {
    let lines = spec.keys.iter().filter_map(|key| Some(format!("{} = {}\n", key.name, value(key.name)?)));
    format!("{}\n{}", spec.title, lines.collect::<String>())
}

fn of_site(site: &SiteConfig, key: &str) -> Option<Value> {
    Some(match key {
        "name" => text(&site.name),
        "underlay" => match &site.underlay {
            Underlay::Addresses(addresses) => one_or_list(*addresses),
            Underlay::Interface(name) => text(name),
        },
        "networks" => list(&site.networks),
        "local" => list(&site.local),
        "device" => text(&site.device),
        "dataplane" => word(&DATAPLANES, |choice: DataplaneChoice| choice == site.dataplane)?,
        "netns" => or_off(site.netns.as_ref()),
        "vrf" => or_off(site.vrf.as_ref()),
        "fwmark" => match site.fwmark {
            0 => text(&OFF),
            mark => number(mark),
        },
        "metrics" => or_off(site.metrics.as_ref()),
        _ => return None,
    })
}

fn of_tunnel(options: &TunnelOptions, key: &str) -> Option<Value> {
    Some(match key {
        "ttl" => match options.ttl {
            Ttl::Fixed(ttl) => number(ttl),
            Ttl::Inherit => text(&"inherit"),
        },
        "dscp" => match options.dscp {
            DscpChoice::Fixed(dscp) => number(dscp),
            DscpChoice::Inherit => text(&"inherit"),
        },
        "ecn" => word(&ECN_MODES, |choice: EcnChoice| choice == options.ecn)?,
        "mtu" => match options.mtu {
            Mtu::Fixed(mtu) => number(mtu),
            Mtu::Auto => text(&"auto"),
        },
        "df" => Value::Boolean(options.df),
        "mss-clamp" => Value::Boolean(options.mss_clamp),
        "mtu-floor" => number(options.mtu_floor),
        "probe" => Value::Boolean(options.probe),
        "keepalive" => options.keepalive.map_or_else(|| text(&OFF), seconds),
        "relay" => match &options.relay {
            Relay::Auto => text(&"auto"),
            Relay::Direct => text(&"direct"),
            Relay::Off => Value::Boolean(false),
            Relay::Pairs(pairs) => Value::Array(pairs.iter().map(|pair| list(pair)).collect()),
        },
        _ => return None,
    })
}

fn of_peer(peer: &Peer, key: &str) -> Option<Value> {
    Some(match key {
        "name" => text(&peer.name),
        "underlay" => one_or_list(peer.underlay),
        "networks" => list(&peer.networks),
        "probe-address" => peer.path.probe_address.map_or_else(|| text(&AUTO), |address| text(&address)),
        "keepalive" => match peer.path.keepalive {
            Keepalive::Default => text(&DEFAULT),
            Keepalive::Off => text(&OFF),
            Keepalive::After(interval) => seconds(interval),
        },
        _ => return None,
    })
}

fn seconds(time: Duration) -> Value {
    text(&format_args!("{}s", time.as_secs()))
}

fn text(value: &dyn Display) -> Value {
    Value::String(value.to_string())
}

fn number(value: impl Into<i64>) -> Value {
    Value::Integer(value.into())
}

/// An address alone, or a list of two.
fn one_or_list(addresses: UnderlayAddresses) -> Value {
    let all: Vec<_> = addresses.iter().collect();
    if let [only] = all.as_slice() { text(only) } else { list(&all) }
}

fn list<T: Display>(values: &[T]) -> Value {
    Value::Array(values.iter().map(|value| text(value)).collect())
}

fn or_off<T: Display>(value: Option<&T>) -> Value {
    value.map_or_else(|| text(&OFF), |value| text(value))
}

/// The word of a choice.
fn word<T: Copy>(words: &[(&str, T)], is_chosen: impl Fn(T) -> bool) -> Option<Value> {
    words.iter().find(|(_, choice)| is_chosen(*choice)).map(|(word, _)| text(word))
}
