//! Properties of peer sets: any sequence of changes leads to the same set as building it from
//! scratch, and the conflicts are those of a slow model that compares each peer with each other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use adit_peers::{
    AddressPlan, Conflict, DeltaError, Holder, PathOptions, Peer, PeerName, PeerSet, UnderlayAddresses,
};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const SITE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Networks that are disjoint or lie in each other. Some contain underlay addresses.
const NETWORKS: [&str; 19] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.1/32",
    "10.1.2.0/24",
    "10.2.0.0/16",
    "10.2.0.0/17",
    "172.16.0.0/12",
    "172.16.17.0/25",
    "192.0.2.0/30",
    "192.0.2.4/30",
    "192.0.2.6/32",
    "198.18.0.0/15",
    "198.19.0.0/16",
    "2001:db8::/32",
    "2001:db8:a::/48",
    "2001:db8:a:1::/64",
    "2001:db8:a:1::1/128",
    "::/0",
];

fn site_networks() -> Vec<IpNet> {
    ["172.16.17.0/24", "198.19.0.0/24", "2001:db8:5::/48"].map(|network| network.parse().unwrap()).into()
}

fn empty() -> PeerSet {
    PeerSet::new(Some(SITE.into()), site_networks()).unwrap()
}

/// One underlay address, or one of each family. The site has one of IPv4 only.
fn underlay() -> impl Strategy<Value = UnderlayAddresses> {
    let v4 = (1..8_u8).prop_map(|last| Ipv4Addr::new(192, 0, 2, last).into());
    let v6 = (0..3_u16).prop_map(|last| Ipv6Addr::new(0x2001, 0xdb8, 0xa, 1, 0, 0, 0, last).into());
    (v4, v6, 0..9_u8).prop_map(|(v4, v6, which)| {
        let addresses = match which {
            0 => vec![v6],
            1 => vec![v6, v4],
            2 => vec![v4, v6],
            _ => vec![v4],
        };
        UnderlayAddresses::new(addresses).unwrap()
    })
}

/// Whether a network of `networks` contains an address of `underlay`.
fn encloses(networks: &[IpNet], underlay: UnderlayAddresses) -> bool {
    networks.iter().any(|network| underlay.iter().any(|address| network.contains(&address)))
}

/// Whether both have an address.
fn share_an_address(one: UnderlayAddresses, other: UnderlayAddresses) -> bool {
    one.iter().any(|address| other.contains(address))
}

/// Whether the rule for underlay addresses is kept between the site and a peer.
fn suits_the_site(peer: &Peer) -> bool {
    !share_an_address(peer.underlay, SITE.into())
        && peer.underlay.iter().any(|address| address.is_ipv4())
        && !encloses(&peer.networks, peer.underlay)
        && !encloses(&peer.networks, SITE.into())
}

/// Whether it is kept between two peers.
fn suit_each_other(one: &Peer, other: &Peer) -> bool {
    !share_an_address(one.underlay, other.underlay)
        && !encloses(&one.networks, other.underlay)
        && !encloses(&other.networks, one.underlay)
}

