//! The rules of [`adit_policy`] as tables of nf_tables, since Linux's tunnel drivers have no such
//! rules. Pure: makes [`Ruleset`]s from a configuration.
//!
//! There is a table for each family of what the kernel handles: `ip` checks what arrives in a
//! header of IPv4 and what leaves into a tunnel as IPv4, and `ip6` does the same for IPv6. Without
//! IPv6 there is no table `ip6`.
//!
//! A driver takes a datagram after the hook *input*, where the outer header is the datagram's own,
//! and the inner one is payload. The rules look up the pair of the outer source and the inner
//! source cut to a prefix, in a set for each prefix length that occurs. This is as fast with
//! 100,000 networks as with one, and as fast to fill.
//!
//! The kernel has reassembled fragments of IPv4 before that hook, and fragments of IPv6 it has not.
//! Of those the rules check the first, which has to contain the inner header, and let the others
//! pass: without the first they become no packet, and the kernel drops fragments that overlap (RFC
//! 5722). A first fragment that ends before the header that names its payload is dropped (RFC 8200
//! section 4.5), because Linux does not do so in every case.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use adit_linux::family::Family;
use adit_linux::nftables::{Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step};
use adit_policy::{DropReason, PROBE_IDENTIFIER};
use adit_wire::{icmpv4, icmpv6};
use ipnet::IpNet;

/// The configuration of a site's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The site that the tables are named after.
    pub site: String,
    /// This site's underlay addresses, at most one of each family.
    pub underlay: Vec<IpAddr>,
    /// This site's networks.
    pub networks: Vec<IpNet>,
    /// The gateway's own addresses.
    pub local: Vec<IpAddr>,
    /// Those outside its networks that peers may reach.
    pub reachable: Vec<IpAddr>,
    /// Each underlay address of a peer, and the networks of that peer.
    pub peers: Vec<(IpAddr, Vec<IpNet>)>,
    /// Underlay addresses of the peers that reach each other, for each direction; `None`: all.
    pub relayed: Option<Vec<(IpAddr, IpAddr)>>,
    /// Names of the tunnel interfaces.
    pub devices: Vec<String>,
    /// Whether one of them takes datagrams from any source, so that the tables must drop those of
    /// unknown sources. Otherwise the kernel has no interface for them, or one that is not ours.
    pub takes_all: bool,
    /// Remote addresses of tunnels that are not ours.
    pub others: Vec<IpAddr>,
    /// Whether to lower the MSS of TCP connections.
    pub mss_clamp: bool,
}

/// The name of a site's tables.
#[must_use]
pub fn table_name(site: &str) -> String {
    format!("adit_{site}")
}

/// The set whose elements count the admitted datagrams from each peer.
pub const RECEIVED: &str = "received";
/// The set whose elements count the datagrams to each peer.
pub const SENT: &str = "sent";

/// Reasons that a table can drop for; each has a counter.
const REASONS: [DropReason; 11] = [
    DropReason::InnerSourceDenied,
    DropReason::InnerSourceIsTunnelExit,
    DropReason::OuterSourceUnknown,
    DropReason::DecapInnerMalformed,
    DropReason::DecapInnerNotIpv4,
    DropReason::DecapInnerTtlZero,
    DropReason::NestedToOurselves,
    DropReason::InnerSourceIsOwn,
    DropReason::InnerSourceNotFromPeer,
    DropReason::InnerDestinationNotOurs,
    DropReason::RelayRefused,
];

const PEERS: &str = "peers";
const OTHERS: &str = "others";
const TUNNELS: &str = "tunnels";
const GATEWAYS: &str = "gateways";
const ACCEPTED: &str = "accepted";
const MSS_CLAMP: &str = "mss-clamp";
/// The protocols of IP in IP, each followed by a header of its family.
const TUNNELED: [(Family, u8); 2] = [(Family::V4, 4), (Family::V6, 41)];

/// Where a table finds the parts of the datagrams of its family.
struct Outer {
    length: Field,
    /// The least value of that field with an inner header in the datagram is this and the length
    /// of that header.
    counted: u16,
    source: Field,
    source_bytes: Field,
    destination: Field,
    address_bits: u8,
    icmp: u8,
}

