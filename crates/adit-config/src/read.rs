//! From the TOML tree to values. What is wrong is reported and left out, and reading goes on.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use adit_peers::{NameError, NotUnicast, Peer, PeerName, check_network};
use ipnet::Ipv4Net;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::decode::{
    At, Key, Kind, Section, Value, array, boolean, described, number_or_word, shown, string, word,
};
use crate::listen::listen;
use crate::model::{
    Config, DataplaneChoice, DscpChoice, EcnChoice, MAX_MTU, MIN_MTU, Mtu, SiteConfig, Ttl, TunnelOptions,
    Underlay,
};
use crate::name::{DeviceName, NetnsName, SiteName};
use crate::problem::Sink;
use crate::scope::name_or_off;
use crate::underlay::{own_underlay, underlay};

const UNDERLAY: Key = Key { name: "underlay", takes: "an IPv4 address", example: "\"10.1.1.1\"" };
const NETWORKS: Key =
    Key { name: "networks", takes: "a list of IPv4 prefixes", example: "[\"172.16.17.0/24\"]" };
const NAME: Key = Key { name: "name", takes: "1 to 32 of a-z, 0-9 and -", example: "\"a\"" };
/// That of this side.
const OWN_UNDERLAY: Key = Key { takes: "an IPv4 address or the name of an interface", ..UNDERLAY };
/// One of `networks`.
const PREFIX: Key = Key { name: "networks", takes: "an IPv4 prefix", example: "[\"172.16.17.0/24\"]" };

/// The whole file.
pub(crate) const TOP: Kind = Kind {
    title: "the file",
    keys: &[
        Key { name: "site", takes: "the section [site]", example: "…" },
        Key { name: "tunnel", takes: "the section [tunnel]", example: "…" },
        Key { name: "peer", takes: "a section [[peer]] for each peer", example: "…" },
    ],
};

/// This side of the overlay.
pub(crate) const SITE: Kind = Kind {
    title: "[site]",
    keys: &[
        NAME,
        OWN_UNDERLAY,
        NETWORKS,
        Key {
            name: "device",
            takes: "an interface name of 1 to 15 visible ASCII characters without / : %",
            example: "\"adit0\"",
        },
        Key {
            name: "dataplane",
            takes: "\"auto\", \"ebpf\", \"userspace\" or \"kernel\"",
            example: "\"auto\"",
        },
        Key { name: "netns", takes: "\"off\", or the name of a network namespace", example: "\"blue\"" },
        Key { name: "vrf", takes: "\"off\", or the name of a VRF's interface", example: "\"blue\"" },
        Key {
            name: "metrics",
            takes: "\"off\", or an address and a port to listen on",
            example: "\"127.0.0.1:9150\"",
        },
    ],
};

/// How the tunnel treats what it carries. The examples are the defaults.
pub(crate) const TUNNEL: Kind = Kind {
    title: "[tunnel]",
    keys: &[
        Key { name: "ttl", takes: "1 to 255 or \"inherit\"", example: "64" },
        Key { name: "dscp", takes: "\"inherit\" or 0 to 63", example: "\"inherit\"" },
        Key { name: "ecn", takes: "\"normal\" or \"compatibility\"", example: "\"normal\"" },
        Key { name: "mtu", takes: "\"auto\" or 68 to 65515", example: "\"auto\"" },
        Key { name: "df", takes: "true or false", example: "true" },
        Key { name: "mss-clamp", takes: "true or false", example: "true" },
        Key { name: "probe", takes: "true or false", example: "true" },
    ],
};

/// Another site.
pub(crate) const PEER: Kind = Kind {
    title: "[[peer]]",
    keys: &[
        Key { example: "\"b\"", ..NAME },
        Key { example: "\"10.1.1.2\"", ..UNDERLAY },
        Key { example: "[\"192.168.199.0/24\"]", ..NETWORKS },
    ],
};

pub(crate) const DATAPLANES: [(&str, DataplaneChoice); 4] = [
    ("auto", DataplaneChoice::Auto),
    ("ebpf", DataplaneChoice::Ebpf),
    ("userspace", DataplaneChoice::Userspace),
    ("kernel", DataplaneChoice::Kernel),
];

pub(crate) const ECN_MODES: [(&str, EcnChoice); 2] =
    [("normal", EcnChoice::Normal), ("compatibility", EcnChoice::Compatibility)];

/// What could be read of a file.
#[derive(Debug, Default)]
pub(crate) struct FilePart {
    pub(crate) site: Option<SitePart>,
    pub(crate) tunnel: Option<TunnelOptions>,
    /// Where `tunnel.df` is written.
    pub(crate) df: Option<Range<usize>>,
    pub(crate) peers: Vec<PeerPart>,
}

