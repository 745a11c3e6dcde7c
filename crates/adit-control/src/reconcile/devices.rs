//! The interfaces a tunnel is made of, and their names. Pure.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use adit_config::{Config, DataplaneChoice, DscpChoice, Ttl, UnderlayAddresses};
use adit_linux::netlink::{INHERIT_TOS, IpTunnel, Link, TunnelDriver};
use ipnet::IpNet;

/// Up to this many peers each have an interface of Linux's tunnel drivers of their own, which can
/// be watched, captured on and limited separately. Above it, all peers share one, and the routes
/// name the peer as their gateway. An interface costs the kernel some 40 KB, and milliseconds to
/// create and to delete; a route of the shared one costs 1 KB. The cost of a datagram is the same
/// (docs/benchmarks.md).
pub use adit_config::OWN_DEVICES;

/// The longest name of an interface, in bytes.
const MAX_NAME: usize = 15;

/// An interface of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredDevice {
    /// Its name. An interface that exists under another name keeps that.
    pub name: String,
    /// The alias that marks it as ours, and as this site's.
    pub alias: String,
    /// Driver, endpoints and options of one of Linux's tunnel drivers; `None`: the visible end of a
    /// veth pair.
    pub tunnel: Option<IpTunnel>,
    /// Whether it has IPv6, since a network of IPv6 is reached through it.
    pub ipv6: bool,
}

/// The link-layer address of the visible end of every veth pair: the tunnel interface. It is local
/// to the pair, and files of network managers name it to leave our interfaces alone.
pub const VISIBLE_MAC: [u8; 6] = [0x02, 0xad, 0x17, 0x00, 0x00, 0x01];
/// The link-layer address of the hidden end.
pub const HIDDEN_MAC: [u8; 6] = [0x02, 0xad, 0x17, 0x00, 0x00, 0x02];
/// The MTU of the hidden end, in bytes: a decapsulated datagram may have any size.
pub const HIDDEN_MTU: u32 = 65_535;

/// The hidden end of the tunnel interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HiddenEnd {
    /// Its name. One that exists under another name keeps that.
    pub name: String,
    /// The alias that marks it as ours.
    pub alias: String,
}

impl HiddenEnd {
    pub(crate) fn of(site: &str, device: &str) -> Self {
        const SUFFIX: &str = "-h";
        let own = format!("{device}{SUFFIX}");
        // Of the whole name: two long devices may begin with the same letters.
        let name = if own.len() <= MAX_NAME { own } else { short_name(device, &own, 0) };
        Self { name, alias: hidden_alias(site) }
    }

    /// Returns true if `link` is what a start creates first: it is still down and has no alias.
    pub(crate) fn is_half_made(&self, link: &Link) -> bool {
        let is_ours = link.name == self.name && is_veth(link) && link.mac == Some(HIDDEN_MAC);
        link.alias.is_none() && !link.up && is_ours
    }
}

/// Returns the alias that marks an interface as a site's.
#[must_use]
pub fn alias(site: &str) -> String {
    format!("adit:{site}")
}

/// Returns the alias that marks an interface as that of one peer.
#[must_use]
pub fn alias_of_peer(site: &str, peer: &str) -> String {
    format!("{}:{peer}", alias(site))
}

/// Returns the alias that marks the hidden end of a site's tunnel interface. No peer has such a
/// name.
pub(crate) fn hidden_alias(site: &str) -> String {
    alias_of_peer(site, ":hidden")
}

/// Returns true if an interface with the alias `found` is the site's.
#[must_use]
pub fn is_of_site(found: &str, site: &str) -> bool {
    let rest = found.strip_prefix(&alias(site));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Returns the site whose interface has this alias; `None`: it is no interface of ours.
pub(crate) fn site_of(alias: &str) -> Option<&str> {
    alias.strip_prefix("adit:")?.split(':').next()
}

/// Returns true if the interface has an alias of the site.
pub(crate) fn has_alias_of(link: &Link, site: &str) -> bool {
    link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site))
}

/// Returns true if `link` is what a start creates first, still down and without an alias: an
/// interface with the driver, endpoints and options of `device`, or a veth with our link-layer
/// address.
pub(crate) fn is_half_made(link: &Link, device: &DesiredDevice) -> bool {
    let is_ours = match &device.tunnel {
        Some(_) => link.tunnel == device.tunnel,
        None => is_veth(link) && link.mac == Some(VISIBLE_MAC),
    };
    link.alias.is_none() && !link.up && is_ours
}

