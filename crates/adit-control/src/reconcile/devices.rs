//! Which interfaces a tunnel is made of, and how they are called. Pure.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_config::{Config, DscpChoice, Peer, Ttl};
use adit_linux::netlink::{INHERIT_TOS, Ipip, Link};

use crate::reconcile::desired::{Desired, DesiredDevice, alias, is_drivers};

/// Up to so many peers Linux's driver has an interface for each, which can be watched, captured on and limited by
/// itself; above, one for all, whose routes name the peer as their gateway. An interface costs the kernel some 40 KB, and
/// milliseconds to make and to remove, a route of the shared one 1 KB; a datagram costs the same (docs/benchmarks.md).
pub const OWN_DEVICES: usize = 64;

/// What the table of nf_tables judges; anything else would come through unseen.
const IPIP: u8 = 4;

/// An interface's name has at most 15 bytes.
const NAME: usize = 15;

/// What marks a device as that of one peer.
#[must_use]
pub fn alias_of_peer(site: &str, peer: &str) -> String {
    format!("{}:{peer}", alias(site))
}

/// Whether a device with this alias is the site's.
#[must_use]
pub fn is_of_site(found: &str, site: &str) -> bool {
    let rest = found.strip_prefix(&alias(site));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// The devices that `config` asks for, in the order of the peers where each has its own.
pub(crate) fn of(config: &Config, underlay: Ipv4Addr) -> Vec<DesiredDevice> {
    let site = config.site.name.as_str();
    let device = config.site.device.to_string();
    if !is_drivers(config) {
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
        // None yet, or many.
        _ => {
            vec![DesiredDevice { name: device, alias: alias(site), ipip: Some(ipip(config, underlay, None)) }]
        }
    }
}

fn ipip(config: &Config, underlay: Ipv4Addr, peer: Option<&Peer>) -> Ipip {
    let options = &config.site.tunnel;
    Ipip {
        local: underlay,
        remote: peer.map(|peer| peer.underlay),
        ttl: match options.ttl {
            Ttl::Fixed(ttl) => ttl,
            Ttl::Inherit => 0,
        },
        tos: match options.dscp {
            DscpChoice::Inherit => INHERIT_TOS,
            DscpChoice::Fixed(dscp) => dscp << 2,
        },
        protocol: IPIP,
        path_mtu_discovery: options.df,
    }
}

impl Desired {
    /// Devices that are there already keep their names, whatever those are, and no new one takes such a name; and
    /// other people's tunnels keep their peers.
    pub(crate) fn adapt_to(&mut self, site: &str, links: &[Link]) {
        let Some(filter) = &mut self.filter else { return };
        let is_ours = |link: &&Link| link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site));
        let mut names: HashSet<String> = links.iter().filter(is_ours).map(|link| link.name.clone()).collect();
        let there = there(&self.devices, site, links, &[]);
        for (device, there) in self.devices.iter_mut().zip(there) {
            match there {
                Some(link) => device.name.clone_from(&link.name),
                None if names.contains(&device.name) => {
                    device.name = free_name(&self.device, &device.alias, &mut names);
                }
                None => {
                    names.insert(device.name.clone());
                }
            }
        }
        filter.devices = self.devices.iter().map(|device| device.name.clone()).collect();
        let others = links.iter().filter(|link| !is_ours(link)).filter_map(|link| link.ipip);
        filter.others = others.filter_map(|ipip| ipip.remote).collect();
        filter.others.sort_unstable();
    }
}

/// Which of `links` is which of the driver's devices: first those of the same two ends, since no two can have these,
/// then those that are marked as the peer's. `known` are the indices of those that are ours whatever they are called.
pub(crate) fn there<'a>(
    devices: &[DesiredDevice],
    site: &str,
    links: &'a [Link],
    known: &[u32],
) -> Vec<Option<&'a Link>> {
    let is_ours = |link: &&Link| {
        link.ipip.is_some()
            && (known.contains(&link.index)
                || link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site)))
    };
    let ours: Vec<&Link> = links.iter().filter(is_ours).collect();
    let ends = |ipip: Option<Ipip>| ipip.map(|ipip| (ipip.local, ipip.remote));
    let by_ends: HashMap<_, &Link> = ours.iter().map(|link| (ends(link.ipip), *link)).collect();
    let mut found: Vec<Option<&Link>> =
        devices.iter().map(|device| by_ends.get(&ends(device.ipip)).copied()).collect();
    let taken: HashSet<u32> = found.iter().flatten().map(|link| link.index).collect();
    let marked = ours.iter().filter(|link| !taken.contains(&link.index));
    let marked: HashMap<&str, &Link> =
        marked.filter_map(|link| Some((link.alias.as_deref()?, *link))).collect();
    for (device, found) in devices.iter().zip(&mut found) {
        *found = found.or_else(|| marked.get(device.alias.as_str()).copied());
    }
    found
}

