//! The interfaces a tunnel is made of, and their names. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use adit_config::{Config, DataplaneChoice, DscpChoice, Peer, Ttl, UnderlayAddresses};
use adit_linux::netlink::{INHERIT_TOS, Ipip, Link};

/// Up to this many peers each have an ipip interface of their own, which can be watched, captured
/// on and limited separately. Above it, all peers share one, and the routes name the peer as their
/// gateway. An interface costs the kernel some 40 KB, and milliseconds to create and to delete; a
/// route of the shared one costs 1 KB. The cost of a datagram is the same (docs/benchmarks.md).
pub const OWN_DEVICES: usize = 64;

/// The only protocol that the packet filter checks. Anything else would pass unchecked.
const IPIP_PROTOCOL: u8 = 4;

/// The longest name of an interface, in bytes.
const MAX_NAME: usize = 15;

/// An interface of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredDevice {
    /// Its name. An interface that exists under another name keeps that.
    pub name: String,
    /// The alias that marks it as ours, and as this site's.
    pub alias: String,
    /// Endpoints and options, for Linux's ipip driver; `None`: the visible end of a veth pair.
    pub ipip: Option<Ipip>,
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

/// Returns true if `link` is what a start creates first, still down and without an alias: an ipip
/// interface with the endpoints and options of `device`, or a veth with our link-layer address.
pub(crate) fn is_half_made(link: &Link, device: &DesiredDevice) -> bool {
    let is_ours = match &device.ipip {
        Some(_) => link.ipip == device.ipip,
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

/// Returns the hidden end that `config` asks for; the ipip driver has none.
pub(crate) fn hidden_end(config: &Config) -> Option<HiddenEnd> {
    let site = config.site.name.as_str();
    (!uses_kernel_plane(config)).then(|| HiddenEnd::of(site, config.site.device.as_str()))
}

/// Returns true if the configuration chooses Linux's ipip driver.
pub(crate) fn uses_kernel_plane(config: &Config) -> bool {
    config.site.dataplane == DataplaneChoice::Kernel
}

/// Returns the interfaces that `config` asks for, in the order of the peers if each has its own.
pub(crate) fn of(config: &Config, underlay: UnderlayAddresses) -> Vec<DesiredDevice> {
    let site = config.site.name.as_str();
    let device = config.site.device.to_string();
    if !uses_kernel_plane(config) {
        return vec![DesiredDevice { name: device, alias: alias(site), ipip: None }];
    }
    match config.peers.len() {
        1 => {
            let of_peer = |only: &Arc<Peer>| DesiredDevice {
                name: device.clone(),
                alias: alias_of_peer(site, only.name.as_str()),
                ipip: Some(ipip(config, underlay, Some(only))),
            };
            config.peers.iter().map(of_peer).collect()
        }
        2..=OWN_DEVICES => {
            let mut names = HashSet::new();
            let named = |peer: &Arc<Peer>| DesiredDevice {
                name: free_name(&device, peer.name.as_str(), &mut names),
                alias: alias_of_peer(site, peer.name.as_str()),
                ipip: Some(ipip(config, underlay, Some(peer))),
            };
            config.peers.iter().map(named).collect()
        }
        // No peers yet, or many.
        _ => {
            vec![DesiredDevice { name: device, alias: alias(site), ipip: Some(ipip(config, underlay, None)) }]
        }
    }
}

/// An address of IPv4. The kernel plane has no others.
pub(crate) fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn ipip(config: &Config, underlay: UnderlayAddresses, peer: Option<&Peer>) -> Ipip {
    let options = &config.site.tunnel;
    Ipip {
        // The file is refused if the underlay is of IPv6.
        local: underlay.iter().find_map(v4).unwrap_or(Ipv4Addr::UNSPECIFIED),
        remote: peer.and_then(|peer| peer.underlay.iter().find_map(v4)),
        ttl: match options.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::Inherit => 0,
        },
        tos: match options.dscp {
            DscpChoice::Inherit => INHERIT_TOS,
            DscpChoice::Fixed(dscp) => dscp << 2,
        },
        protocol: IPIP_PROTOCOL,
        path_mtu_discovery: options.df,
        mark: config.site.fwmark,
    }
}

/// Finds the interface of each of the ipip driver's `devices` among `links`: first by its two
/// endpoints, which no two interfaces share, then by its alias. `known` are the indices of those
/// that are ours whatever their alias is.
pub(crate) fn find_ipip<'a>(
    devices: &[DesiredDevice],
    site: &str,
    links: &'a [Link],
    known: &[u32],
) -> Vec<Option<&'a Link>> {
    let is_ours =
        |link: &&Link| link.ipip.is_some() && (known.contains(&link.index) || has_alias_of(link, site));
    let ours: Vec<&Link> = links.iter().filter(is_ours).collect();
    let endpoints = |ipip: Option<Ipip>| ipip.map(|ipip| (ipip.local, ipip.remote));
    let by_endpoints: HashMap<_, &Link> = ours.iter().map(|link| (endpoints(link.ipip), *link)).collect();
    let mut found: Vec<Option<&Link>> =
        devices.iter().map(|device| by_endpoints.get(&endpoints(device.ipip)).copied()).collect();
    let taken: HashSet<u32> = found.iter().flatten().map(|link| link.index).collect();
    let by_alias: HashMap<&str, &Link> = ours
        .iter()
        .filter(|link| !taken.contains(&link.index))
        .filter_map(|link| Some((link.alias.as_deref()?, *link)))
        .collect();
    for (device, found) in devices.iter().zip(&mut found) {
        *found = found.or_else(|| by_alias.get(device.alias.as_str()).copied());
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

    fn link(name: &str, alias: &str, ipip: Option<Ipip>) -> Link {
        Link {
            index: 7,
            name: name.to_owned(),
            mtu: 1480,
            up: true,
            running: true,
            mac: None,
            alias: Some(alias.to_owned()),
            kind: Some("ipip".to_owned()),
            master: None,
            lower: None,
            is_lower_elsewhere: false,
            vrf_table: None,
            ipip,
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
            assert_eq!(shared.devices[0].ipip.and_then(|ipip| ipip.remote), None);
            assert!(shared.routes.iter().all(|route| route.device == 0 && route.via.is_some()));
        }
        let own = desired(3);
        let places: Vec<(usize, bool)> =
            own.routes.iter().map(|route| (route.device, route.via.is_some())).collect();
        assert_eq!(places, [(0, false), (1, false), (2, false)]);
    }

    #[test]
    fn an_existing_interface_keeps_its_name_and_no_other_takes_it() {
        let ipip = desired(1).devices[0].ipip;
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
        let theirs =
            Ipip { remote: Some([10, 9, 9, 9].into()), ..desired(1).devices[0].ipip.expect("it is ipip") };
        let mut many = desired(OWN_DEVICES + 1);
        many.adapt_to("a", &[link("theirs", "adit:ab", Some(theirs))]);
        assert_eq!(many.filter.map(|filter| filter.others), Some(vec![[10, 9, 9, 9].into()]));
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
            super::of(&config, US.into())[0].ipip.expect("it is ipip")
        };
        let usual = wanted("none", "none");
        assert_eq!((usual.ttl, usual.tos, usual.path_mtu_discovery), (64, INHERIT_TOS, true));
        assert_eq!(wanted("ttl = 64", "ttl = \"inherit\"").ttl, 0);
        assert_eq!(wanted("dscp = \"inherit\"", "dscp = 46").tos, 0xb8);
    }
}