/// Returns true if the interface is an end of a veth pair.
pub(crate) fn is_veth(link: &Link) -> bool {
    link.kind.as_deref() == Some("veth")
}

/// Returns the name of a setting for IPv6 of an interface, below `/proc/sys`.
pub(crate) fn ipv6_setting(interface: &str, name: &str) -> String {
    format!("net/ipv6/conf/{interface}/{name}")
}

/// Returns the settings that turn IPv6 on or off on an interface, in order. A tunnel has no
/// link-local address, so the kernel asks it for no routers, and what a peer advertises is not
/// believed. It is off first, which removes an address that the kernel has made already.
///
/// `forwarding` of an interface does not forward: it only makes the kernel join the groups of
/// routers and report that. The older version of such reports keeps none back for later.
pub(crate) fn ipv6_settings(interface: &str, is_on: bool) -> Vec<(String, &'static str)> {
    /// `IN6_ADDR_GEN_MODE_NONE`.
    const NO_ADDRESS: &str = "1";
    let values: &[(&str, &str)] = match is_on {
        true => &[
            ("disable_ipv6", "1"),
            ("addr_gen_mode", NO_ADDRESS),
            ("accept_ra", "0"),
            ("accept_redirects", "0"),
            ("force_mld_version", "1"),
            ("forwarding", "0"),
            ("disable_ipv6", "0"),
        ],
        false => &[("disable_ipv6", "1")],
    };
    values.iter().map(|(name, value)| (ipv6_setting(interface, name), *value)).collect()
}

/// Returns true if the interface resolves no neighbours.
pub(crate) fn is_no_arp(link: &Link) -> bool {
    const IFF_NOARP: u32 = 0x80;
    link.flags & IFF_NOARP != 0
}

/// Returns the hidden end that `config` asks for; Linux's tunnel drivers have none.
pub(crate) fn hidden_end(config: &Config) -> Option<HiddenEnd> {
    let site = config.site.name.as_str();
    (!uses_kernel_plane(config)).then(|| HiddenEnd::of(site, config.site.device.as_str()))
}

/// Returns true if the configuration chooses Linux's tunnel drivers.
pub(crate) fn uses_kernel_plane(config: &Config) -> bool {
    config.site.dataplane == DataplaneChoice::Kernel
}

/// Returns the interfaces that `config` asks for, in the order of the peers if each has its own. A
/// peer then has one for each path, the path in use first: what arrives on another is accepted too.
pub(crate) fn of(config: &Config, underlay: UnderlayAddresses) -> Vec<DesiredDevice> {
    let site = config.site.name.as_str();
    let device = config.site.device.to_string();
    if !uses_kernel_plane(config) {
        let ipv6 = config.peers.has_ipv6();
        return vec![DesiredDevice { name: device, alias: alias(site), tunnel: None, ipv6 }];
    }
    let has_own = (1..=OWN_DEVICES).contains(&config.peers.len());
    if !has_own {
        // No peers yet, or many.
        let networks = || config.peers.iter().flat_map(|peer| &peer.networks);
        let local = underlay.iter().find(IpAddr::is_ipv4).unwrap_or(underlay.first());
        return vec![of_tunnel(config, device, alias(site), (local, None), networks)];
    }
    let mut names = HashSet::from([device.clone()]);
    let mut devices = Vec::new();
    for peer in &config.peers {
        for (place, path) in underlay.paths_to(&peer.underlay).enumerate() {
            let family = if path.destination.is_ipv6() { "v6" } else { "v4" };
            let name = match (config.peers.len(), place) {
                (1, 0) => device.clone(),
                (1, _) => free_name(&device, family, &mut names),
                (_, 0) => free_name(&device, peer.name.as_str(), &mut names),
                _ => free_name(&device, &format!("{}-{family}", peer.name), &mut names),
            };
            let alias = alias_of_peer(site, peer.name.as_str());
            let ends = (path.source, Some(path.destination));
            devices.push(of_tunnel(config, name, alias, ends, || peer.networks.iter()));
        }
    }
    devices
}