/// What could be read of `[site]`.
#[derive(Debug)]
pub(crate) struct SitePart {
    name: Option<SiteName>,
    pub(crate) underlay: Option<At<Underlay>>,
    pub(crate) networks: Vec<At<Ipv4Net>>,
    pub(crate) device: Option<DeviceName>,
    pub(crate) dataplane: Option<DataplaneChoice>,
    netns: Option<Option<NetnsName>>,
    vrf: Option<Option<DeviceName>>,
    /// Where somebody listens, if anywhere.
    metrics: Option<Option<SocketAddr>>,
}

/// What could be read of a `[[peer]]`.
#[derive(Debug)]
pub(crate) struct PeerPart {
    pub(crate) name: Option<At<PeerName>>,
    pub(crate) underlay: Option<At<Ipv4Addr>>,
    pub(crate) networks: Vec<At<Ipv4Net>>,
}

impl FilePart {
    /// The configuration, if nothing is missing and nothing conflicts.
    pub(crate) fn finish(self) -> Option<Config> {
        let site = self.site?;
        let site = SiteConfig {
            name: site.name?,
            underlay: site.underlay?.value,
            networks: bare(site.networks),
            device: site.device?,
            dataplane: site.dataplane?,
            netns: site.netns?,
            vrf: site.vrf?,
            metrics: site.metrics?,
            tunnel: self.tunnel?,
        };
        let peers: Option<Vec<Peer>> = self.peers.into_iter().map(PeerPart::finish).collect();
        Config::new(site, peers?).ok()
    }
}

impl PeerPart {
    /// The peer, if nothing of it is missing.
    pub(crate) fn finish(self) -> Option<Peer> {
        Some(Peer { name: self.name?.value, underlay: self.underlay?.value, networks: bare(self.networks) })
    }
}

fn bare(networks: Vec<At<Ipv4Net>>) -> Vec<Ipv4Net> {
    networks.into_iter().map(|network| network.value).collect()
}

/// Reads a file's tree.
pub(crate) fn read(tree: &Spanned<DeTable<'_>>, sink: &mut Sink) -> FilePart {
    let top = Section::open(&TOP, tree.get_ref(), tree.span(), &[&SITE, &TUNNEL, &PEER], sink);
    let site = match top.optional("site") {
        Some((_, value)) => single(value, &SITE, sink).map(|(table, header)| read_site(table, header, sink)),
        None => {
            sink.report(
                0..0,
                "the section [site] is missing",
                "no [site] in this file",
                "add `[site]` with its `name`, `underlay` and `networks`",
            )
            .absence = true;
            None
        }
    };
    let tunnel = match top.optional("tunnel") {
        Some((_, value)) => {
            single(value, &TUNNEL, sink).and_then(|(table, header)| read_tunnel(table, header, sink))
        }
        None => Some(TunnelOptions::default()),
    };
    let peers = top.optional("peer").map(|(_, value)| read_peers(value, sink)).unwrap_or_default();
    let df = top.optional("tunnel").and_then(|(_, value)| match value.get_ref() {
        DeValue::Table(table) => table.get("df").map(Spanned::span),
        _ => None,
    });
    FilePart { site, tunnel, df, peers }
}

/// A section that is there once. One written with double brackets is reported and read all the
/// same, so that what is in it is checked too.
fn single<'t, 'i>(
    value: &'t Value<'i>,
    kind: &'static Kind,
    sink: &mut Sink,
) -> Option<(&'t DeTable<'i>, Range<usize>)> {
    let first = match value.get_ref() {
        DeValue::Table(table) => return Some((table, value.span())),
        DeValue::Array(array) => array.iter().next(),
        _ => None,
    };
    let message = format!("expected one section {}, found {}", kind.title, several(value));
    let help = format!("write `{}` and its keys below, once", kind.title);
    let span = first.map_or(value.span(), Spanned::span);
    sink.report(span, message, "not one section", help);
    match first.map(|first| (first.get_ref(), first.span())) {
        Some((DeValue::Table(table), header)) => Some((table, header)),
        _ => None,
    }
}

fn several(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::Array(_) => "a list of them".to_owned(),
        _ => described(value),
    }
}

