//! The desired state of the kernel: the interfaces, the routes and the packet filter that a
//! configuration asks for on a machine. Pure: it reads no file and asks no kernel.

use std::collections::HashSet;
use std::hash::RandomState;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_config::{Config, DscpChoice, EcnChoice, Mtu, Peer, SiteConfig, Ttl, UnderlayAddresses};
use adit_dataplane::UnderlaySources;
use adit_dataplane::kernel::Filter;
use adit_linux::netlink::{Link, MAIN_TABLE};
use adit_tunnel::{HostFacts, ProbeOptions, Relay, Tunnel, TunnelConfig};
use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy, overhead};
use adit_wire::ipv6;
use ipnet::IpNet;

use crate::reconcile::devices::{self, DesiredDevice, HiddenEnd, has_alias_of, uses_kernel_plane};

/// The smallest MTU of an interface that carries IPv4, in bytes (RFC 791).
const MIN_MTU: u16 = 68;

/// The facts of a machine that a desired state depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Our addresses on the underlay.
    pub underlay: UnderlayAddresses,
    /// All addresses of the inner side that are not link-local ones of IPv6, and our underlay
    /// addresses.
    pub local: Vec<IpAddr>,
    /// The largest datagram that its underlay carries, in bytes.
    pub underlay_mtu: u16,
    /// The VRF of `site.vrf`.
    pub vrf: Option<Vrf>,
}

/// A VRF: an interface, and a routing table for the interfaces attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// Its name.
    pub name: String,
    /// Its interface index.
    pub index: u32,
    /// Its routing table.
    pub table: u32,
}

/// The kernel objects of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The tunnel interface, as the file names it.
    pub device: String,
    /// The interfaces of the tunnel: one, unless Linux's tunnel drivers have one for each peer.
    pub devices: Vec<DesiredDevice>,
    /// The hidden end of the tunnel interface, in the namespace of the underlay. Linux's
    /// tunnel drivers have none.
    pub hidden: Option<HiddenEnd>,
    /// Our addresses on the underlay.
    pub underlay: UnderlayAddresses,
    /// The firewall mark of what is sent to peers; 0 is none.
    pub mark: u32,
    /// The network namespace of interfaces and routes; `None`: that of the underlay.
    pub netns: Option<String>,
    /// The VRF of interfaces and routes.
    pub vrf: Option<Vrf>,
    /// Whether the tunnel interface has IPv6, since a network of either side is one of IPv6.
    pub ipv6: bool,
    /// MTU of the interfaces, in bytes.
    pub mtu: u16,
    /// The routes into the interfaces.
    pub routes: Vec<DesiredRoute>,
    /// The metric of the guards behind those routes, which says whose they are.
    pub guard_metric: u32,
    /// How those routes are made.
    pub(crate) routing: Routing,
    /// The packet filter of the kernel plane; the other planes check packets themselves.
    pub filter: Option<Filter>,
}

/// A route into the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredRoute {
    /// Its destination.
    pub network: IpNet,
    /// The peer that owns the network.
    pub peer: String,
    /// The position of its interface in [`Desired::devices`].
    pub device: usize,
    /// The gateway, unless the interface is that of one peer only. It tells the kernel that a
    /// packet which leaves by the interface it came in by, on a hub, is to be forwarded, and no
    /// host to be redirected. And it is the only neighbour of a veth, instead of every destination.
    pub via: Option<IpAddr>,
    /// The source address of what the gateway itself sends: one of `site.networks`, because the
    /// peer accepts no other. `None`: no address of this machine lies there at present.
    pub preferred_source: Option<IpAddr>,
}

/// How a site makes its routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Routing {
    /// Our addresses on the underlay, which say by which address a peer is reached.
    pub(crate) underlay: UnderlayAddresses,
    pub(crate) gateways: Gateways,
    pub(crate) preferred_sources: PreferredSources,
}

/// The source of what the gateway itself sends, for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PreferredSources {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl PreferredSources {
    /// Returns the first of our addresses of each family that lies in our own networks.
    fn of(site: &SiteConfig, local: &[IpAddr]) -> Self {
        let is_inner = |address: &&IpAddr| site.networks.iter().any(|network| network.contains(*address));
        let mut found = Self::default();
        for address in local.iter().filter(is_inner) {
            match *address {
                IpAddr::V4(address) => found.v4 = found.v4.or(Some(address)),
                IpAddr::V6(address) => found.v6 = found.v6.or(Some(address)),
            }
        }
        found
    }

    fn towards(self, network: IpNet) -> Option<IpAddr> {
        match network {
            IpNet::V4(_) => self.v4.map(IpAddr::from),
            IpNet::V6(_) => self.v6.map(IpAddr::from),
        }
    }
}