/// Returns the driver that carries packets for these networks in a header of the family of `local`.
/// For IPv4 in IPv4 it is the driver for nothing else, so IPv6 changes nothing there.
pub(crate) fn driver<'n>(local: IpAddr, networks: impl IntoIterator<Item = &'n IpNet>) -> TunnelDriver {
    match local {
        IpAddr::V6(_) => TunnelDriver::Ip6tnl,
        IpAddr::V4(_) if has_ipv6(networks) => TunnelDriver::Sit,
        IpAddr::V4(_) => TunnelDriver::Ipip,
    }
}

fn has_ipv6<'n>(networks: impl IntoIterator<Item = &'n IpNet>) -> bool {
    networks.into_iter().any(|network| network.addr().is_ipv6())
}

/// Returns an interface of Linux's tunnel drivers between two ends, to these networks.
fn of_tunnel<'n, I: IntoIterator<Item = &'n IpNet>>(
    config: &Config,
    name: String,
    alias: String,
    (local, remote): (IpAddr, Option<IpAddr>),
    networks: impl Fn() -> I,
) -> DesiredDevice {
    let options = &config.site.tunnel;
    let driver = driver(local, networks());
    let tunnel = IpTunnel {
        ttl: match options.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::Inherit => 0,
        },
        tos: match options.dscp {
            DscpChoice::Inherit => INHERIT_TOS,
            DscpChoice::Fixed(dscp) => dscp << 2,
        },
        // An outer header of IPv6 has no such bit.
        path_mtu_discovery: options.df || driver == TunnelDriver::Ip6tnl,
        mark: config.site.fwmark,
        ..IpTunnel::between(driver, local, remote)
    };
    DesiredDevice { name, alias, tunnel: Some(tunnel), ipv6: has_ipv6(networks()) }
}

/// Finds the interface of each of the `devices` of Linux's tunnel drivers among `links`: first by
/// its two endpoints, which no two interfaces of a driver share, then by its alias. `known` are the
/// indices of those that are ours whatever their alias is. An interface of another driver is
/// another interface, because the driver cannot be changed.
pub(crate) fn find_tunnels<'a>(
    devices: &[DesiredDevice],
    site: &str,
    links: &'a [Link],
    known: &[u32],
) -> Vec<Option<&'a Link>> {
    let is_ours =
        |link: &&Link| link.tunnel.is_some() && (known.contains(&link.index) || has_alias_of(link, site));
    let ours: Vec<&Link> = links.iter().filter(is_ours).collect();
    let endpoints =
        |tunnel: Option<IpTunnel>| tunnel.map(|tunnel| (tunnel.driver, tunnel.local, tunnel.remote));
    let driver = |tunnel: Option<IpTunnel>| tunnel.map(|tunnel| tunnel.driver);
    let by_endpoints: HashMap<_, &Link> = ours.iter().map(|link| (endpoints(link.tunnel), *link)).collect();
    let mut found: Vec<Option<&Link>> =
        devices.iter().map(|device| by_endpoints.get(&endpoints(device.tunnel)).copied()).collect();
    let taken: HashSet<u32> = found.iter().flatten().map(|link| link.index).collect();
    let by_alias: HashMap<_, &Link> = ours
        .iter()
        .filter(|link| !taken.contains(&link.index))
        .filter_map(|link| Some(((link.alias.as_deref()?, driver(link.tunnel)), *link)))
        .collect();
    for (device, found) in devices.iter().zip(&mut found) {
        *found = found.or_else(|| by_alias.get(&(device.alias.as_str(), driver(device.tunnel))).copied());
    }
    found
}

/// Returns a name for the interface of a peer that is not `taken`, and takes it. It is the same
/// each time: the peer's name if there is room, and a hash of it otherwise.
pub(super) fn free_name(device: &str, peer: &str, taken: &mut HashSet<String>) -> String {
    let own = format!("{device}-{peer}");
    let is_name = own.len() <= MAX_NAME && !own.contains(':');
    let mut name = if is_name { own } else { short_name(device, peer, 0) };
    let mut number = 0;
    while !taken.insert(name.clone()) {
        number += 1;
        name = short_name(device, peer, number);
    }
    name
}

fn short_name(device: &str, peer: &str, number: u32) -> String {
    const PREFIX_LEN: usize = 6;
    let prefix: String = device.chars().take(PREFIX_LEN).collect();
    format!("{prefix}-{:08x}", hash(peer.bytes().chain(number.to_be_bytes())))
}

