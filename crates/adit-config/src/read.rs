//! The reader: turns the TOML tree into values. A wrong value is reported and left out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use adit_peers::{NameError, NotUnicast, PathOptions, Peer, PeerName, UnderlayAddresses, check_network};
use ipnet::IpNet;
use toml::de::{DeTable, DeValue};

use crate::decode::{
    Section, Spanned, Value, array, boolean, described, number, number_or_word, shown, string, word,
};
use crate::duration::{DurationOrWord, duration_or_word};
use crate::listen::listen;
use crate::model::{
    Config, DataplaneChoice, DscpChoice, EcnChoice, Mtu, SiteConfig, Ttl, TunnelOptions, Underlay,
};
use crate::name::{DeviceName, NetnsName, SiteName};
use crate::path_options::path_options;
use crate::problem::Diagnostics;
use crate::relay::relay;
use crate::schema::{ADDRESS, KeySpec, PEER, PREFIX, SITE, TOP, TUNNEL, TableSpec};
use crate::scope::name_or_off;
use crate::underlay::{UnderlayPart, address_v4, own_underlay, underlays};

pub(crate) const DATAPLANES: [(&str, DataplaneChoice); 4] = [
    ("auto", DataplaneChoice::Auto),
    ("ebpf", DataplaneChoice::Ebpf),
    ("userspace", DataplaneChoice::Userspace),
    ("kernel", DataplaneChoice::Kernel),
];

pub(crate) const ECN_MODES: [(&str, EcnChoice); 2] =
    [("normal", EcnChoice::Normal), ("compatibility", EcnChoice::Compatibility)];

/// The readable parts of a file.
#[derive(Debug, Default)]
pub(crate) struct FilePart {
    pub(crate) site: Option<SitePart>,
    pub(crate) tunnel: Option<TunnelOptions>,
    /// The place of `tunnel.df`.
    pub(crate) df: Option<Range<usize>>,
    /// The place of `tunnel.mtu`.
    pub(crate) mtu: Option<Range<usize>>,
    /// The place of `tunnel.keepalive`.
    pub(crate) keepalive: Option<Range<usize>>,
    /// The place of `tunnel.relay`.
    pub(crate) relay: Option<Range<usize>>,
    pub(crate) peers: Vec<PeerPart>,
}

/// The readable parts of `[site]`.
#[derive(Debug)]
pub(crate) struct SitePart {
    name: Option<SiteName>,
    pub(crate) underlay: Option<UnderlayPart<Underlay>>,
    pub(crate) networks: Vec<Spanned<IpNet>>,
    pub(crate) local: Vec<Spanned<Ipv4Addr>>,
    pub(crate) device: Option<DeviceName>,
    pub(crate) dataplane: Option<DataplaneChoice>,
    netns: Option<Option<NetnsName>>,
    vrf: Option<Option<DeviceName>>,
    /// The address of the metrics server; `Some(None)`: there is none.
    metrics: Option<Option<SocketAddr>>,
    fwmark: Option<u32>,
}

/// The readable parts of a `[[peer]]`.
#[derive(Debug)]
pub(crate) struct PeerPart {
    pub(crate) name: Option<Spanned<PeerName>>,
    pub(crate) underlay: Option<UnderlayPart<UnderlayAddresses>>,
    pub(crate) networks: Vec<Spanned<IpNet>>,
    pub(crate) path: Option<PathOptions>,
    /// The place of `keepalive`.
    pub(crate) keepalive: Option<Range<usize>>,
}

impl FilePart {
    /// The configuration, if nothing is missing and nothing conflicts.
    pub(crate) fn finish(&self) -> Option<Config> {
        let site = self.site.as_ref()?;
        let site = SiteConfig {
            name: site.name.clone()?,
            underlay: site.underlay.as_ref()?.value.clone(),
            networks: bare(&site.networks),
            local: site.local.iter().map(|address| address.value).collect(),
            device: site.device.clone()?,
            dataplane: site.dataplane?,
            netns: site.netns.clone()?,
            vrf: site.vrf.clone()?,
            metrics: site.metrics?,
            fwmark: site.fwmark?,
            tunnel: self.tunnel.clone()?,
        };
        let peers: Option<Vec<Peer>> = self.peers.iter().map(PeerPart::finish).collect();
        Config::new(site, peers?).ok()
    }
}

impl PeerPart {
    /// The peer, if nothing of it is missing.
    pub(crate) fn finish(&self) -> Option<Peer> {
        Some(Peer {
            name: self.name.as_ref()?.value.clone(),
            underlay: self.underlay.as_ref()?.value,
            networks: bare(&self.networks),
            path: self.path?,
        })
    }
}