/// A name for the device of a peer that none of `taken` has, the same each time: the peer's own if there is room.
fn free_name(device: &str, peer: &str, taken: &mut HashSet<String>) -> String {
    let own = format!("{device}-{peer}");
    let is_name = own.len() <= NAME && !own.contains(':');
    let mut name = if is_name { own } else { short_name(device, peer, 0) };
    let mut number = 0;
    while !taken.insert(name.clone()) {
        number += 1;
        name = short_name(device, peer, number);
    }
    name
}

fn short_name(device: &str, peer: &str, number: u32) -> String {
    const BEGINNING: usize = 6;
    let beginning: String = device.chars().take(BEGINNING).collect();
    format!("{beginning}-{:08x}", hash(peer.bytes().chain(number.to_be_bytes())))
}

/// FNV-1a: the same in every version.
fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::desired::Machine;

    const US: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);

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
            &Machine { underlay: US, local: Vec::new(), underlay_mtu: 1500, vrf: None },
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
            vrf_table: None,
            ipip,
            hardware: adit_linux::netlink::LinkLayer::None,
            flags: 0,
        }
    }

    #[test]
    fn one_peer_has_the_files_device_some_have_their_own_and_many_share_one() {
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
    fn a_device_that_is_there_keeps_its_name_and_no_other_takes_it() {
        let ipip = desired(1).devices[0].ipip;
        let mut more = desired(2);
        more.adapt_to("a", &[link("ipipA", "adit:a:p0", ipip)]);
        assert_eq!(names(&more), ["ipipA", "ipipA-p1"]);
        // Over the border, the old ones are still there.
        let mut many = desired(OWN_DEVICES + 1);
        many.adapt_to("a", &[link("ipipA", "adit:a:p0", ipip)]);
        assert_eq!(many.devices.len(), 1);
        assert_ne!(names(&many), ["ipipA"]);
        assert!(names(&many)[0].len() <= NAME);
        assert_eq!(many.filter.map(|filter| filter.devices), Some(vec![many.devices[0].name.clone()]));
    }

    #[test]
    fn tunnels_of_others_keep_their_peers() {
        let theirs =
            Ipip { remote: Some([10, 9, 9, 9].into()), ..desired(1).devices[0].ipip.expect("it is ipip") };
        let mut many = desired(OWN_DEVICES + 1);
        many.adapt_to("a", &[link("theirs", "adit:ab", Some(theirs))]);
        assert_eq!(many.filter.map(|filter| filter.others), Some(vec![[10, 9, 9, 9].into()]));
    }

    #[test]
    fn names_are_short_and_nobodys_else() {
        let mut taken = HashSet::new();
        let long = "a-peer-with-a-very-long-name";
        let first = free_name("averylongdevice", long, &mut taken);
        assert_eq!(first.len(), NAME);
        let second = free_name("averylongdevice", long, &mut taken);
        assert_ne!(first, second);
        assert_eq!(first, free_name("averylongdevice", long, &mut HashSet::new()), "the same each time");
    }

    #[test]
    fn an_alias_is_of_one_site() {
        for (found, expected) in [("adit:a", true), ("adit:a:b", true), ("adit:ab", false), ("mine", false)] {
            assert_eq!(is_of_site(found, "a"), expected, "{found}");
        }
    }

    #[test]
    fn settings_are_the_drivers() {
        let text = |tunnel: &str| {
            let file = config(1).to_toml();
            file.replace("[tunnel]\n", &format!("[tunnel]\n{tunnel}\n"))
        };
        let file = text("");
        let wanted = |from: &str, to: &str| {
            let config = Config::parse("a.toml", &file.replace(from, to)).expect("it is valid");
            super::of(&config, US)[0].ipip.expect("it is ipip")
        };
        let usual = wanted("none", "none");
        assert_eq!((usual.ttl, usual.tos, usual.path_mtu_discovery), (64, INHERIT_TOS, true));
        assert_eq!(wanted("ttl = 64", "ttl = \"inherit\"").ttl, 0);
        assert_eq!(wanted("dscp = \"inherit\"", "dscp = 46").tos, 0xb8);
    }
}