/// FNV-1a, which is the same in every version of Adit.
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::{Desired, Machine};

    const US: [u8; 4] = [10, 1, 1, 1];

    fn config(peers: usize) -> Config {
        let mut text = "[site]\nname = \"a\"\nunderlay = \"10.1.1.1\"\nnetworks = [\"172.16.17.0/24\"]\ndevice = \"ipipA\"\n\
                        dataplane = \"kernel\"\n"
            .to_owned();
        for n in 0..peers {
            let (high, low) = (n / 256, n % 256);
            text += &format!(
                "[[peer]]\nname = \"p{n}\"\nunderlay = \"10.2.{high}.{low}\"\nnetworks = [\"10.{}.{low}.0/24\"]\n",
                3 + high
            );
        }
        Config::parse("a.toml", &text).expect("it is valid")
    }

    fn desired(peers: usize) -> Desired {
        Desired::of(
            &config(peers),
            &Machine { underlay: US.into(), local: Vec::new(), underlay_mtu: 1500, vrf: None },
        )
    }

    fn names(desired: &Desired) -> Vec<&str> {
        desired.devices.iter().map(|device| device.name.as_str()).collect()
    }

    fn link(name: &str, alias: &str, tunnel: Option<IpTunnel>) -> Link {
        let kind = tunnel.map(|tunnel| tunnel.driver.kind().to_owned());
        Link {
            index: 7,
            name: name.to_owned(),
            mtu: 1480,
            up: true,
            running: true,
            mac: None,
            alias: Some(alias.to_owned()),
            kind,
            master: None,
            lower: None,
            is_lower_elsewhere: false,
            vrf_table: None,
            tunnel,
            hardware: adit_linux::netlink::LinkLayer::None,
            flags: 0,
        }
    }

    #[test]
    fn one_peer_uses_the_device_of_the_file_a_few_have_their_own_and_many_share_one() {
        assert_eq!(names(&desired(1)), ["ipipA"]);
        assert_eq!(names(&desired(3)), ["ipipA-p0", "ipipA-p1", "ipipA-p2"]);
        assert_eq!(desired(OWN_DEVICES).devices.len(), OWN_DEVICES);
        for shared in [desired(0), desired(OWN_DEVICES + 1)] {
            assert_eq!(names(&shared), ["ipipA"]);
            assert_eq!(shared.devices[0].tunnel.and_then(|tunnel| tunnel.remote), None);
            assert!(shared.routes.iter().all(|route| route.device == 0 && route.via.is_some()));
        }
        let own = desired(3);
        let places: Vec<(usize, bool)> =
            own.routes.iter().map(|route| (route.device, route.via.is_some())).collect();
        assert_eq!(places, [(0, false), (1, false), (2, false)]);
    }

    #[test]
    fn an_existing_interface_keeps_its_name_and_no_other_takes_it() {
        let ipip = desired(1).devices[0].tunnel;
        let mut more = desired(2);
        more.adapt_to("a", &[link("ipipA", "adit:a:p0", ipip)]);
        assert_eq!(names(&more), ["ipipA", "ipipA-p1"]);
        // Above the limit, the old interfaces still exist.
        let mut many = desired(OWN_DEVICES + 1);
        many.adapt_to("a", &[link("ipipA", "adit:a:p0", ipip)]);
        assert_eq!(many.devices.len(), 1);
        assert_ne!(names(&many), ["ipipA"]);
        assert!(names(&many)[0].len() <= MAX_NAME);
        assert_eq!(many.filter.map(|filter| filter.devices), Some(vec![many.devices[0].name.clone()]));
    }

    #[test]
    fn foreign_tunnels_keep_their_peers() {
        let theirs = IpTunnel {
            remote: Some([10, 9, 9, 9].into()),
            ..desired(1).devices[0].tunnel.expect("it is ipip")
        };
        let mut many = desired(OWN_DEVICES + 1);
        many.adapt_to("a", &[link("theirs", "adit:ab", Some(theirs))]);
        assert_eq!(many.filter.map(|filter| filter.others), Some(vec![[10, 9, 9, 9].into()]));
    }

    /// A site with networks of both families, and a peer with these networks.
    fn site(underlays: [&str; 2], tunnel: &str, networks: &str) -> Config {
        let [ours, theirs] = underlays;
        let text = format!(
            "[site]\nname = \"a\"\nunderlay = \"{ours}\"\ndevice = \"adit0\"\ndataplane = \"kernel\"\n\
             networks = [\"172.16.17.0/24\", \"fd00:a::/32\"]\n[tunnel]\n{tunnel}\n\
             [[peer]]\nname = \"b\"\nunderlay = \"{theirs}\"\nnetworks = [{networks}]\n"
        );
        Config::parse("a.toml", &text).expect("it is valid")
    }

    const OVER_V4: [&str; 2] = ["10.1.1.1", "10.1.1.2"];
    const OVER_V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
    const V4: &str = "\"192.168.199.0/24\"";
    const V6: &str = "\"fd00:b::/32\"";

    #[test]
    fn the_driver_of_a_peer_follows_from_its_underlay_and_its_networks() {
        let both = format!("{V4}, {V6}");
        for (underlays, networks, driver, protocol, has_ipv6) in [
            (OVER_V4, V4, TunnelDriver::Ipip, 4, false),
            (OVER_V4, V6, TunnelDriver::Sit, 0, true),
            (OVER_V4, both.as_str(), TunnelDriver::Sit, 0, true),
            (OVER_V6, V4, TunnelDriver::Ip6tnl, 0, false),
            (OVER_V6, V6, TunnelDriver::Ip6tnl, 0, true),
            (OVER_V6, both.as_str(), TunnelDriver::Ip6tnl, 0, true),
        ] {
            let config = site(underlays, "", networks);
            let [local, remote] = underlays.map(|address| address.parse::<IpAddr>().expect("an address"));
            let device = super::of(&config, local.into()).pop().expect("one");
            let expected =
                IpTunnel { tos: INHERIT_TOS, protocol, ..IpTunnel::between(driver, local, Some(remote)) };
            assert_eq!((device.tunnel, device.ipv6), (Some(expected), has_ipv6), "{underlays:?} {networks}");
        }
    }

    /// What is sent goes by the first, and what arrives is accepted by both.
    #[test]
    fn a_peer_with_an_address_of_each_family_has_an_interface_for_each() {
        let text = |first: &str| {
            format!(
                "[site]\nname = \"a\"\nunderlay = [\"10.1.1.1\", \"2001:db8::1\"]\nnetworks = [\"172.16.17.0/24\"]\n\
                 dataplane = \"kernel\"\n[[peer]]\nname = \"b\"\nunderlay = [{first}]\nnetworks = [{V4}, {V6}]\n\
                 [[peer]]\nname = \"c\"\nunderlay = \"10.1.1.3\"\nnetworks = [\"192.168.200.0/24\"]\n"
            )
        };
        let both: Vec<IpAddr> = ["10.1.1.1", "2001:db8::1"].map(|us| us.parse().expect("an address")).into();
        let underlay = UnderlayAddresses::new(both).expect("of different families");
        let machine = Machine { underlay, local: Vec::new(), underlay_mtu: 1500, vrf: None };
        let (v4, v6) = ("\"10.1.1.2\"", "\"2001:db8::2\"");
        for (first, drivers, names) in [
            (
                format!("{v4}, {v6}"),
                [TunnelDriver::Sit, TunnelDriver::Ip6tnl, TunnelDriver::Ipip],
                ["adit0-b", "adit0-b-v6", "adit0-c"],
            ),
            (
                format!("{v6}, {v4}"),
                [TunnelDriver::Ip6tnl, TunnelDriver::Sit, TunnelDriver::Ipip],
                ["adit0-b", "adit0-b-v4", "adit0-c"],
            ),
        ] {
            let config = Config::parse("a.toml", &text(&first)).expect("it is valid");
            let desired = Desired::of(&config, &machine);
            assert_eq!(self::names(&desired), names);
            let found = desired.devices.iter().map(|device| device.tunnel.expect("a driver").driver);
            assert_eq!(found.collect::<Vec<_>>(), drivers);
            let by: Vec<(&str, usize)> =
                desired.routes.iter().map(|route| (route.peer.as_str(), route.device)).collect();
            assert_eq!(by, [("b", 0), ("b", 0), ("c", 2)]);
            assert_eq!(desired.mtu, 1460);
        }
    }

    #[test]
    fn an_interface_of_another_driver_is_another_interface() {
        let [local, machine] = [US, US].map(|us| Machine {
            underlay: us.into(),
            local: Vec::new(),
            underlay_mtu: 1500,
            vrf: None,
        });
        let of_v4 = Desired::of(&site(OVER_V4, "", V4), &local).devices[0].clone();
        let mut of_v6 = Desired::of(&site(OVER_V4, "", V6), &machine);
        let found = [link("adit0", "adit:a:b", of_v4.tunnel)];
        assert_eq!(find_tunnels(std::slice::from_ref(&of_v4), "a", &found, &[]), [Some(&found[0])]);
        assert_eq!(find_tunnels(&of_v6.devices, "a", &found, &[]), [None]);
        of_v6.adapt_to("a", &found);
        assert_ne!(names(&of_v6), ["adit0"], "both are there until the routes lead by the new one");
    }

    #[test]
    fn many_peers_with_ipv6_are_not_shared() {
        let machine = Machine { underlay: US.into(), local: Vec::new(), underlay_mtu: 1500, vrf: None };
        let mut more = config(OWN_DEVICES);
        assert!(!Desired::of(&more, &machine).shares_ipv6());
        let of_v6 = site(OVER_V4, "", V6).peers.iter().cloned().collect();
        let peers = more.peers.clone();
        let delta = adit_config::PeerDelta { inserted: of_v6, base: peers.revision(), ..Default::default() };
        more.peers = peers.apply(&delta).expect("it is free");
        assert!(Desired::of(&more, &machine).shares_ipv6());
        assert!(!desired(OWN_DEVICES + 1).shares_ipv6());
        assert!(!desired(0).shares_ipv6());
    }

    #[test]
    fn generated_names_are_short_unique_and_stable() {
        let mut taken = HashSet::new();
        let long = "a-peer-with-a-very-long-name";
        let first = free_name("averylongdevice", long, &mut taken);
        assert_eq!(first.len(), MAX_NAME);
        let second = free_name("averylongdevice", long, &mut taken);
        assert_ne!(first, second);
        assert_eq!(first, free_name("averylongdevice", long, &mut HashSet::new()), "the same each time");
    }

    #[test]
    fn hidden_ends_of_different_devices_have_different_names() {
        let name = |device: &str| HiddenEnd::of("a", device).name;
        assert_eq!(name("ipipA"), "ipipA-h");
        assert_eq!(name("a-name-of-13b").len(), MAX_NAME);
        let long = ["adit-berlin-01", "adit-berlin-02", "adit-berlin-003"].map(name);
        assert!(long.iter().all(|name| name.len() <= MAX_NAME && name.starts_with("adit-b-")), "{long:?}");
        assert_eq!(HashSet::from(long).len(), 3, "each has its own");
    }

    #[test]
    fn an_alias_belongs_to_one_site() {
        for (found, expected) in [("adit:a", true), ("adit:a:b", true), ("adit:ab", false), ("mine", false)] {
            assert_eq!(is_of_site(found, "a"), expected, "{found}");
        }
    }

    #[test]
    fn tunnel_options_become_options_of_the_ipip_driver() {
        let text = |tunnel: &str| {
            let file = config(1).to_toml();
            file.replace("[tunnel]\n", &format!("[tunnel]\n{tunnel}\n"))
        };
        let file = text("");
        let wanted = |from: &str, to: &str| {
            let config = Config::parse("a.toml", &file.replace(from, to)).expect("it is valid");
            super::of(&config, US.into())[0].tunnel.expect("it is ipip")
        };
        let usual = wanted("none", "none");
        assert_eq!((usual.ttl, usual.tos, usual.path_mtu_discovery), (64, INHERIT_TOS, true));
        assert_eq!(wanted("ttl = 64", "ttl = \"inherit\"").ttl, 0);
        assert_eq!(wanted("dscp = \"inherit\"", "dscp = 46").tos, 0xb8);
        let over_v6 = super::of(
            &site(OVER_V6, "ttl = \"inherit\"\ndf = false\ndscp = 46", V4),
            OVER_V6[0].parse::<IpAddr>().expect("an address").into(),
        );
        let tunnel = over_v6[0].tunnel.expect("it has a driver");
        assert_eq!((tunnel.ttl, tunnel.tos, tunnel.encap_limit), (0, 0xb8, None));
        assert!(tunnel.path_mtu_discovery, "IPv6 has no DF, so nothing differs");
    }
}