fn bare(networks: &[Spanned<IpNet>]) -> Vec<IpNet> {
    networks.iter().map(|network| network.value).collect()
}

/// Reads a file's tree.
pub(crate) fn read(tree: &toml::Spanned<DeTable<'_>>, diagnostics: &mut Diagnostics) -> FilePart {
    let top = Section::open(&TOP, tree.get_ref(), tree.span(), &[&SITE, &TUNNEL, &PEER], diagnostics);
    let site = match top.optional("site") {
        Some((_, value)) => {
            single(value, &SITE, diagnostics).map(|(table, header)| read_site(table, header, diagnostics))
        }
        None => {
            diagnostics
                .report(
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
        Some((_, value)) => single(value, &TUNNEL, diagnostics)
            .and_then(|(table, header)| read_tunnel(table, header, diagnostics)),
        None => Some(TunnelOptions::default()),
    };
    let peers = top.optional("peer").map(|(_, value)| read_peers(value, diagnostics)).unwrap_or_default();
    let place = |key: &str| match top.optional("tunnel")?.1.get_ref() {
        DeValue::Table(table) => table.get(key).map(toml::Spanned::span),
        _ => None,
    };
    let (df, mtu, relay, keepalive) = (place("df"), place("mtu"), place("relay"), place("keepalive"));
    FilePart { site, tunnel, df, mtu, relay, keepalive, peers }
}

/// Opens a section that may be there once. One in double brackets is reported and read
/// nevertheless, so that its keys are checked too.
fn single<'t, 'i>(
    value: &'t Value<'i>,
    kind: &'static TableSpec,
    diagnostics: &mut Diagnostics,
) -> Option<(&'t DeTable<'i>, Range<usize>)> {
    let first = match value.get_ref() {
        DeValue::Table(table) => return Some((table, value.span())),
        DeValue::Array(array) => array.iter().next(),
        _ => None,
    };
    let message = format!("expected one section {}, found {}", kind.title, several(value));
    let help = format!("write `{}` and its keys below, once", kind.title);
    let span = first.map_or(value.span(), toml::Spanned::span);
    diagnostics.report(span, message, "not one section", help);
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

fn read_site(table: &DeTable<'_>, header: Range<usize>, diagnostics: &mut Diagnostics) -> SitePart {
    let section = Section::open(&SITE, table, header, &[&TUNNEL, &TOP], diagnostics);
    let name = section
        .required("name", diagnostics)
        .and_then(|(key, value)| name(key, value, SiteName::new, diagnostics));
    let underlay = section
        .required("underlay", diagnostics)
        .and_then(|(key, value)| own_underlay(key, value, diagnostics));
    let networks =
        section.required("networks", diagnostics).map(|(key, value)| networks(key, value, diagnostics));
    let local = section.optional("local").map(|(key, value)| addresses(key, value, diagnostics));
    let device = match section.optional("device") {
        Some((key, value)) => name_of_device(key, value, diagnostics),
        None => Some(DeviceName::default()),
    };
    let dataplane = match section.optional("dataplane") {
        Some((key, value)) => word(key, value, &DATAPLANES, diagnostics),
        None => Some(DataplaneChoice::default()),
    };
    let netns = match section.optional("netns") {
        Some((key, value)) => name_or_off(key, value, NetnsName::new, diagnostics),
        None => Some(None),
    };
    let vrf = match section.optional("vrf") {
        Some((key, value)) => name_or_off(key, value, DeviceName::new, diagnostics),
        None => Some(None),
    };
    let metrics = match section.optional("metrics") {
        Some((key, value)) => listen(key, value, diagnostics),
        None => Some(None),
    };
    let fwmark = match section.optional("fwmark") {
        Some((key, value)) => number_or_word(key, value, diagnostics).map(Option::unwrap_or_default),
        None => Some(0),
    };
    SitePart {
        name: name.map(|name| name.value),
        underlay,
        networks: networks.unwrap_or_default(),
        local: local.unwrap_or_default(),
        device,
        dataplane,
        netns,
        vrf,
        metrics,
        fwmark,
    }
}

/// Reads `[tunnel]`; `None`: something in it is wrong.
fn read_tunnel(
    table: &DeTable<'_>,
    header: Range<usize>,
    diagnostics: &mut Diagnostics,
) -> Option<TunnelOptions> {
    let section = Section::open(&TUNNEL, table, header, &[&SITE, &TOP], diagnostics);
    let before = diagnostics.len();
    let mut options = TunnelOptions::default();
    // A range fits the type that its numbers are converted to.
    let byte = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
    if let Some((key, value)) = section.optional("ttl")
        && let Some(ttl) = number_or_word(key, value, diagnostics)
    {
        options.ttl = ttl.map_or(Ttl::Inherit, |ttl| Ttl::Fixed(byte(ttl)));
    }
    if let Some((key, value)) = section.optional("dscp")
        && let Some(dscp) = number_or_word(key, value, diagnostics)
    {
        options.dscp = dscp.map_or(DscpChoice::Inherit, |dscp| DscpChoice::Fixed(byte(dscp)));
    }
    if let Some((key, value)) = section.optional("ecn")
        && let Some(ecn) = word(key, value, &ECN_MODES, diagnostics)
    {
        options.ecn = ecn;
    }
    if let Some((key, value)) = section.optional("mtu")
        && let Some(mtu) = number_or_word(key, value, diagnostics)
    {
        options.mtu = mtu.map_or(Mtu::Auto, |mtu| Mtu::Fixed(u16::try_from(mtu).unwrap_or(u16::MAX)));
    }
    if let Some((key, value)) = section.optional("df")
        && let Some(df) = boolean(key, value, diagnostics)
    {
        options.df = df;
    }
    if let Some((key, value)) = section.optional("mss-clamp")
        && let Some(mss_clamp) = boolean(key, value, diagnostics)
    {
        options.mss_clamp = mss_clamp;
    }
    if let Some((key, value)) = section.optional("mtu-floor")
        && let Some(mtu_floor) = number(key, value, diagnostics)
    {
        options.mtu_floor = mtu_floor;
    }
    if let Some((key, value)) = section.optional("probe")
        && let Some(probe) = boolean(key, value, diagnostics)
    {
        options.probe = probe;
    }
    if let Some((key, value)) = section.optional("keepalive")
        && let Some(keepalive) = duration_or_word(key, value, diagnostics)
    {
        options.keepalive = match keepalive {
            DurationOrWord::Duration(interval) => Some(interval),
            DurationOrWord::Word(_) => None,
        };
    }
    if let Some((key, value)) = section.optional("relay")
        && let Some(relay) = relay(key, value, diagnostics)
    {
        options.relay = relay;
    }
    (diagnostics.len() == before).then_some(options)
}

pub(crate) fn read_peers(value: &Value<'_>, diagnostics: &mut Diagnostics) -> Vec<PeerPart> {
    let refuse = |span: Range<usize>, found: &str, diagnostics: &mut Diagnostics| {
        let message = format!("expected [[peer]] for each peer, found {found}");
        diagnostics.report(
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
                    DeValue::Table(table) => peers.push(read_peer(table, peer.span(), diagnostics)),
                    _ => refuse(peer.span(), &described(peer), diagnostics),
                }
            }
            peers
        }
        DeValue::Table(table) => {
            refuse(value.span(), "one section [peer]", diagnostics);
            vec![read_peer(table, value.span(), diagnostics)]
        }
        _ => {
            refuse(value.span(), &described(value), diagnostics);
            Vec::new()
        }
    }
}

fn read_peer(table: &DeTable<'_>, header: Range<usize>, diagnostics: &mut Diagnostics) -> PeerPart {
    let section = Section::open(&PEER, table, header, &[&SITE, &TUNNEL, &TOP], diagnostics);
    let name = section
        .required("name", diagnostics)
        .and_then(|(key, value)| name(key, value, PeerName::new, diagnostics));
    let underlay =
        section.required("underlay", diagnostics).and_then(|(key, value)| underlays(key, value, diagnostics));
    let networks =
        section.required("networks", diagnostics).map(|(key, value)| networks(key, value, diagnostics));
    let networks = networks.unwrap_or_default();
    let path = path_options(&section, &networks, diagnostics);
    let keepalive = section.optional("keepalive").map(|(_, value)| value.span());
    PeerPart { name, underlay, networks, path, keepalive }
}

fn name<T>(
    key: &KeySpec,
    value: &Value<'_>,
    new: impl Fn(String) -> Result<T, NameError>,
    diagnostics: &mut Diagnostics,
) -> Option<Spanned<T>> {
    let text = string(key, value, diagnostics)?;
    match new(text.to_owned()) {
        Ok(name) => Some(Spanned { value: name, span: value.span() }),
        Err(error) => {
            // The name that was probably meant: lower case, with hyphens.
            let plain: String = text
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .take(32)
                .collect();
            let meant = plain.trim_matches('-').to_owned();
            let help =
                new(meant.clone()).is_ok().then(|| format!("write for example `{} = \"{meant}\"`", key.name));
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), help, diagnostics);
            None
        }
    }
}