impl Outer {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                length: Field::LENGTH,
                counted: 20,
                source: Field::SOURCE,
                source_bytes: Field::SOURCE_BYTES,
                destination: Field::DESTINATION,
                address_bits: 32,
                icmp: 1,
            },
            Family::V6 => Self {
                length: Field::LENGTH_V6,
                counted: 0,
                source: Field::SOURCE_V6,
                source_bytes: Field::SOURCE_BYTES_V6,
                destination: Field::DESTINATION_V6,
                address_bits: 128,
                icmp: 58,
            },
        }
    }

    /// Condition: the datagram carries this protocol.
    fn carries(family: Family, protocol: u8) -> Step {
        match family {
            Family::V4 => compare(Field::PROTOCOL, Comparison::Equal, &[protocol]),
            Family::V6 => Step::Carries(protocol),
        }
    }
}

/// Where a table finds the parts of an inner header, which is the payload of the outer one.
struct Inner {
    family: Family,
    len: u16,
    /// The first octet, as far as it is the version.
    version: u8,
    /// Why another version is dropped.
    other_version: DropReason,
    hops_left: Field,
    protocol: Field,
    source: Field,
    destination: Field,
    address_bits: u8,
    icmp: u8,
    // Of ICMP behind an inner header without options or extension headers.
    icmp_type: Field,
    icmp_identifier: Field,
    echo_request: u8,
}

const INNER_VERSION: Field = Field::payload(0, 1);

impl Inner {
    const fn of(family: Family) -> Self {
        match family {
            Family::V4 => Self {
                family,
                len: 20,
                version: 0x40,
                other_version: DropReason::DecapInnerNotIpv4,
                hops_left: Field::payload(8, 1),
                protocol: Field::payload(9, 1),
                source: Field::payload(12, 4),
                destination: Field::payload(16, 4),
                address_bits: 32,
                icmp: 1,
                icmp_type: Field::payload(20, 1),
                icmp_identifier: Field::payload(24, 2),
                echo_request: icmpv4::types::ECHO_REQUEST,
            },
            Family::V6 => Self {
                family,
                len: 40,
                version: 0x60,
                other_version: DropReason::DecapInnerMalformed,
                hops_left: Field::payload(7, 1),
                protocol: Field::payload(6, 1),
                source: Field::payload(8, 16),
                destination: Field::payload(24, 16),
                address_bits: 128,
                icmp: 58,
                icmp_type: Field::payload(40, 1),
                icmp_identifier: Field::payload(44, 2),
                echo_request: icmpv6::types::ECHO_REQUEST,
            },
        }
    }

    /// The name of a chain or a set that is for inner headers of this family.
    fn name(&self, name: &str) -> String {
        match self.family {
            Family::V4 => name.to_owned(),
            Family::V6 => format!("{name}6"),
        }
    }

    /// Condition: an address is one of the gateway's own.
    fn in_local(&self, field: Field) -> Step {
        Step::In { field, prefix: self.address_bits, set: self.name("local") }
    }
}

/// Networks in one set per prefix length. The sets' names are a common word and the length.
struct ByPrefix {
    name: String,
    sets: BTreeMap<u8, Set>,
}

impl ByPrefix {
    fn new(name: String, key: Key, networks: impl Iterator<Item = (Option<IpAddr>, IpNet)>) -> Self {
        let mut sets: BTreeMap<u8, Set> = BTreeMap::new();
        for (outer, network) in networks {
            let prefix = network.prefix_len();
            let set = sets.entry(prefix).or_insert_with(|| set(format!("{name}-{prefix}"), key));
            let outer = outer.map_or_else(Vec::new, octets);
            set.elements.insert([outer, octets(network.network())].concat());
        }
        Self { name, sets }
    }

    /// One rule for each length.
    fn rules(&self, step: impl Fn(u8, String) -> Step, then: &[Step]) -> Vec<Rule> {
        let rule =
            |prefix: &u8| [vec![step(*prefix, format!("{}-{prefix}", self.name))], then.to_vec()].concat();
        self.sets.keys().map(rule).collect()
    }

    fn with(&self, field: Field, then: &[Step]) -> Vec<Rule> {
        self.rules(|prefix, set| Step::In { field, prefix, set }, then)
    }

    fn with_pair(&self, source: Field, field: Field, then: &[Step]) -> Vec<Rule> {
        self.rules(|prefix, set| Step::PairIn { source, field, prefix, set }, then)
    }
}

/// The networks that a table knows, of one family of inner headers.
struct Networks {
    ours: ByPrefix,
    /// Behind each peer of the table's family.
    inside: ByPrefix,
    /// Those of all peers, if this is a hub.
    theirs: ByPrefix,
    /// With a peer that may send there, if only some may.
    relayed: ByPrefix,
}