/// Which gateway the routes to a peer name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gateways {
    /// None for IPv4. For IPv6 a link-local address as of [`Gateways::PeerAddress`]: without one
    /// the kernel keeps a neighbour for each destination, and has no more than 1024 by default.
    Unnamed,
    /// The peer's underlay address.
    PeerAddress,
    /// [`PLACEHOLDER_GATEWAY`], for every peer.
    Placeholder,
}

/// The most gateways that the routes of a tunnel interface name. The kernel compares a new route
/// with all routes of the interface, one after another, except with those of the same gateway: with
/// 10,000 gateways that takes two seconds.
const MAX_GATEWAYS: usize = 256;
/// The gateway that stands for every peer: the dummy address of RFC 7600. It only matters that
/// there is a gateway, see [`DesiredRoute::via`].
const PLACEHOLDER_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// The smallest metric of a guard. FRR reads the upper byte of a kernel route's metric as an
/// administrative distance, and 255 is the worst.
pub(crate) const MIN_GUARD_METRIC: u32 = 0xff00_0000;

/// Returns the metric of the guards of a site: the name's FNV-1a hash, folded to 24 bits, and
/// [`MIN_GUARD_METRIC`].
pub(crate) fn guard_metric(site: &str) -> u32 {
    let hash = devices::hash(site.bytes());
    MIN_GUARD_METRIC | (hash >> 24) ^ (hash & !MIN_GUARD_METRIC)
}

impl Gateways {
    /// Returns the gateways that the routes of `config` into `devices` name.
    fn of(config: &Config, devices: &[DesiredDevice]) -> Self {
        if is_shared(devices) {
            // The driver sends to the gateway.
            return Self::PeerAddress;
        }
        // An interface of one peer only: packets never leave by the interface they came in by.
        if uses_kernel_plane(config) {
            return Self::Unnamed;
        }
        let routed = config.peers.iter().filter(|peer| !peer.networks.is_empty()).count();
        if routed > MAX_GATEWAYS { Self::Placeholder } else { Self::PeerAddress }
    }

    /// Returns the gateway of the route to a network of a peer. For one of IPv6 it is a link-local
    /// address: the one that RFC 4213 section 3.7 gives to a gateway with that IPv4 address, or the
    /// one that ends as the peer's address does. A network of IPv4 behind an underlay of IPv6 has
    /// the placeholder.
    fn towards(self, network: IpNet, underlay: IpAddr) -> Option<IpAddr> {
        let gateway = match self {
            Self::Unnamed if network.addr().is_ipv4() => return None,
            Self::Unnamed | Self::PeerAddress => underlay,
            Self::Placeholder => PLACEHOLDER_GATEWAY.into(),
        };
        let interface = match gateway {
            IpAddr::V4(gateway) => u64::from(gateway.to_bits()),
            IpAddr::V6(gateway) => gateway.to_bits() as u64,
        };
        Some(match (network, gateway) {
            (IpNet::V4(_), IpAddr::V4(gateway)) => gateway.into(),
            (IpNet::V4(_), IpAddr::V6(_)) => PLACEHOLDER_GATEWAY.into(),
            (IpNet::V6(_), _) => Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(interface)).into(),
        })
    }
}

impl Routing {
    /// Returns how `config` makes its routes on a machine with these addresses.
    fn of(config: &Config, devices: &[DesiredDevice], machine: &Machine) -> Self {
        let preferred_sources = PreferredSources::of(&config.site, &machine.local);
        Self { underlay: machine.underlay, gateways: Gateways::of(config, devices), preferred_sources }
    }

    /// Returns the routes to the networks of `peer` by the interface at position `device`.
    pub(crate) fn to_peer<'a>(
        self,
        peer: &'a Peer,
        device: usize,
    ) -> impl Iterator<Item = DesiredRoute> + use<'a> {
        let path = self.underlay.path_to(&peer.underlay);
        let destination = path.map_or(peer.underlay.first(), |path| path.destination);
        peer.networks.iter().map(move |network| DesiredRoute {
            network: *network,
            peer: peer.name.to_string(),
            device,
            via: self.gateways.towards(*network, destination),
            preferred_source: self.preferred_sources.towards(*network),
        })
    }
}

