//! The file's shape: what is written by [`Config::to_toml`] and described by the JSON Schema.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};

use adit_peers::Peer;
use ipnet::Ipv4Net;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use crate::listen::OFF;
use crate::model::{
    Config, DataplaneChoice, DscpChoice, EcnChoice, MAX_MTU, MIN_MTU, Mtu, SiteConfig, Ttl, TunnelOptions,
};
use crate::name::DeviceName;

/// One octet, and what an address and a prefix are made of.
const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
/// A character of an interface's name.
const DEVICE: &str = "[!-$&-.0-9;-~]";

/// The configuration of one site of an Adit overlay.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Adit configuration", deny_unknown_fields)]
struct RawFile {
    site: RawSite,
    #[schemars(default)]
    tunnel: RawTunnel,
    /// The other sites.
    #[schemars(default)]
    peer: Vec<RawPeer>,
}

/// This side of the overlay.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RawSite {
    /// Names the overlay's socket and pins.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,32}$"))]
    name: String,
    /// Our address on the public network, the outer source, or the interface that has it.
    underlay: RawUnderlay,
    /// What lives behind this site.
    #[schemars(length(min = 1))]
    networks: Vec<RawPrefix>,
    /// The tunnel's interface.
    #[schemars(default = "default_device", regex(pattern = format!("^{DEVICE}{{1,15}}$")))]
    device: String,
    /// What carries the packets.
    #[schemars(default)]
    dataplane: RawDataplane,
    /// The network namespace, as `ip netns` names it, that the tunnel's interface and routes are in; what faces the
    /// public network stays where Adit runs. Or that one, too.
    #[schemars(default = "default_off", regex(pattern = r"^[!#-.0-\[\]-~]{1,255}$"))]
    netns: String,
    /// The VRF that the tunnel's interface and routes are in, or none.
    #[schemars(default = "default_off", regex(pattern = format!("^{DEVICE}{{1,15}}$")))]
    vrf: String,
    /// Where Prometheus finds the overlay's numbers, by HTTP at `/metrics`: an address and a port, or nowhere.
    #[schemars(default)]
    metrics: RawMetrics,
}

/// How the tunnel treats what it carries.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(default, deny_unknown_fields)]
struct RawTunnel {
    /// TTL of the outer header, in hops: 1 to 255, or that of the inner one.
    ttl: RawTtl,
    /// DSCP of the outer header: that of the inner one (RFC 2003), or a codepoint from 0 to 63.
    dscp: RawDscp,
    /// ECN mode at the tunnel's entrance (RFC 6040).
    ecn: RawEcn,
    /// MTU of the tunnel's interface, in bytes: 68 to 65515, or what the underlay leaves.
    mtu: RawMtu,
    /// Path MTU discovery inside the tunnel. An inner DF=1 is always honoured.
    df: bool,
    /// Lowers the MSS of TCP that passes to the peer's path MTU.
    mss_clamp: bool,
    /// Finds out by probes what the path to a peer takes, where routers do not say (RFC 8899). Nothing is probed
    /// without `df`.
    probe: bool,
}

/// Another site, reached through the tunnel.
#[derive(Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct RawPeer {
    /// Unique among the peers.
    #[schemars(regex(pattern = r"^[a-z0-9-]{1,32}$"))]
    name: String,
    /// Its address on the public network.
    underlay: RawAddress,
    /// What may be reached, and may speak, through this peer.
    #[schemars(length(min = 1))]
    networks: Vec<RawPrefix>,
}