impl Networks {
    fn into_sets(self) -> impl Iterator<Item = Set> {
        [self.ours, self.inside, self.theirs, self.relayed]
            .into_iter()
            .flat_map(|networks| networks.sets.into_values())
    }
}

impl Filter {
    /// The tables. All have the same name.
    #[must_use]
    pub fn rulesets(&self) -> Vec<Ruleset> {
        let carried = self.carried();
        carried.iter().map(|family| Table { filter: self, family: *family, carried }.ruleset()).collect()
    }

    /// The families of packets that a tunnel may carry or is made of.
    fn carried(&self) -> &'static [Family] {
        let networks = self.networks.iter().chain(self.peers.iter().flat_map(|(_, networks)| networks));
        let mut addresses = networks.map(IpNet::addr).chain(self.underlay.iter().copied());
        if addresses.any(|address| address.is_ipv6()) { &Family::BOTH } else { &[Family::V4] }
    }

    /// This site's underlay address of a family.
    fn own(&self, family: Family) -> Option<IpAddr> {
        self.underlay.iter().copied().find(|address| Family::of(*address) == family)
    }
}

/// One table, while it is made.
struct Table<'a> {
    filter: &'a Filter,
    /// The family of the datagrams that it sees.
    family: Family,
    /// The families that may be inside.
    carried: &'static [Family],
}

