//! The rules of [`adit_policy`] as a table of nf_tables, since the driver has no such rules. Pure:
//! makes a [`Ruleset`] from a configuration.
//!
//! The driver takes a datagram after the hook *input*, where the kernel has reassembled outer
//! fragments. There the outer header is the datagram's own, and the inner one is payload. The rules
//! look up the pair of the outer source and the inner source cut to a prefix, in a set for each
//! prefix length that occurs. This is as fast with 100,000 networks as with one, and as fast to
//! fill.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use adit_linux::family::Family;
use adit_linux::nftables::{Chain, Comparison, Field, Hook, Key, Rule, Ruleset, Set, Step};
use adit_policy::{DropReason, PROBE_IDENTIFIER};
use adit_wire::icmpv4::types;
use ipnet::Ipv4Net;

/// The configuration of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The site that the table is named after.
    pub site: String,
    /// This site's underlay address.
    pub underlay: Option<Ipv4Addr>,
    /// This site's networks.
    pub networks: Vec<Ipv4Net>,
    /// The gateway's own addresses.
    pub local: Vec<Ipv4Addr>,
    /// Those outside its networks that peers may reach.
    pub reachable: Vec<Ipv4Addr>,
    /// Each peer's underlay address and networks.
    pub peers: Vec<(Ipv4Addr, Vec<Ipv4Net>)>,
    /// Underlay addresses of the peers that reach each other, for each direction; `None`: all.
    pub relayed: Option<Vec<(Ipv4Addr, Ipv4Addr)>>,
    /// Names of the tunnel interfaces.
    pub devices: Vec<String>,
    /// Whether one of them takes datagrams from any source, so that the table must drop those of
    /// unknown sources. Otherwise the kernel has no interface for them, or one that is not ours.
    pub takes_all: bool,
    /// Remote addresses of tunnels that are not ours.
    pub others: Vec<Ipv4Addr>,
    /// Whether to lower the MSS of TCP connections.
    pub mss_clamp: bool,
}

/// The name of a site's table.
#[must_use]
pub fn table_name(site: &str) -> String {
    format!("adit_{site}")
}

/// The set whose elements count the admitted datagrams from each peer.
pub const RECEIVED: &str = "received";
/// The set whose elements count the datagrams to each peer.
pub const SENT: &str = "sent";

/// Reasons that the table can drop for; each has a counter.
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
const LOCAL: &str = "local";
const TUNNELS: &str = "tunnels";
const GATEWAYS: &str = "gateways";
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const ICMP: u8 = 1;
const IP_HEADERS: u16 = 40;

// Fields of the inner header, which is the outer one's payload.
const INNER_VERSION: Field = Field::payload(0, 1);
const INNER_TTL: Field = Field::payload(8, 1);
const INNER_PROTOCOL: Field = Field::payload(9, 1);
const INNER_SOURCE: Field = Field::payload(12, 4);
const INNER_DESTINATION: Field = Field::payload(16, 4);
// Those of ICMP behind an inner header without options.
const INNER_ICMP_TYPE: Field = Field::payload(20, 1);
const INNER_ICMP_IDENTIFIER: Field = Field::payload(24, 2);

/// Networks in one set per prefix length. The sets' names are a common word and the length.
struct ByPrefix {
    name: &'static str,
    sets: BTreeMap<u8, Set>,
}

