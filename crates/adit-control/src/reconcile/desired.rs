//! What a configuration means for the kernel: the devices and the routes an overlay is made of.
//! Pure: it reads no file and asks no kernel.

use std::hash::RandomState;
use std::net::Ipv4Addr;

use adit_config::{Config, DataplaneChoice, DscpChoice, EcnChoice, Mtu, SiteConfig, Ttl};
use adit_dataplane::kernel::Filter;
use adit_linux::netlink::Ipip;
use adit_tunnel::{ProbeOptions, TunnelConfig};
use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OVERHEAD_V4, OuterPolicy, TtlPolicy};
use ipnet::Ipv4Net;

use crate::reconcile::devices;

/// What a machine has that an overlay is made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Our address on the underlay.
    pub underlay: Ipv4Addr,
    /// All addresses that it has inside, and that one.
    pub local: Vec<Ipv4Addr>,
    /// The largest datagram that its underlay carries, in bytes.
    pub underlay_mtu: u16,
    /// The VRF that the file names.
    pub vrf: Option<Vrf>,
}

/// A VRF: an interface, and a table of routes for what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// The table.
    pub table: u32,
}

/// The kernel objects of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The tunnel's interface, as the file names it.
    pub device: String,
    /// The interfaces that the tunnel is made of: one, unless Linux's driver has one for each peer.
    pub devices: Vec<DesiredDevice>,
    /// Our address on the underlay, which nobody but the data plane has to do with.
    pub underlay: Ipv4Addr,
    /// The network namespace that all of it is in, if not where the underlay is.
    pub netns: Option<String>,
    /// The VRF that it is in.
    pub vrf: Option<Vrf>,
    /// MTU of the interfaces: what the inside may send in one datagram.
    pub mtu: u16,
    /// What is routed into them.
    pub routes: Vec<DesiredRoute>,
    /// Who may send what, where the driver does not know it.
    pub filter: Option<Filter>,
}

/// An interface of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredDevice {
    /// Its name; an interface that is there under another keeps that.
    pub name: String,
    /// What marks it as ours, and as this site's.
    pub alias: String,
    /// How it tunnels, if Linux's driver does; `None`: a TUN device.
    pub ipip: Option<Ipip>,
}

/// A route into the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredRoute {
    /// Where it leads.
    pub network: Ipv4Net,
    /// The peer behind which that is.
    pub peer: String,
    /// By which of the devices, by its place.
    pub device: usize,
    /// On a site with several peers, the peer's underlay address. As a gateway it tells the kernel that a
    /// packet which goes out by the device it came in by, on a hub, is to be forwarded, and no host to be
    /// redirected.
    pub via: Option<Ipv4Addr>,
    /// Our address that datagrams of the gateway itself shall carry, so that the peer takes them:
    /// one inside `site.networks`.
    pub preferred_source: Option<Ipv4Addr>,
}

/// What marks a device as an overlay's.
#[must_use]
pub fn alias(site: &str) -> String {
    format!("adit:{site}")
}

impl Desired {
    /// What `config` asks of a machine.
    #[must_use]
    pub fn of(config: &Config, machine: &Machine) -> Self {
        let site = &config.site;
        let preferred_source = inside_address(site, &machine.local);
        let mtu = match config.site.tunnel.mtu {
            Mtu::Fixed(mtu) => mtu,
            Mtu::Auto => machine.underlay_mtu.saturating_sub(OVERHEAD_V4 as u16).max(68),
        };
        let devices = devices::of(config, machine.underlay);
        // A packet never leaves by an interface of its own that it came in by.
        let has_one_each = devices.len() > 1;
        let is_shared = devices.iter().any(|device| device.ipip.is_some_and(|ipip| ipip.remote.is_none()));
        let names_peers = is_shared || config.peers.len() > 1 && !has_one_each;
        let routes = config
            .peers
            .iter()
            .enumerate()
            .flat_map(|(place, peer)| peer.networks.iter().map(move |network| (place, peer, *network)))
            .map(|(place, peer, network)| DesiredRoute {
                network,
                peer: peer.name.to_string(),
                device: if has_one_each { place } else { 0 },
                via: names_peers.then_some(peer.underlay),
                preferred_source,
            })
            .collect();
        let filter = is_drivers(config).then(|| Filter {
            site: site.name.to_string(),
            underlay: Some(machine.underlay),
            networks: site.networks.clone(),
            local: machine.local.clone(),
            peers: config.peers.iter().map(|peer| (peer.underlay, peer.networks.clone())).collect(),
            devices: devices.iter().map(|device| device.name.clone()).collect(),
            takes_all: is_shared,
            others: Vec::new(),
            mss_clamp: config.site.tunnel.mss_clamp,
        });
        Self {
            device: site.device.to_string(),
            devices,
            underlay: machine.underlay,
            netns: site.netns.as_ref().map(ToString::to_string),
            vrf: machine.vrf.clone(),
            mtu,
            routes,
            filter,
        }
    }

    /// Whether Linux's own driver carries the packets.
    #[must_use]
    pub fn is_drivers(&self) -> bool {
        self.filter.is_some()
    }
}

pub(crate) fn is_drivers(config: &Config) -> bool {
    config.site.dataplane == DataplaneChoice::Kernel
}

/// The tunnel that `config` asks for on a machine.
#[must_use]
pub fn tunnel_config(config: &Config, machine: &Machine) -> TunnelConfig {
    let options = &config.site.tunnel;
    TunnelConfig {
        underlay: machine.underlay,
        peers: config.peers.clone(),
        outer: OuterPolicy {
            ttl: match options.ttl {
                Ttl::Fixed(ttl) => TtlPolicy::Fixed(ttl),
                Ttl::Inherit => TtlPolicy::Inherit,
            },
            dscp: match options.dscp {
                DscpChoice::Inherit => DscpPolicy::Inherit,
                DscpChoice::Fixed(value) => DscpPolicy::Fixed(Dscp::new(value).unwrap_or(Dscp::DEFAULT)),
            },
            ecn: match options.ecn {
                EcnChoice::Normal => EcnMode::Normal,
                EcnChoice::Compatibility => EcnMode::Compatibility,
            },
            df: options.df,
        },
        mss_clamp: options.mss_clamp,
        underlay_mtu: machine.underlay_mtu,
        local_addresses: machine.local.clone(),
        // Linux's driver asks nobody.
        probe: inside_address(&config.site, &machine.local)
            .filter(|_| options.probe && options.df && !is_drivers(config))
            .map(|source| ProbeOptions { source, secret: RandomState::new() }),
    }
}

/// Our address inside our own networks, if we have one: what the gateway itself sends comes from there.
fn inside_address(site: &SiteConfig, local: &[Ipv4Addr]) -> Option<Ipv4Addr> {
    let is_inside = |address: &Ipv4Addr| site.networks.iter().any(|network| network.contains(address));
    local.iter().copied().find(is_inside)
}