fn peer() -> impl Strategy<Value = Peer> {
    let networks = vec(select(&NETWORKS[..]), 0..4);
    (0..6_u8, underlay(), networks).prop_map(|(name, underlay, networks)| Peer {
        name: PeerName::new(format!("p{name}")).unwrap(),
        underlay,
        networks: networks.into_iter().map(|network| network.parse().unwrap()).collect(),
        path: PathOptions::default(),
    })
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// Returns true if `peer` conflicts with none of `others`, by comparing each with each.
fn fits(peer: &Peer, others: &[Arc<Peer>]) -> bool {
    let is_alone = |network: &IpNet| peer.networks.iter().filter(|other| *other == network).count() == 1;
    let site = site_networks();
    suits_the_site(peer)
        && peer.networks.iter().all(is_alone)
        && !peer.networks.iter().any(|network| site.iter().any(|other| overlap(network, other)))
        && others.iter().all(|other| {
            peer.name != other.name
                && suit_each_other(peer, other)
                && !peer
                    .networks
                    .iter()
                    .any(|network| other.networks.iter().any(|other| overlap(network, other)))
        })
}

/// The peers of `wanted` that do not conflict with those before them, by the model.
fn fitting(wanted: Vec<Peer>) -> Vec<Arc<Peer>> {
    let mut accepted = Vec::new();
    for peer in wanted {
        if fits(&peer, &accepted) {
            accepted.push(Arc::new(peer));
        }
    }
    accepted
}

fn set_of(peers: &[Arc<Peer>]) -> PeerSet {
    let mut set = empty();
    for peer in peers {
        set.insert(Arc::clone(peer)).unwrap();
    }
    set
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Peer),
    Remove(u8),
    Become(Vec<Peer>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => peer().prop_map(Step::Insert),
        2 => (0..6_u8).prop_map(Step::Remove),
        1 => vec(peer(), 0..8).prop_map(Step::Become),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn a_set_after_any_steps_equals_one_built_from_scratch(steps in vec(step(), 0..30)) {
        let mut set = empty();
        let mut model: Vec<Arc<Peer>> = Vec::new();
        for step in steps {
            match step {
                Step::Insert(peer) => {
                    let does_fit = fits(&peer, &model);
                    prop_assert_eq!(set.insert(peer.clone()).is_ok(), does_fit, "{:?}", peer);
                    if does_fit {
                        model.push(Arc::new(peer));
                    }
                }
                Step::Remove(name) => {
                    let name = PeerName::new(format!("p{name}")).unwrap();
                    let place = model.iter().position(|peer| peer.name == name);
                    prop_assert_eq!(set.remove(&name), place.map(|place| model.remove(place)));
                }
                Step::Become(peers) => {
                    let peers = fitting(peers);
                    let other = set_of(&peers);
                    let delta = set.delta_to(&other);
                    let before = set.clone();
                    set = set.apply(&delta).unwrap();
                    prop_assert_eq!(&set, &other);
                    prop_assert_eq!(set.revision(), before.revision() + 1);
                    let back = set.delta_to(&before);
                    prop_assert_eq!(&set.apply(&back).unwrap(), &before);
                    let stale = before.delta_to(&other);
                    let is_stale = matches!(set.apply(&stale), Err(DeltaError::Stale { .. }));
                    prop_assert!(is_stale);
                    model = peers;
                }
            }
            prop_assert_eq!(&set, &set_of(&model));
            for name in (0..6).map(|n| PeerName::new(format!("p{n}")).unwrap()) {
                prop_assert_eq!(set.get(&name), model.iter().find(|peer| peer.name == name));
            }
        }
    }

    /// Whatever the order of the claims, each reported conflict is one of the model's, and each
    /// address and network in a conflict of the model is reported. An exception is a network around
    /// another of which a nearer one is reported.
    #[test]
    fn a_plan_finds_the_conflicts_of_a_slow_model(peers in vec(peer(), 1..6)) {
        let mut plan = AddressPlan::new();
        let mut found = Vec::new();
        found.extend(plan.claim_underlay(SITE, Holder::Site));
        for network in site_networks() {
            found.extend(plan.claim_network(network, Holder::Site));
        }
        for (number, peer) in peers.iter().enumerate() {
            found.extend(plan.claim_name(&peer.name, number).err());
            for address in peer.underlay.iter() {
                found.extend(plan.claim_underlay(address, Holder::Peer(number)));
            }
            for network in &peer.networks {
                found.extend(plan.claim_network(*network, Holder::Peer(number)));
            }
        }
        let networks = |holder: &Holder<usize>| match holder {
            Holder::Site => site_networks(),
            Holder::Peer(number) => peers[*number].networks.clone(),
        };
        let underlay = |holder: &Holder<usize>| match holder {
            Holder::Site => SITE.into(),
            Holder::Peer(number) => peers[*number].underlay,
        };
        for conflict in &found {
            match conflict {
                Conflict::NameTaken { name, claimant, holder } => {
                    prop_assert!(claimant != holder);
                    prop_assert!(&peers[*claimant].name == name && &peers[*holder].name == name);
                }
                Conflict::UnderlayTaken { address, claimant, holder } => {
                    prop_assert!(claimant != holder);
                    prop_assert!(underlay(claimant).contains(*address) && underlay(holder).contains(*address));
                }
                Conflict::NetworkRepeated { network, claimant } => {
                    prop_assert!(networks(claimant).iter().filter(|other| *other == network).count() > 1);
                }
                Conflict::NetworksOverlap { network, claimant, other, holder } => {
                    prop_assert!(claimant != holder && overlap(network, other));
                    prop_assert!(networks(claimant).contains(network) && networks(holder).contains(other));
                }
                Conflict::UnderlayEnclosed { network, owner, addresses, count } => {
                    prop_assert!(networks(owner).contains(network) && *count >= addresses.len());
                    for (address, holder) in addresses {
                        prop_assert!(network.contains(address) && underlay(holder).contains(*address));
                    }
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
        // A plan does not know the site's families.
        let reached = |peer: &Peer| peer.underlay.iter().any(|address| address.is_ipv4());
        prop_assume!(peers.iter().all(reached));
        let is_good = fitting(peers.clone()).len() == peers.len();
        prop_assert_eq!(found.is_empty(), is_good, "{:?}", found);
        // Every network in an overlap of the model is in a report.
        for (number, peer) in peers.iter().enumerate() {
            for network in &peer.networks {
                let others = peers.iter().enumerate().filter(|(other, _)| *other != number);
                let mut inner = others.flat_map(|(_, peer)| &peer.networks).filter(|other| network.contains(*other));
                let is_named = found.iter().any(|conflict| match conflict {
                    Conflict::NetworksOverlap { network: one, other, .. } => one == network || other == network,
                    _ => false,
                });
                prop_assert!(inner.all(|inner| inner != network) || is_named, "{network} is not named");
            }
        }
    }

    #[test]
    fn a_nested_set_refuses_equal_networks_only(peers in vec(peer(), 1..6)) {
        let mut set = PeerSet::nested(Some(SITE.into()), site_networks()).unwrap();
        let mut accepted: Vec<Peer> = Vec::new();
        for peer in peers {
            let site = site_networks();
            let is_alone = |network: &IpNet| peer.networks.iter().filter(|other| *other == network).count() == 1;
            let fits = suits_the_site(&peer)
                && peer.networks.iter().all(|network| is_alone(network) && !site.contains(network))
                && accepted.iter().all(|other| {
                    other.name != peer.name
                        && suit_each_other(other, &peer)
                        && !other.networks.iter().any(|network| peer.networks.contains(network))
                });
            prop_assert_eq!(set.insert(peer.clone()).is_ok(), fits, "{:?} beside {:?}", peer, accepted);
            if fits {
                accepted.push(peer);
            }
        }
    }
}

#[test]
fn a_delta_that_does_not_apply_says_why() {
    let peer = |name: &str, last: u8, network: &str| Peer {
        name: name.parse().unwrap(),
        underlay: Ipv4Addr::new(192, 0, 2, last).into(),
        networks: vec![network.parse().unwrap()],
        path: PathOptions::default(),
    };
    let mut set = empty();
    set.insert(peer("b", 2, "10.0.0.0/16")).unwrap();
    let mut delta = set.delta_to(&set);
    assert!(delta.is_empty());
    delta.removed.push("c".parse().unwrap());
    assert_eq!(
        set.apply(&delta).unwrap_err().to_string(),
        "no peer is named c, so it cannot be removed or replaced"
    );
    delta.removed.clear();
    delta.inserted.push(Arc::new(peer("c", 3, "10.0.7.0/24")));
    assert_eq!(
        set.apply(&delta).unwrap_err().to_string(),
        "network 10.0.7.0/24 of peer c overlaps 10.0.0.0/16 of peer b: remove or narrow one of the two"
    );
    delta.replaced.push(Arc::new(peer("b", 2, "10.1.0.0/16")));
    let after = set.apply(&delta).unwrap();
    assert_eq!((after.len(), after.revision(), set.len(), set.revision()), (2, 1, 1, 0));
    assert_eq!(after.apply(&delta), Err(DeltaError::Stale { base: 0, current: 1 }));
}

#[test]
fn the_underlay_address_of_an_interface_is_checked_against_the_peers() {
    let mut set = PeerSet::new(None, site_networks()).unwrap();
    set.insert(Peer {
        name: "b".parse().unwrap(),
        underlay: Ipv4Addr::new(192, 0, 2, 2).into(),
        networks: vec!["10.0.0.0/16".parse().unwrap()],
        path: PathOptions::default(),
    })
    .unwrap();
    let refused = |address: [u8; 4]| set.check_site_underlay(address.into()).unwrap_err().to_string();
    assert!(
        refused([192, 0, 2, 2]).starts_with("192.0.2.2 is the underlay address of both peer b and this site")
    );
    assert!(
        refused([10, 0, 9, 9]).starts_with("network 10.0.0.0/16 of peer b contains the underlay address")
    );
    assert!(refused([240, 0, 0, 1]).contains("a reserved address"));
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let of_ipv6 = set.check_site_underlay(v6.into()).unwrap_err().to_string();
    assert!(
        of_ipv6.starts_with(
            "the underlay address 2001:db8::1 of this site and 192.0.2.2 of peer b are of different families"
        ),
        "{of_ipv6}"
    );
    let known = set.with_site_underlay(SITE.into()).unwrap();
    assert_eq!((known.site_underlay(), set.site_underlay()), (Some(SITE.into()), None));
    let moved = known.with_site_underlay([192, 0, 2, 9].into()).unwrap();
    let back = moved.with_site_underlay(SITE.into()).unwrap();
    assert_eq!(back, known, "the former address is free again");
    let both = UnderlayAddresses::new([v6, SITE]).unwrap();
    let wide = known.with_site_underlay(both).unwrap();
    assert_eq!(wide.site_underlay(), Some(both), "a second family reaches the same peers");
}

#[test]
fn an_underlay_of_ipv6_keeps_the_same_rules() {
    let site: IpAddr = "2001:db8::1".parse().unwrap();
    let peer = |underlay: &str, network: &str| Peer {
        name: "b".parse().unwrap(),
        underlay: underlay.parse::<IpAddr>().unwrap().into(),
        networks: vec![network.parse().unwrap()],
        path: PathOptions::default(),
    };
    let refused = |peer| empty_v6(site).insert(peer).unwrap_err().to_string();
    empty_v6(site).insert(peer("2001:db8::2", "10.0.0.0/16")).unwrap();
    empty_v6(site).insert(peer("2001:db8::2", "fd00::/16")).unwrap();
    for (underlay, network, reason) in [
        ("2001:db8::1", "fd00::/16", "2001:db8::1 is the underlay address of both this site and peer b"),
        ("2001:db8::2", "2001:db8::/48", "network 2001:db8::/48 of peer b contains the underlay address"),
        ("fe80::1", "fd00::/16", "the underlay address fe80::1 of peer b is a link-local address"),
        ("ff02::1", "fd00::/16", "the underlay address ff02::1 of peer b is a multicast address"),
        ("::1", "fd00::/16", "the underlay address ::1 of peer b is the loopback address"),
        ("::", "fd00::/16", "the underlay address :: of peer b is no address"),
        (
            "::ffff:192.0.2.2",
            "fd00::/16",
            "the underlay address ::ffff:192.0.2.2 of peer b is an IPv4 address",
        ),
        (
            "192.0.2.2",
            "fd00::/16",
            "the underlay address 2001:db8::1 of this site and 192.0.2.2 of peer b are of different",
        ),
    ] {
        let found = refused(peer(underlay, network));
        assert!(found.starts_with(reason), "{underlay}, {network}: {found}");
    }
}

fn empty_v6(site: IpAddr) -> PeerSet {
    PeerSet::new(Some(site.into()), Vec::new()).unwrap()
}

/// Each step would take minutes if its cost were quadratic.
#[test]
fn ten_thousand_peers_with_ten_networks_each_change_quickly() {
    let start = std::time::Instant::now();
    let peer = |number: u32| Peer {
        name: PeerName::new(format!("p{number}")).unwrap(),
        underlay: Ipv4Addr::from_bits(0xcb00_0000 + number).into(),
        path: PathOptions::default(),
        networks: (0..10)
            .map(|n| {
                IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + (number * 10 + n) * 64).into(), 26).unwrap()
            })
            .collect(),
    };
    let mut set = empty();
    for number in 0..10_000 {
        set.insert(peer(number)).unwrap();
    }
    let mut other = set.clone();
    assert!(other.remove(&"p7".parse().unwrap()).is_some());
    other.insert(peer(10_000)).unwrap();
    let delta = set.delta_to(&other);
    assert_eq!((delta.removed.len(), delta.inserted.len(), delta.len()), (1, 1, 2));
    assert_eq!(set.apply(&delta).unwrap(), other);
    let took = start.elapsed();
    assert!(took < std::time::Duration::from_secs(10), "{took:?}");
}