fn name_of_device(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<DeviceName> {
    let text = string(key, value, diagnostics)?;
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
            key.refuse(value.span(), format!("\"{}\", which {error}", shown(text)), help, diagnostics);
            None
        }
    }
}

/// The valid addresses, in order.
fn addresses(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Vec<Spanned<Ipv4Addr>> {
    let Some(array) = array(key, value, diagnostics) else { return Vec::new() };
    array.iter().filter_map(|element| address_v4(&ADDRESS, element, diagnostics)).collect()
}

/// The valid prefixes, in order.
fn networks(key: &KeySpec, value: &Value<'_>, diagnostics: &mut Diagnostics) -> Vec<Spanned<IpNet>> {
    let Some(array) = array(key, value, diagnostics) else { return Vec::new() };
    if array.is_empty() {
        key.refuse(
            value.span(),
            "an empty list",
            Some(format!("name at least one: `{} = {}`", key.name, key.example)),
            diagnostics,
        );
    }
    array.iter().filter_map(|element| network(element, diagnostics)).collect()
}

fn network(value: &Value<'_>, diagnostics: &mut Diagnostics) -> Option<Spanned<IpNet>> {
    let DeValue::String(text) = value.get_ref() else {
        PREFIX.refuse(value.span(), described(value), None, diagnostics);
        return None;
    };
    match prefix(text) {
        Ok(network) => {
            let Err(found) = check_network(network) else {
                return Some(Spanned { value: network, span: value.span() });
            };
            let what = match found {
                NotUnicast::Multicast | NotUnicast::MulticastV6 => "multicast",
                NotUnicast::Loopback | NotUnicast::LoopbackV6 => "loopback",
                NotUnicast::ThisNetwork => "\"this network\" (RFC 1122)",
                NotUnicast::Reserved => "reserved",
                NotUnicast::Broadcast => "the broadcast address",
                NotUnicast::Unspecified => "no address",
                NotUnicast::LinkLocalV6 => "link-local",
                NotUnicast::MappedV4 => "IPv4 in the form of IPv6",
            };
            let message = format!(
                "`networks`: expected a network of unicast addresses, found {}, which is {what}",
                described(value)
            );
            diagnostics.report(
                value.span(),
                message,
                what,
                "remove it: no host sends from such an address through a tunnel",
            );
            None
        }
        Err(BadPrefix { what, mend }) => {
            PREFIX.refuse(value.span(), format!("{}{what}", described(value)), mend, diagnostics);
            None
        }
    }
}

struct BadPrefix {
    what: String,
    mend: Option<String>,
}

fn prefix(text: &str) -> Result<IpNet, BadPrefix> {
    let bad = |what: &str, mend: Option<String>| BadPrefix { what: what.to_owned(), mend };
    let write = |network: &dyn fmt::Display| Some(format!("write \"{network}\""));
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let mend = if text.contains(':') {
            "write an address of IPv6, a slash and the length, as in \"2001:db8:17::/64\""
        } else {
            "write four numbers from 0 to 255, a slash and the length, as in \"172.16.17.0/24\""
        };
        return Err(bad("", Some(mend.to_owned())));
    };
    let (whole, digits, example) = match address {
        IpAddr::V4(_) => (32, 2, "172.16.17.0/24"),
        IpAddr::V6(_) => (128, 3, "2001:db8:17::/64"),
    };
    let Some(length) = length else {
        let mend =
            format!("write \"{address}/{whole}\" for this one host, or its network, as in \"{example}\"");
        return Err(bad(", which has no length", Some(mend)));
    };
    let is_number = (1..=digits).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = is_number.then(|| length.parse().ok().and_then(|length| IpNet::new(address, length).ok()));
    let Some(network) = parsed.flatten() else {
        // A netmask such as 255.255.255.0 instead of /24.
        let mask = length.parse().ok().filter(IpAddr::is_ipv4);
        let mask = mask.and_then(|mask| IpNet::with_netmask(address, mask).ok());
        let what = format!(", whose length \"{}\" is not 0 to {whole}", shown(length));
        let mend = mask.and_then(|network| write(&network.trunc()));
        return Err(bad(
            &what,
            mend.or_else(|| Some(format!("write a length from 0 to {whole} after the slash"))),
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