fn read_site(table: &DeTable<'_>, header: Range<usize>, sink: &mut Sink) -> SitePart {
    let section = Section::open(&SITE, table, header, &[&TUNNEL, &TOP], sink);
    let name = section.required("name", sink).and_then(|(key, value)| name(key, value, SiteName::new, sink));
    let underlay = section.required("underlay", sink).and_then(|(key, value)| own_underlay(key, value, sink));
    let networks = section.required("networks", sink).map(|(key, value)| networks(key, value, sink));
    let device = match section.optional("device") {
        Some((key, value)) => name_of_device(key, value, sink),
        None => Some(DeviceName::default()),
    };
    let dataplane = match section.optional("dataplane") {
        Some((key, value)) => word(key, value, &DATAPLANES, sink),
        None => Some(DataplaneChoice::default()),
    };
    let netns = match section.optional("netns") {
        Some((key, value)) => name_or_off(key, value, NetnsName::new, sink),
        None => Some(None),
    };
    let vrf = match section.optional("vrf") {
        Some((key, value)) => name_or_off(key, value, DeviceName::new, sink),
        None => Some(None),
    };
    let metrics = match section.optional("metrics") {
        Some((key, value)) => listen(key, value, sink),
        None => Some(None),
    };
    SitePart {
        name: name.map(|name| name.value),
        underlay,
        networks: networks.unwrap_or_default(),
        device,
        dataplane,
        netns,
        vrf,
        metrics,
    }
}

/// `None` where something in it was wrong.
fn read_tunnel(table: &DeTable<'_>, header: Range<usize>, sink: &mut Sink) -> Option<TunnelOptions> {
    let section = Section::open(&TUNNEL, table, header, &[&SITE, &TOP], sink);
    let before = sink.len();
    let mut options = TunnelOptions::default();
    // The ranges are of a byte and less where the result is taken as one.
    let byte = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
    if let Some((key, value)) = section.optional("ttl")
        && let Some(ttl) = number_or_word(key, value, (1, 255), "inherit", sink)
    {
        options.ttl = ttl.map_or(Ttl::Inherit, |ttl| Ttl::Fixed(byte(ttl)));
    }
    if let Some((key, value)) = section.optional("dscp")
        && let Some(dscp) = number_or_word(key, value, (0, 63), "inherit", sink)
    {
        options.dscp = dscp.map_or(DscpChoice::Inherit, |dscp| DscpChoice::Fixed(byte(dscp)));
    }
    if let Some((key, value)) = section.optional("ecn")
        && let Some(ecn) = word(key, value, &ECN_MODES, sink)
    {
        options.ecn = ecn;
    }
    if let Some((key, value)) = section.optional("mtu")
        && let Some(mtu) = number_or_word(key, value, (MIN_MTU, MAX_MTU), "auto", sink)
    {
        options.mtu = mtu.map_or(Mtu::Auto, Mtu::Fixed);
    }
    if let Some((key, value)) = section.optional("df")
        && let Some(df) = boolean(key, value, sink)
    {
        options.df = df;
    }
    if let Some((key, value)) = section.optional("mss-clamp")
        && let Some(mss_clamp) = boolean(key, value, sink)
    {
        options.mss_clamp = mss_clamp;
    }
    if let Some((key, value)) = section.optional("probe")
        && let Some(probe) = boolean(key, value, sink)
    {
        options.probe = probe;
    }
    (sink.len() == before).then_some(options)
}

pub(crate) fn read_peers(value: &Value<'_>, sink: &mut Sink) -> Vec<PeerPart> {
    let refuse = |span: Range<usize>, found: &str, sink: &mut Sink| {
        let message = format!("expected [[peer]] for each peer, found {found}");
        sink.report(
            span,
            message,
            "not a list of peers",
            "write `[[peer]]`, in double brackets, above the keys of each peer",
        );
    };
    match value.get_ref() {
        DeValue::Array(array) => {
            let mut peers = Vec::with_capacity(array.len());
            for peer in array {
                match peer.get_ref() {
                    DeValue::Table(table) => peers.push(read_peer(table, peer.span(), sink)),
                    _ => refuse(peer.span(), &described(peer), sink),
                }
            }
            peers
        }
        DeValue::Table(table) => {
            refuse(value.span(), "one section [peer]", sink);
            vec![read_peer(table, value.span(), sink)]
        }
        _ => {
            refuse(value.span(), &described(value), sink);
            Vec::new()
        }
    }
}

fn read_peer(table: &DeTable<'_>, header: Range<usize>, sink: &mut Sink) -> PeerPart {
    let section = Section::open(&PEER, table, header, &[&SITE, &TUNNEL, &TOP], sink);
    let name = section.required("name", sink).and_then(|(key, value)| name(key, value, PeerName::new, sink));
    let underlay = section.required("underlay", sink).and_then(|(key, value)| underlay(key, value, sink));
    let networks = section.required("networks", sink).map(|(key, value)| networks(key, value, sink));
    PeerPart { name, underlay, networks: networks.unwrap_or_default() }
}