impl ByPrefix {
    fn new(
        name: &'static str,
        key: Key,
        networks: impl Iterator<Item = (Option<Ipv4Addr>, Ipv4Net)>,
    ) -> Self {
        let mut sets: BTreeMap<u8, Set> = BTreeMap::new();
        for (outer, network) in networks {
            let prefix = network.prefix_len();
            let set = sets.entry(prefix).or_insert_with(|| set(format!("{name}-{prefix}"), key));
            let outer = outer.map_or_else(Vec::new, |outer| outer.octets().to_vec());
            set.elements.insert([outer, network.network().octets().to_vec()].concat());
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

    fn with_pair(&self, field: Field, then: &[Step]) -> Vec<Rule> {
        self.rules(|prefix, set| Step::PairIn { field, prefix, set }, then)
    }
}

impl Filter {
    /// The table.
    #[must_use]
    pub fn ruleset(&self) -> Ruleset {
        let reachable = self.reachable.iter().copied().map(Ipv4Net::from);
        let networks = self.networks.iter().copied().chain(reachable);
        let ours = ByPrefix::new("ours", Key::Bytes, networks.map(|network| (None, network)));
        let behind = || self.peers.iter().flat_map(|(peer, networks)| networks.iter().map(|n| (*peer, *n)));
        let inside =
            ByPrefix::new("inside", Key::Pair, behind().map(|(peer, network)| (Some(peer), network)));
        // Only a hub relays between peers.
        let relayed = behind().filter(|_| self.peers.len() > 1);
        let theirs = ByPrefix::new("theirs", Key::Bytes, relayed.map(|(_, network)| (None, network)));
        let relayed_or_not =
            if self.relayed.is_some() { dropped(DropReason::RelayRefused) } else { vec![goto("accepted")] };
        let listed = ByPrefix::new("relayed", Key::Pair, self.listed());
        let underlay = self.underlay.unwrap_or(Ipv4Addr::UNSPECIFIED);

        let mut chains = vec![
            Chain { name: "accepted".to_owned(), hook: None, rules: accepted() },
            Chain {
                name: "to-us".to_owned(),
                hook: None,
                rules: [vec![icmp_to(underlay)], ours.with(INNER_DESTINATION, &[goto("accepted")])]
                    .concat()
                    .into_iter()
                    .chain([unanswerable_probe(), dropped(DropReason::InnerDestinationNotOurs)])
                    .collect(),
            },
            Chain {
                name: "to-anybody".to_owned(),
                hook: None,
                rules: [
                    // Back to the peer that it came from: not even a hub does that.
                    inside.with_pair(INNER_DESTINATION, &dropped(DropReason::InnerDestinationNotOurs)),
                    // The kernel would deliver to an address of its own instead of relaying.
                    vec![vec![in_local(INNER_DESTINATION), goto("to-us")]],
                    listed.with_pair(INNER_DESTINATION, &[goto("accepted")]),
                    theirs.with(INNER_DESTINATION, &relayed_or_not),
                    vec![vec![goto("to-us")]],
                ]
                .concat(),
            },
            Chain { name: "decap".to_owned(), hook: None, rules: self.decap(underlay, &inside, &ours) },
        ];
        if self.mss_clamp {
            let rules = vec![vec![Step::TcpSyn, Step::LowerMss]];
            chains.push(Chain { name: "mss-clamp".to_owned(), hook: None, rules });
        }
        chains.push(Chain { name: "encap".to_owned(), hook: None, rules: self.encap(&ours, &theirs) });
        chains.extend(hooks(underlay));

        let mut sets = vec![
            addresses(PEERS, self.peers.iter().map(|(peer, _)| *peer)),
            Set { key: Key::Bytes, ..addresses(LOCAL, self.local.iter().copied().chain([underlay])) },
            Set { counts: true, ..addresses(RECEIVED, self.peers.iter().map(|(peer, _)| *peer)) },
            Set { counts: true, ..addresses(SENT, self.peers.iter().map(|(peer, _)| *peer)) },
            Set {
                elements: self
                    .peers
                    .iter()
                    .map(|(peer, _)| [peer.octets(), peer.octets()].concat())
                    .collect(),
                ..set(GATEWAYS.to_owned(), Key::Pair)
            },
            Set {
                elements: self.devices.iter().map(|name| interface(name)).collect(),
                ..set(TUNNELS.to_owned(), Key::Interface)
            },
        ];
        if self.takes_all {
            sets.push(addresses(OTHERS, self.others.iter().copied()));
        }
        for networks in [ours, inside, theirs, listed] {
            sets.extend(networks.sets.into_values());
        }
        let counters = REASONS.iter().map(|reason| reason.as_str().to_owned()).collect();
        Ruleset { family: Family::V4, table: table_name(&self.site), is_owned: false, counters, sets, chains }
    }

    /// The networks of peers to which a listed peer may send, with its underlay address.
    fn listed(&self) -> impl Iterator<Item = (Option<Ipv4Addr>, Ipv4Net)> {
        let networks: BTreeMap<Ipv4Addr, &[Ipv4Net]> =
            self.peers.iter().map(|(peer, networks)| (*peer, networks.as_slice())).collect();
        let to = move |peer| networks.get(&peer).copied().unwrap_or_default();
        let pairs = self.relayed.iter().flatten();
        pairs.flat_map(move |(from, peer)| to(*peer).iter().map(|network| (Some(*from), *network)))
    }

    /// Rules of decapsulation, as in [`adit_policy::check_decap`]. Networks that lie in each other
    /// have one owner, so a set is as good as the longest prefix.
    fn decap(&self, underlay: Ipv4Addr, inside: &ByPrefix, ours: &ByPrefix) -> Vec<Rule> {
        let mut rules = Vec::new();
        let is_unknown = Step::NotIn { field: Field::SOURCE, set: PEERS.to_owned() };
        if self.takes_all {
            rules.push(vec![
                Step::In { field: Field::SOURCE, prefix: 32, set: OTHERS.to_owned() },
                Step::Accept,
            ]);
            rules.push([vec![is_unknown], dropped(DropReason::OuterSourceUnknown)].concat());
        } else {
            // The kernel has no interface of ours for it, but may have somebody else's.
            let counted = Step::Count(DropReason::OuterSourceUnknown.as_str().to_owned());
            rules.push(vec![is_unknown, counted, Step::Accept]);
        }
        let nested = |protocol| {
            vec![
                compare(INNER_PROTOCOL, Comparison::Equal, &[protocol]),
                compare(INNER_DESTINATION, Comparison::Equal, &underlay.octets()),
            ]
        };
        let refused = [
            (
                vec![compare(Field::LENGTH, Comparison::Less, &IP_HEADERS.to_be_bytes())],
                DropReason::DecapInnerMalformed,
            ),
            (vec![version_is_not_4()], DropReason::DecapInnerNotIpv4),
            (vec![compare(INNER_TTL, Comparison::Equal, &[0])], DropReason::DecapInnerTtlZero),
            (nested(IPIP), DropReason::NestedToOurselves),
            (nested(IPV6), DropReason::NestedToOurselves),
        ];
        rules.extend(refused.into_iter().map(|(when, reason)| [when, dropped(reason)].concat()));
        rules.extend(inside.with_pair(INNER_SOURCE, &[goto("to-anybody")]));
        let own = dropped(DropReason::InnerSourceIsOwn);
        rules.extend(ours.with(INNER_SOURCE, &own));
        rules.push([vec![in_local(INNER_SOURCE)], own].concat());
        rules.push(vec![
            compare(INNER_PROTOCOL, Comparison::Equal, &[ICMP]),
            Step::PairIn { field: INNER_SOURCE, prefix: 32, set: GATEWAYS.to_owned() },
            goto("to-us"),
        ]);
        rules.push(dropped(DropReason::InnerSourceNotFromPeer));
        rules
    }

    /// Rules of encapsulation, as in [`adit_policy::check_encap`], except for what the kernel's
    /// routes have decided.
    fn encap(&self, ours: &ByPrefix, theirs: &ByPrefix) -> Vec<Rule> {
        let from_peer = Step::In { field: Field::SOURCE, prefix: 32, set: PEERS.to_owned() };
        let then = if self.mss_clamp { goto("mss-clamp") } else { Step::Accept };
        let denied = Step::Count(DropReason::InnerSourceDenied.as_str().to_owned());
        [
            vec![[vec![from_peer], dropped(DropReason::InnerSourceIsTunnelExit)].concat()],
            ours.with(Field::SOURCE_BYTES, std::slice::from_ref(&then)),
            theirs.with(Field::SOURCE_BYTES, &[then]),
            vec![vec![denied, Step::Prohibit]],
        ]
        .concat()
    }
}

/// The chains at the kernel's hooks.
fn hooks(underlay: Ipv4Addr) -> [Chain; 3] {
    let is_ipip = || compare(Field::PROTOCOL, Comparison::Equal, &[IPIP]);
    let into_tunnel = || Step::LeavesBy { set: TUNNELS.to_owned() };
    let from_us = || compare(Field::SOURCE, Comparison::Equal, &underlay.octets());
    let to_us = compare(Field::DESTINATION, Comparison::Equal, &underlay.octets());
    let sent = Step::In { field: Field::DESTINATION, prefix: 32, set: SENT.to_owned() };
    let chain = |name: &str, hook, rules| Chain { name: name.to_owned(), hook: Some(hook), rules };
    [
        chain("input", Hook::Input, vec![vec![is_ipip(), to_us, goto("decap")]]),
        chain("forward", Hook::Forward, vec![vec![into_tunnel(), goto("encap")]]),
        chain(
            "output",
            Hook::Output,
            vec![
                vec![is_ipip(), from_us(), sent, Step::Accept],
                // The gateway itself answers echo requests and sends errors from its underlay
                // address.
                vec![
                    into_tunnel(),
                    compare(Field::PROTOCOL, Comparison::Equal, &[ICMP]),
                    from_us(),
                    Step::Accept,
                ],
                vec![into_tunnel(), goto("encap")],
            ],
        ),
    ]
}

fn accepted() -> Vec<Rule> {
    vec![vec![Step::In { field: Field::SOURCE, prefix: 32, set: RECEIVED.to_owned() }, Step::Accept]]
}

fn in_local(field: Field) -> Step {
    Step::In { field, prefix: 32, set: LOCAL.to_owned() }
}

/// Peers reach the underlay address by ICMP only.
fn icmp_to(underlay: Ipv4Addr) -> Rule {
    vec![
        compare(INNER_PROTOCOL, Comparison::Equal, &[ICMP]),
        compare(INNER_DESTINATION, Comparison::Equal, &underlay.octets()),
        goto("accepted"),
    ]
}

/// A probe for an address that this gateway does not have, because it is behind NAT. Nobody has
/// lost anything, so it is not counted.
fn unanswerable_probe() -> Rule {
    vec![
        compare(INNER_PROTOCOL, Comparison::Equal, &[ICMP]),
        compare(INNER_ICMP_TYPE, Comparison::Equal, &[types::ECHO_REQUEST]),
        compare(INNER_ICMP_IDENTIFIER, Comparison::Equal, &PROBE_IDENTIFIER.to_be_bytes()),
        Step::Drop,
    ]
}

fn version_is_not_4() -> Step {
    Step::Compare {
        field: INNER_VERSION,
        mask: Some(vec![0xf0]),
        how: Comparison::NotEqual,
        value: vec![0x40],
    }
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

fn addresses(name: &str, addresses: impl Iterator<Item = Ipv4Addr>) -> Set {
    let elements = addresses.map(|address| address.octets().to_vec()).collect();
    Set { elements, ..set(name.to_owned(), Key::Address) }
}

/// The name of an interface as the kernel compares it: 16 bytes, filled with zeros.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}