/// Returns true if all peers share one interface of Linux's tunnel drivers.
fn is_shared(devices: &[DesiredDevice]) -> bool {
    devices.iter().any(|device| device.tunnel.is_some_and(|tunnel| tunnel.remote.is_none()))
}

impl Desired {
    /// Returns what `config` asks for on a machine.
    #[must_use]
    pub fn of(config: &Config, machine: &Machine) -> Self {
        let site = &config.site;
        let devices = devices::of(config, machine.underlay);
        let routing = Routing::of(config, &devices, machine);
        let has_one_each = devices.len() > 1;
        let mut next = 0;
        let mut routes = Vec::new();
        for peer in &config.peers {
            routes.extend(routing.to_peer(peer, next));
            if has_one_each {
                next += machine.underlay.paths_to(&peer.underlay).count();
            }
        }
        let filter = uses_kernel_plane(config).then(|| filter(config, machine, &devices));
        Self {
            device: site.device.to_string(),
            devices,
            hidden: devices::hidden_end(config),
            underlay: machine.underlay,
            mark: site.fwmark,
            netns: site.netns.as_ref().map(ToString::to_string),
            vrf: machine.vrf.clone(),
            ipv6: config.peers.has_ipv6(),
            mtu: mtu_of(config, machine.underlay, machine.underlay_mtu),
            routes,
            guard_metric: guard_metric(site.name.as_str()),
            routing,
            filter,
        }
    }

    /// Returns the sources of what is sent to peers.
    pub(crate) fn sources(&self) -> UnderlaySources {
        UnderlaySources { addresses: self.underlay, mark: self.mark }
    }

    /// Returns the routing table of the overlay's routes.
    pub(crate) fn table(&self) -> u32 {
        self.vrf.as_ref().map_or(MAIN_TABLE, |vrf| vrf.table)
    }

    /// Derives what depends on the machine as it is now: the MTU of the interface; the source of
    /// the routes, which is a preference, since the kernel deletes a route together with the
    /// address of its source; and the packet filter. Returns true if that is another one now.
    pub(crate) fn follow(&mut self, config: &Config, machine: &Machine) -> bool {
        self.mtu = mtu_of(config, machine.underlay, machine.underlay_mtu);
        let sources = PreferredSources::of(&config.site, &machine.local);
        if sources != self.routing.preferred_sources {
            self.routing.preferred_sources = sources;
            for route in &mut self.routes {
                route.preferred_source = sources.towards(route.network);
            }
        }
        let Some(filter) = &mut self.filter else { return false };
        let before = std::mem::replace(&mut filter.local, machine.local.clone());
        before != filter.local
    }

    /// Returns how `config` makes its routes if nothing but peers has changed.
    pub(crate) fn routing_with_peers_of(&self, config: &Config) -> Routing {
        Routing { gateways: Gateways::of(config, &self.devices), ..self.routing }
    }

    /// Returns true if all peers share an interface that is to carry or to be carried by IPv6.
    pub(crate) fn shares_ipv6(&self) -> bool {
        let is_for_ipv6 =
            |device: &DesiredDevice| device.tunnel.is_some_and(|tunnel| tunnel.driver.carries_ipv6());
        // The interface of a site without peers carries nothing.
        is_shared(&self.devices) && self.devices.iter().any(is_for_ipv6) && !self.routes.is_empty()
    }

    /// Adapts the interfaces of Linux's tunnel drivers to those that exist: they keep their names,
    /// and no new one takes such a name. Foreign tunnels keep their peers.
    pub(crate) fn adapt_to(&mut self, site: &str, links: &[Link]) {
        let Some(filter) = &mut self.filter else { return };
        let is_ours = |link: &&Link| has_alias_of(link, site);
        let mut names: HashSet<String> = links.iter().filter(is_ours).map(|link| link.name.clone()).collect();
        let found = devices::find_tunnels(&self.devices, site, links, &[]);
        for (device, found) in self.devices.iter_mut().zip(found) {
            match found {
                Some(link) => device.name.clone_from(&link.name),
                None if names.contains(&device.name) => {
                    device.name = devices::free_name(&self.device, &device.alias, &mut names);
                }
                None => {
                    names.insert(device.name.clone());
                }
            }
        }
        filter.devices = self.devices.iter().map(|device| device.name.clone()).collect();
        let others = links.iter().filter(|link| !is_ours(link)).filter_map(|link| link.tunnel);
        filter.others = others.filter_map(|tunnel| tunnel.remote).collect();
        filter.others.sort_unstable();
    }
}