impl Table<'_> {
    fn ruleset(&self) -> Ruleset {
        let outer = Outer::of(self.family);
        let own = self.filter.own(self.family);
        let forwarded = self.networks(&Inner::of(self.family));
        let mut chains = Vec::new();
        if self.filter.mss_clamp {
            let rules = vec![vec![Step::TcpSyn, Step::LowerMss]];
            chains.push(Chain { name: MSS_CLAMP.to_owned(), hook: None, rules });
        }
        chains.push(Chain { name: "encap".to_owned(), hook: None, rules: self.encap(&outer, &forwarded) });
        let mut sets = self.sets();
        let mut of_others = Vec::new();
        if own.is_some() {
            chains.push(Chain { name: ACCEPTED.to_owned(), hook: None, rules: accepted(&outer) });
            for family in self.carried {
                let inner = Inner::of(*family);
                if *family == self.family {
                    chains.extend(self.decap_chains(&outer, &inner, &forwarded));
                    continue;
                }
                let networks = self.networks(&inner);
                chains.extend(self.decap_chains(&outer, &inner, &networks));
                sets.push(self.local(&inner));
                of_others.push(networks);
            }
        }
        chains.extend(self.hooks(&outer, own));
        sets.extend([forwarded].into_iter().chain(of_others).flat_map(Networks::into_sets));
        let counters = REASONS.iter().map(|reason| reason.as_str().to_owned()).collect();
        let table = table_name(&self.filter.site);
        Ruleset { family: self.family, table, is_owned: false, counters, sets, chains }
    }

    /// The underlay addresses of this table's family, and the networks behind each.
    fn peers(&self) -> impl Iterator<Item = (IpAddr, &[IpNet])> {
        let all = self.filter.peers.iter().map(|(peer, networks)| (*peer, networks.as_slice()));
        all.filter(|(peer, _)| Family::of(*peer) == self.family)
    }

    fn networks(&self, inner: &Inner) -> Networks {
        let is_inner = |network: &IpNet| Family::of(network.addr()) == inner.family;
        let (bytes, pair) = (Key::Bytes(inner.family), Key::Pair(self.family, inner.family));
        let reachable = self.filter.reachable.iter().copied().map(IpNet::from);
        let ours = self.filter.networks.iter().copied().chain(reachable).filter(is_inner);
        let inside = self.peers().flat_map(|(peer, networks)| networks.iter().map(move |of| (peer, *of)));
        // Only a hub relays between peers, whichever family the underlay of each has.
        let theirs = self.filter.peers.iter().filter(|_| self.filter.peers.len() > 1);
        let theirs = theirs.flat_map(|(_, networks)| networks).copied().filter(is_inner);
        let relayed = self.listed().filter(|(_, network)| is_inner(network));
        Networks {
            ours: ByPrefix::new(inner.name("ours"), bytes, ours.map(|network| (None, network))),
            inside: ByPrefix::new(
                inner.name("inside"),
                pair,
                inside.filter(|(_, of)| is_inner(of)).map(|(peer, of)| (Some(peer), of)),
            ),
            theirs: ByPrefix::new(inner.name("theirs"), bytes, theirs.map(|network| (None, network))),
            relayed: ByPrefix::new(
                inner.name("relayed"),
                pair,
                relayed.map(|(from, network)| (Some(from), network)),
            ),
        }
    }

    /// The networks of peers to which a listed peer of this table's family may send, with its
    /// underlay address.
    fn listed(&self) -> impl Iterator<Item = (IpAddr, IpNet)> {
        let networks: BTreeMap<IpAddr, &[IpNet]> =
            self.filter.peers.iter().map(|(peer, networks)| (*peer, networks.as_slice())).collect();
        let to = move |peer| networks.get(&peer).copied().unwrap_or_default();
        let pairs = self.filter.relayed.iter().flatten();
        let pairs = pairs.filter(|(from, _)| Family::of(*from) == self.family);
        pairs.flat_map(move |(from, peer)| to(*peer).iter().map(|network| (*from, *network)))
    }

    /// The sets other than those of networks.
    fn sets(&self) -> Vec<Set> {
        let key = Key::Address(self.family);
        let peers = || self.peers().map(|(peer, _)| octets(peer)).collect();
        let pair = |address: Vec<u8>| [address.clone(), address].concat();
        let mut sets = vec![
            Set { elements: peers(), ..set(PEERS.to_owned(), key) },
            self.local(&Inner::of(self.family)),
            Set { counts: true, elements: peers(), ..set(RECEIVED.to_owned(), key) },
            Set { counts: true, elements: peers(), ..set(SENT.to_owned(), key) },
            Set {
                elements: peers().into_iter().map(pair).collect(),
                ..set(GATEWAYS.to_owned(), Key::Pair(self.family, self.family))
            },
            Set {
                elements: self.filter.devices.iter().map(|name| interface(name)).collect(),
                ..set(TUNNELS.to_owned(), Key::Interface)
            },
        ];
        if self.filter.takes_all {
            let others = self.filter.others.iter().filter(|other| Family::of(**other) == self.family);
            let elements = others.copied().map(octets).collect();
            sets.push(Set { elements, ..set(OTHERS.to_owned(), key) });
        }
        sets
    }

    /// The set of the gateway's own addresses of a family.
    fn local(&self, inner: &Inner) -> Set {
        let all = self.filter.local.iter().chain(&self.filter.underlay).copied();
        let elements = all.filter(|address| Family::of(*address) == inner.family).map(octets).collect();
        Set { elements, ..set(inner.name("local"), Key::Bytes(inner.family)) }
    }

    /// The chains for inner headers of a family.
    fn decap_chains(&self, outer: &Outer, inner: &Inner, networks: &Networks) -> [Chain; 3] {
        let chain = |name: &str, rules| Chain { name: inner.name(name), hook: None, rules };
        [
            chain("to-us", self.to_us(inner, networks)),
            chain("to-anybody", self.to_anybody(outer, inner, networks)),
            chain("decap", self.decap(outer, inner, networks)),
        ]
    }

    fn to_us(&self, inner: &Inner, networks: &Networks) -> Vec<Rule> {
        // Peers reach the underlay address by ICMP only.
        let icmp_to_gateway = self.filter.own(inner.family).map(|own| {
            vec![
                compare(inner.protocol, Comparison::Equal, &[inner.icmp]),
                compare(inner.destination, Comparison::Equal, &octets(own)),
                goto(ACCEPTED),
            ]
        });
        // A probe for an address that this gateway does not have, because it is behind NAT. Nobody
        // has lost anything, so it is not counted.
        let unanswerable_probe = vec![
            compare(inner.protocol, Comparison::Equal, &[inner.icmp]),
            compare(inner.icmp_type, Comparison::Equal, &[inner.echo_request]),
            compare(inner.icmp_identifier, Comparison::Equal, &PROBE_IDENTIFIER.to_be_bytes()),
            Step::Drop,
        ];
        icmp_to_gateway
            .into_iter()
            .chain(networks.ours.with(inner.destination, &[goto(ACCEPTED)]))
            .chain([unanswerable_probe, dropped(DropReason::InnerDestinationNotOurs)])
            .collect()
    }

    fn to_anybody(&self, outer: &Outer, inner: &Inner, networks: &Networks) -> Vec<Rule> {
        let (source, to) = (outer.source, inner.destination);
        let to_us = || goto(&inner.name("to-us"));
        let relayed_or_not = match self.filter.relayed {
            Some(_) => dropped(DropReason::RelayRefused),
            None => vec![goto(ACCEPTED)],
        };
        [
            // Back to the peer that it came from: not even a hub does that.
            networks.inside.with_pair(source, to, &dropped(DropReason::InnerDestinationNotOurs)),
            // The kernel would deliver to an address of its own instead of relaying.
            vec![vec![inner.in_local(to), to_us()]],
            networks.relayed.with_pair(source, to, &[goto(ACCEPTED)]),
            networks.theirs.with(to, &relayed_or_not),
            vec![vec![to_us()]],
        ]
        .concat()
    }

    /// Rules of decapsulation, as in [`adit_policy::check_decap`]. Networks that lie in each other
    /// have one owner, so a set is as good as the longest prefix.
    fn decap(&self, outer: &Outer, inner: &Inner, networks: &Networks) -> Vec<Rule> {
        let mut rules = Vec::new();
        let is_unknown = Step::NotIn { field: outer.source, set: PEERS.to_owned() };
        if self.filter.takes_all {
            rules.push(vec![
                Step::In { field: outer.source, prefix: outer.address_bits, set: OTHERS.to_owned() },
                Step::Accept,
            ]);
            rules.push([vec![is_unknown], dropped(DropReason::OuterSourceUnknown)].concat());
        } else {
            // The kernel has no interface of ours for it, but may have somebody else's.
            let counted = Step::Count(DropReason::OuterSourceUnknown.as_str().to_owned());
            rules.push(vec![is_unknown, counted, Step::Accept]);
        }
        let version = Step::Compare {
            field: INNER_VERSION,
            mask: Some(vec![0xf0]),
            how: Comparison::NotEqual,
            value: vec![inner.version],
        };
        let shortest = (outer.counted + inner.len).to_be_bytes();
        let mut refused = vec![
            (vec![compare(outer.length, Comparison::Less, &shortest)], DropReason::DecapInnerMalformed),
            (vec![version], inner.other_version),
            (vec![compare(inner.hops_left, Comparison::Equal, &[0])], DropReason::DecapInnerTtlZero),
        ];
        if let Some(own) = self.filter.own(inner.family) {
            refused.extend(TUNNELED.map(|(_, protocol)| {
                let nested = vec![
                    compare(inner.protocol, Comparison::Equal, &[protocol]),
                    compare(inner.destination, Comparison::Equal, &octets(own)),
                ];
                (nested, DropReason::NestedToOurselves)
            }));
        }
        if inner.family == Family::V6 {
            let never = never_a_source().map(|step| (vec![step], DropReason::InnerSourceNotFromPeer));
            refused.extend(never);
        }
        rules.extend(refused.into_iter().map(|(when, reason)| [when, dropped(reason)].concat()));
        let to_anybody = [goto(&inner.name("to-anybody"))];
        rules.extend(networks.inside.with_pair(outer.source, inner.source, &to_anybody));
        let own = dropped(DropReason::InnerSourceIsOwn);
        rules.extend(networks.ours.with(inner.source, &own));
        rules.push([vec![inner.in_local(inner.source)], own].concat());
        if inner.family == self.family {
            rules.push(vec![
                compare(inner.protocol, Comparison::Equal, &[inner.icmp]),
                Step::PairIn {
                    source: outer.source,
                    field: inner.source,
                    prefix: inner.address_bits,
                    set: GATEWAYS.to_owned(),
                },
                goto(&inner.name("to-us")),
            ]);
        }
        // A field that the datagram is too short for fulfils no condition, so this drops it.
        rules.push(dropped(DropReason::InnerSourceNotFromPeer));
        rules
    }

    /// Rules of encapsulation, as in [`adit_policy::check_encap`], except for what the kernel's
    /// routes have decided.
    fn encap(&self, outer: &Outer, networks: &Networks) -> Vec<Rule> {
        let from_peer = Step::In { field: outer.source, prefix: outer.address_bits, set: PEERS.to_owned() };
        let then = if self.filter.mss_clamp { goto(MSS_CLAMP) } else { Step::Accept };
        let denied = Step::Count(DropReason::InnerSourceDenied.as_str().to_owned());
        [
            vec![[vec![from_peer], dropped(DropReason::InnerSourceIsTunnelExit)].concat()],
            networks.ours.with(outer.source_bytes, std::slice::from_ref(&then)),
            networks.theirs.with(outer.source_bytes, &[then]),
            vec![vec![denied, Step::Prohibit(self.family)]],
        ]
        .concat()
    }

    /// The chains at the kernel's hooks. `own` is our underlay address of the table's family.
    fn hooks(&self, outer: &Outer, own: Option<IpAddr>) -> Vec<Chain> {
        let into_tunnel = || Step::LeavesBy { set: TUNNELS.to_owned() };
        let tunneled = || TUNNELED.iter().filter(|(family, _)| self.carried.contains(family));
        let chain = |name: &str, hook, rules| Chain { name: name.to_owned(), hook: Some(hook), rules };
        let mut output = Vec::new();
        let mut chains = Vec::new();
        if let Some(own) = own {
            let to_us = || compare(outer.destination, Comparison::Equal, &octets(own));
            let from_us = || compare(outer.source, Comparison::Equal, &octets(own));
            let sent =
                || Step::In { field: outer.destination, prefix: outer.address_bits, set: SENT.to_owned() };
            let mut input = Vec::new();
            if self.family == Family::V6 {
                input.push(vec![to_us(), Step::LaterFragment, Step::Accept]);
            }
            for (family, protocol) in tunneled() {
                let decap = Inner::of(*family).name("decap");
                input.push(vec![Outer::carries(self.family, *protocol), to_us(), goto(&decap)]);
                output.push(vec![Outer::carries(self.family, *protocol), from_us(), sent(), Step::Accept]);
            }
            if self.family == Family::V6 {
                // The rules above cannot see what such a fragment carries (RFC 8200 section 4.5).
                input.push(vec![to_us(), Step::FirstFragment, Step::NamesProtocol, Step::Accept]);
                let refused = dropped(DropReason::DecapInnerMalformed);
                input.push([vec![to_us(), Step::FirstFragment], refused].concat());
            }
            chains.push(chain("input", Hook::Input, input));
            // The gateway itself answers echo requests and sends errors from its underlay address.
            output.push(vec![
                into_tunnel(),
                Outer::carries(self.family, outer.icmp),
                from_us(),
                Step::Accept,
            ]);
        }
        if self.family == Family::V6 {
            // The kernel reports the groups that it has joined on an interface. No peer asked.
            let to_group = compare(Field::network(24, 1), Comparison::Equal, &[0xff]);
            output.push(vec![into_tunnel(), to_group, Step::Drop]);
        }
        output.push(vec![into_tunnel(), goto("encap")]);
        chains.push(chain("forward", Hook::Forward, vec![vec![into_tunnel(), goto("encap")]]));
        chains.push(chain("output", Hook::Output, output));
        chains
    }
}