/// What carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawDataplane {
    /// The best one that this machine has.
    #[default]
    Auto,
    /// Programs inside the kernel, with the userspace plane behind them.
    Ebpf,
    /// A process between a TUN device and raw sockets.
    Userspace,
    /// The kernel's own ipip driver.
    Kernel,
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RawMetrics {
    Word(Off),
    At(RawListen),
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RawTtl {
    Fixed(#[schemars(range(min = 1, max = 255))] u8),
    Word(Inherit),
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RawDscp {
    Word(Inherit),
    Fixed(#[schemars(range(max = 63))] u8),
}

#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum RawMtu {
    Word(Auto),
    Fixed(#[schemars(range(min = MIN_MTU, max = MAX_MTU))] u16),
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawEcn {
    /// The inner ECN field is copied to the outer header.
    Normal,
    /// The outer header is Not-ECT, for a peer that does not take ECN off properly.
    Compatibility,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Inherit {
    /// As in the inner header.
    Inherit,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Off {
    /// Nothing listens.
    Off,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Auto {
    /// What the underlay leaves after the outer header.
    Auto,
}

#[derive(Serialize)]
#[serde(transparent)]
struct RawAddress(Ipv4Addr);

impl JsonSchema for RawAddress {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!(r"^({OCTET}\.){{3}}{OCTET}$");
        json_schema!({ "type": "string", "description": "An IPv4 address.", "pattern": pattern })
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct RawUnderlay(String);

impl JsonSchema for RawUnderlay {
    fn schema_name() -> Cow<'static, str> {
        "Underlay".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A name has something in it that no address has.
        let pattern = format!(r"^(({OCTET}\.){{3}}{OCTET}|[0-9.]*[!-$&--;-~]{DEVICE}*)$");
        json_schema!({
            "type": "string",
            "description": "An IPv4 address, or the name of an interface.",
            "pattern": pattern,
            "maxLength": 15,
        })
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct RawListen(SocketAddr);

impl JsonSchema for RawListen {
    fn schema_name() -> Cow<'static, str> {
        "Listen".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!(r"^(({OCTET}\.){{3}}{OCTET}|\[[0-9a-fA-F:.]+\]):[1-9][0-9]{{0,4}}$");
        json_schema!({
            "type": "string",
            "description": "An address and a port, such as 127.0.0.1:9150 or [::1]:9150.",
            "pattern": pattern,
        })
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct RawPrefix(Ipv4Net);

impl JsonSchema for RawPrefix {
    fn schema_name() -> Cow<'static, str> {
        "Prefix".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = format!(r"^({OCTET}\.){{3}}{OCTET}/(3[0-2]|[12]?[0-9])$");
        json_schema!({
            "type": "string",
            "description": "An IPv4 prefix without host bits, such as 172.16.17.0/24.",
            "pattern": pattern,
        })
    }
}

impl Default for RawMetrics {
    fn default() -> Self {
        None.into()
    }
}

impl From<Option<SocketAddr>> for RawMetrics {
    fn from(metrics: Option<SocketAddr>) -> Self {
        metrics.map_or(Self::Word(Off::Off), |address| Self::At(RawListen(address)))
    }
}

fn default_off() -> String {
    OFF.to_owned()
}

fn default_device() -> String {
    DeviceName::default().to_string()
}

impl Default for RawTunnel {
    fn default() -> Self {
        Self::from(&TunnelOptions::default())
    }
}

impl From<&TunnelOptions> for RawTunnel {
    fn from(options: &TunnelOptions) -> Self {
        Self {
            ttl: match options.ttl {
                Ttl::Fixed(ttl) => RawTtl::Fixed(ttl),
                Ttl::Inherit => RawTtl::Word(Inherit::Inherit),
            },
            dscp: match options.dscp {
                DscpChoice::Inherit => RawDscp::Word(Inherit::Inherit),
                DscpChoice::Fixed(dscp) => RawDscp::Fixed(dscp),
            },
            ecn: match options.ecn {
                EcnChoice::Normal => RawEcn::Normal,
                EcnChoice::Compatibility => RawEcn::Compatibility,
            },
            mtu: match options.mtu {
                Mtu::Auto => RawMtu::Word(Auto::Auto),
                Mtu::Fixed(mtu) => RawMtu::Fixed(mtu),
            },
            df: options.df,
            mss_clamp: options.mss_clamp,
            probe: options.probe,
        }
    }
}

impl From<&SiteConfig> for RawSite {
    fn from(site: &SiteConfig) -> Self {
        Self {
            name: site.name.to_string(),
            underlay: RawUnderlay(site.underlay.to_string()),
            networks: site.networks.iter().copied().map(RawPrefix).collect(),
            device: site.device.to_string(),
            dataplane: match site.dataplane {
                DataplaneChoice::Auto => RawDataplane::Auto,
                DataplaneChoice::Ebpf => RawDataplane::Ebpf,
                DataplaneChoice::Userspace => RawDataplane::Userspace,
                DataplaneChoice::Kernel => RawDataplane::Kernel,
            },
            netns: site.netns.as_ref().map_or_else(default_off, ToString::to_string),
            vrf: site.vrf.as_ref().map_or_else(default_off, ToString::to_string),
            metrics: site.metrics.into(),
        }
    }
}

impl From<&Peer> for RawPeer {
    fn from(peer: &Peer) -> Self {
        Self {
            name: peer.name.to_string(),
            underlay: RawAddress(peer.underlay),
            networks: peer.networks.iter().copied().map(RawPrefix).collect(),
        }
    }
}

impl Config {
    /// The configuration as a file with every key written out. [`Config::parse`] reads the same
    /// configuration from it, provided that it is valid: one that was put together by hand, with
    /// a TTL of 0 or a network with host bits, becomes a file with those mistakes.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let file = RawFile {
            site: RawSite::from(&self.site),
            tunnel: RawTunnel::from(&self.site.tunnel),
            peer: self.peers.iter().map(|peer| RawPeer::from(&**peer)).collect(),
        };
        toml::to_string(&file).expect("tables of strings, small numbers and lists are TOML")
    }
}

impl SiteConfig {
    /// The sections `[site]` and `[tunnel]` of a file, with every key written out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let (site, tunnel) = (RawSite::from(self), RawTunnel::from(&self.tunnel));
        let file = RawFile { site, tunnel, peer: Vec::new() };
        toml::to_string(&file).expect("tables of strings, small numbers and lists are TOML")
    }
}

/// The JSON Schema (draft 2020-12) of a configuration file, for editors that check TOML by one.
/// It is committed as `docs/reference/adit.schema.json`.
///
/// It says what a single value may be; what only shows when values are held against each other,
/// such as overlaps, [`Config::parse`] alone finds.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(RawFile).to_value()
}