fn filter(config: &Config, machine: &Machine, devices: &[DesiredDevice]) -> Filter {
    Filter {
        site: config.site.name.to_string(),
        underlay: machine.underlay.iter().collect(),
        networks: config.site.networks.clone(),
        local: machine.local.clone(),
        reachable: config.site.local.iter().copied().map(IpAddr::from).collect(),
        peers: config
            .peers
            .iter()
            .flat_map(|peer| peer.underlay.iter().map(|address| (address, peer.networks.clone())))
            .collect(),
        relayed: relayed(config),
        devices: devices.iter().map(|device| device.name.clone()).collect(),
        takes_all: is_shared(devices),
        others: Vec::new(),
        mss_clamp: config.site.tunnel.mss_clamp,
    }
}

/// Returns the underlay addresses of the peers that reach each other, for each direction; `None`:
/// all do.
fn relayed(config: &Config) -> Option<Vec<(IpAddr, IpAddr)>> {
    let pairs = match &config.site.tunnel.relay {
        Relay::Auto | Relay::Direct => return None,
        Relay::Off => return Some(Vec::new()),
        Relay::Pairs(pairs) => pairs,
    };
    let of = |name| config.peers.get(name).into_iter().flat_map(|peer| peer.underlay.iter());
    let pairs = pairs.iter().flat_map(|[one, other]| {
        of(one).flat_map(move |one| of(other).flat_map(move |other| [(one, other), (other, one)]))
    });
    Some(pairs.collect())
}

/// Returns the MTU of the tunnel interface, in bytes. The kernel takes IPv6 off an interface whose
/// MTU is below the smallest that IPv6 knows; the tunnel fragments what the path does not carry.
pub(crate) fn mtu_of(config: &Config, underlay: UnderlayAddresses, underlay_mtu: u16) -> u16 {
    let overhead = largest_overhead(config, underlay);
    let smallest = if config.peers.has_ipv6() { ipv6::MIN_MTU } else { MIN_MTU };
    match config.site.tunnel.mtu {
        Mtu::Fixed(mtu) => mtu,
        Mtu::Auto => underlay_mtu.saturating_sub(overhead as u16).max(smallest),
    }
}

/// Returns the bytes that encapsulation adds to a packet to any peer, at most: on each path that
/// there is, so that a switch of paths leaves the MTU of the tunnel interface as it is.
pub(crate) fn largest_overhead(config: &Config, underlay: UnderlayAddresses) -> usize {
    let destinations = config.peers.iter().flat_map(|peer| peer.underlay.iter());
    let reached = destinations.filter(|destination| underlay.of_family_of(*destination).is_some());
    reached.map(overhead).max().unwrap_or(overhead(underlay.first()))
}

/// Returns what a tunnel has to know of a machine, without the other overlays. Its probes keep
/// their key, so that those which are under way can be answered.
pub(crate) fn host_facts(config: &Config, machine: &Machine, tunnel: &Tunnel) -> HostFacts {
    let mut probe = probe_options(config, machine);
    if let (Some(probe), Some(before)) = (&mut probe, &tunnel.config().probe) {
        probe.secret = before.secret.clone();
    }
    HostFacts { local_addresses: machine.local.clone(), probe, other_networks: Vec::new() }
}

/// Returns the tunnel that `config` asks for on a machine.
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
        relay: options.relay.clone(),
        mtu_floor: options.mtu_floor,
        underlay_mtu: machine.underlay_mtu,
        local_addresses: machine.local.clone(),
        reachable_addresses: config.site.local.clone(),
        probe: probe_options(config, machine),
    }
}

/// Returns how `config` asks for probes on a machine, with a new key; `None`: not at all.
fn probe_options(config: &Config, machine: &Machine) -> Option<ProbeOptions> {
    let preferred = PreferredSources::of(&config.site, &machine.local);
    let of_family_of = |address| match address {
        IpAddr::V4(_) => preferred.v4.map(IpAddr::from),
        IpAddr::V6(_) => preferred.v6.map(IpAddr::from),
    };
    let sources: Vec<IpAddr> = machine.underlay.iter().filter_map(of_family_of).collect();
    let is_wanted = wants_probes(config) && !sources.is_empty();
    let keepalive = config.site.tunnel.keepalive;
    is_wanted.then(|| ProbeOptions { sources, secret: RandomState::new(), keepalive })
}

/// Returns true if `config` asks for path probes. Linux's tunnel drivers send none.
pub(crate) fn wants_probes(config: &Config) -> bool {
    config.site.tunnel.probe && config.site.tunnel.df && !uses_kernel_plane(config)
}