fn accepted(outer: &Outer) -> Vec<Rule> {
    let received = Step::In { field: outer.source, prefix: outer.address_bits, set: RECEIVED.to_owned() };
    vec![vec![received, Step::Accept]]
}

/// Conditions: the inner source is ff00::/8, fe80::/10, in ::/96 or in ::ffff:0:0/96, as in
/// [`adit_policy::InnerAddress::is_never_a_source`].
fn never_a_source() -> [Step; 4] {
    const SOURCE: u32 = 8;
    /// The part of an address before the IPv4 address in it.
    const BEFORE_V4: usize = 12;
    let before = |address: Ipv6Addr| octets(address.into())[..BEFORE_V4].to_vec();
    let starts =
        |value: Vec<u8>| compare(Field::payload(SOURCE, BEFORE_V4 as u32), Comparison::Equal, &value);
    [
        compare(Field::payload(SOURCE, 1), Comparison::Equal, &[0xff]),
        Step::Compare {
            field: Field::payload(SOURCE, 2),
            mask: Some(vec![0xff, 0xc0]),
            how: Comparison::Equal,
            value: vec![0xfe, 0x80],
        },
        starts(before(Ipv6Addr::UNSPECIFIED)),
        starts(before(std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped())),
    ]
}

fn compare(field: Field, how: Comparison, value: &[u8]) -> Step {
    Step::Compare { field, mask: None, how, value: value.to_vec() }
}

fn goto(chain: &str) -> Step {
    Step::Goto(chain.to_owned())
}

fn dropped(reason: DropReason) -> Rule {
    vec![Step::Count(reason.as_str().to_owned()), Step::Drop]
}

fn set(name: String, key: Key) -> Set {
    Set { name, key, counts: false, elements: BTreeSet::new() }
}

/// The name of an interface as the kernel compares it: 16 bytes, filled with zeros.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