fn name<T>(
    key: &Key,
    value: &Value<'_>,
    new: impl Fn(String) -> Result<T, NameError>,
    sink: &mut Sink,
) -> Option<At<T>> {
    let text = string(key, value, sink)?;
    match new(text.to_owned()) {
        Ok(name) => Some(At { value: name, span: value.span() }),
        Err(error) => {
            // The name that was meant, where it is only a matter of how it is written.
            let plain: String = text
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .take(32)
                .collect();
            let meant = plain.trim_matches('-').to_owned();
            let help =
                new(meant.clone()).is_ok().then(|| format!("write for example `{} = \"{meant}\"`", key.name));
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), help, sink);
            None
        }
    }
}

fn name_of_device(key: &Key, value: &Value<'_>, sink: &mut Sink) -> Option<DeviceName> {
    let text = string(key, value, sink)?;
    match DeviceName::new(text) {
        Ok(name) => Some(name),
        Err(error) => {
            let meant: String = text
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.'))
                .take(15)
                .collect();
            let help = DeviceName::new(meant.clone())
                .is_ok()
                .then(|| format!("write for example `{} = \"{meant}\"`", key.name));
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), help, sink);
            None
        }
    }
}

/// Prefixes that are right, in order. Empty where all are wrong.
fn networks(key: &Key, value: &Value<'_>, sink: &mut Sink) -> Vec<At<Ipv4Net>> {
    let Some(array) = array(key, value, sink) else { return Vec::new() };
    if array.is_empty() {
        key.refuse(
            value.span(),
            "an empty list",
            Some(format!("name at least one: `{} = {}`", key.name, key.example)),
            sink,
        );
    }
    array.iter().filter_map(|element| network(element, sink)).collect()
}

fn network(value: &Value<'_>, sink: &mut Sink) -> Option<At<Ipv4Net>> {
    let DeValue::String(text) = value.get_ref() else {
        PREFIX.refuse(value.span(), described(value), None, sink);
        return None;
    };
    match prefix(text) {
        Ok(network) => {
            let Err(found) = check_network(network) else {
                return Some(At { value: network, span: value.span() });
            };
            let what = if found == NotUnicast::Multicast { "multicast" } else { "loopback" };
            let message = format!(
                "`networks`: expected a network of unicast addresses, found {}, which is {what}",
                described(value)
            );
            sink.report(
                value.span(),
                message,
                what,
                "remove it: nobody speaks from such an address through a tunnel",
            );
            None
        }
        Err(BadPrefix { what, mend }) => {
            PREFIX.refuse(value.span(), format!("{}{what}", described(value)), mend, sink);
            None
        }
    }
}

struct BadPrefix {
    what: String,
    mend: Option<String>,
}

fn prefix(text: &str) -> Result<Ipv4Net, BadPrefix> {
    let bad = |what: &str, mend: Option<String>| BadPrefix { what: what.to_owned(), mend };
    let write = |network: &dyn fmt::Display| Some(format!("write \"{network}\""));
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<Ipv4Addr>() else {
        return Err(if is_ipv6(text) {
            bad(", which is IPv6", Some(no_ipv6()))
        } else {
            bad(
                "",
                Some(
                    "write four numbers from 0 to 255, a slash and the length, as in \"172.16.17.0/24\""
                        .to_owned(),
                ),
            )
        });
    };
    let Some(length) = length else {
        let mend =
            format!("write \"{address}/32\" for this one host, or its network, as in \"172.16.17.0/24\"");
        return Err(bad(", which has no length", Some(mend)));
    };
    let digits = !length.is_empty() && length.len() <= 2 && length.bytes().all(|byte| byte.is_ascii_digit());
    let parsed =
        digits.then(|| length.parse().ok().and_then(|length| Ipv4Net::new(address, length).ok())).flatten();
    let Some(network) = parsed else {
        // 255.255.255.0 for /24.
        let mask = length.parse().ok().and_then(|mask| Ipv4Net::with_netmask(address, mask).ok());
        let what = format!(", whose length \"{}\" is not 0 to 32", shown(length));
        let mend = mask.and_then(|network| write(&network.trunc()));
        return Err(bad(
            &what,
            mend.or_else(|| Some("write a length from 0 to 32 after the slash".to_owned())),
        ));
    };
    if network.trunc() != network {
        return Err(bad(
            &format!(", which has host bits set (behind the first {})", network.prefix_len()),
            write(&network.trunc()),
        ));
    }
    Ok(network)
}

pub(crate) fn is_ipv6(text: &str) -> bool {
    text.split('/').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

pub(crate) fn no_ipv6() -> String {
    "IPv6 is not supported yet in this version: write IPv4".to_owned()
}
