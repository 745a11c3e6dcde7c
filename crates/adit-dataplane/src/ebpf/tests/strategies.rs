//! Strategies for tunnels and packets: mostly valid, and close to where behaviour changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use adit_fixtures::packet::{Datagram, bare, mend, tcp, udp};
use adit_fixtures::packet_v6::bare_v6;
use adit_fixtures::site::A;
use adit_fixtures::{Direction, Packet, Path, Setup};
use adit_policy::{Owner, OwnerLookup};
use adit_tunnel::{PathOptions, Peer, PeerSet, Relay, Tunnel, TunnelConfig, UnderlayAddresses};
use adit_wire::Protocol;
use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy};
use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::ipv4::HEADER_LEN;
use adit_wire::ipv6::{self, is_ipv6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::vec;
use proptest::option::weighted;
use proptest::prelude::*;
use proptest::sample::select;

/// A test run's packet is smaller than a page.
const MAX_LEN: usize = 3000;
const MAX_PEERS: usize = 4;

/// Networks inside each other and beside each other. A tunnel gives each to somebody or to nobody.
const NETWORKS: [&str; 12] = [
    "172.16.0.0/12",
    "172.16.17.0/24",
    "172.16.17.0/26",
    "172.16.17.9/32",
    "192.168.0.0/16",
    "192.168.199.0/24",
    "192.168.199.128/25",
    "192.168.200.0/23",
    "198.18.0.0/15",
    "203.0.113.0/24",
    "203.0.113.77/32",
    "10.2.0.0/16",
];

/// Addresses inside those networks and at their ends.
const INSIDE: [&str; 16] = [
    "172.16.0.1",
    "172.16.17.0",
    "172.16.17.1",
    "172.16.17.9",
    "172.16.17.63",
    "172.16.17.64",
    "192.168.0.1",
    "192.168.199.1",
    "192.168.199.127",
    "192.168.199.128",
    "192.168.199.255",
    "192.168.201.7",
    "198.19.255.255",
    "203.0.113.1",
    "203.0.113.77",
    "10.2.3.4",
];

/// Addresses outside all of them: gateways, unknown sources, addresses of nobody.
const OUTSIDE: [&str; 11] = [
    "10.1.1.1",
    "10.1.1.2",
    "10.1.1.3",
    "10.1.1.4",
    "10.1.1.5",
    "10.1.1.9",
    "198.51.100.7",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
];

/// MTUs of outer datagrams: the smallest accepted of each family, the largest usual, and some
/// between.
const MTUS: [u16; 8] = [88, 100, 576, 1006, 1280, 1300, 1500, 1501];

fn parse(address: &str) -> Ipv4Addr {
    address.parse().expect("an address")
}

fn gateway(peer: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 1, 2 + peer as u8)
}

/// True in this percentage of cases.
fn rarely(percent: u32) -> impl Strategy<Value = bool> {
    (0..100_u32).prop_map(move |n| n < percent)
}

/// The families of the underlay addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    V4,
    V6,
    /// The site has both, and a peer either or both.
    Both,
}

/// Any of them.
pub(super) fn over() -> impl Strategy<Value = Over> {
    prop_oneof![2 => Just(Over::V4), 2 => Just(Over::V6), 1 => Just(Over::Both)]
}

/// A tunnel with one to four peers, and the state of their paths.
pub(super) fn setup() -> impl Strategy<Value = Setup> {
    over().prop_flat_map(setup_over)
}

/// The same over these families.
pub(super) fn setup_over(over: Over) -> BoxedStrategy<Setup> {
    let owners = vec(any::<usize>(), NETWORKS.len());
    let mtu = prop_oneof![2 => Just(1500), 1 => select(&MTUS[..])];
    let path = (mtu, rarely(10), rarely(90));
    let least = if over == Over::V4 { 0 } else { 1280 };
    let path = path.prop_map(move |(mtu, owed, known)| Path { mtu: mtu.max(least), owed, known });
    let usual = any::<bool>();
    let locals = vec(select(&["172.16.17.1", "192.168.199.1", "203.0.113.1"][..]), 0..3);
    let parts = (
        1..=MAX_PEERS,
        owners,
        vec(path, MAX_PEERS),
        usual,
        locals,
        policy(),
        any::<bool>(),
        rarely(80),
        (relay(), rarely(75)),
    );
    parts
        .prop_filter_map("a tunnel that there can be", move |parts| {
            let (peers, owners, paths, usual, locals, outer, mss_clamp, forwards, rest) = parts;
            let (relay, both_families) = rest;
            let underlay = |v4: Ipv4Addr, kind: usize| {
                let both = [IpAddr::from(v4), address_v6(v4).into()];
                let [first, second] = both;
                let addresses = match (over, kind % 4) {
                    (Over::V4, _) | (Over::Both, 2) => vec![first],
                    (Over::V6, _) | (Over::Both, 3) => vec![second],
                    (Over::Both, 1) => vec![second, first],
                    (Over::Both, _) => vec![first, second],
                };
                UnderlayAddresses::new(addresses).expect("of different families")
            };
            let kinds = owners.iter().fold(0, |sum: usize, owner| sum.wrapping_add(*owner));
            // 0: nobody, 1: us.
            let of = |owner| {
                let owned = NETWORKS.iter().zip(&owners).filter(move |(_, n)| **n % (peers + 2) == owner);
                let owned = owned.map(|(network, _)| network.parse::<Ipv4Net>().expect("a network"));
                owned
                    .flat_map(|network| [Some(network.into()), both_families.then(|| network_v6(network))])
                    .flatten()
                    .collect::<Vec<IpNet>>()
            };
            let mut set = PeerSet::nested(Some(underlay(A, 0)), of(1)).ok()?;
            for index in 0..peers {
                let name = format!("p{index}").parse().expect("a name");
                set.insert(Peer {
                    name,
                    underlay: underlay(gateway(index), kinds.wrapping_add(index)),
                    networks: of(index + 2),
                    path: PathOptions::default(),
                })
                .ok()?;
            }
            let config = TunnelConfig {
                underlay: underlay(A, 0),
                peers: set,
                outer,
                mss_clamp,
                relay,
                mtu_floor: adit_tunnel::DEFAULT_MTU_FLOOR,
                underlay_mtu: 1500,
                local_addresses: locals
                    .into_iter()
                    .flat_map(|local| [IpAddr::from(parse(local)), address_v6(parse(local)).into()])
                    .collect(),
                reachable_addresses: Vec::new(),
                probe: None,
            };
            Tunnel::new(config.clone()).ok()?;
            let path = |path: &Path| if usual { Path::of(path.mtu) } else { *path };
            Some(Setup { config, paths: paths.iter().take(peers).map(path).collect(), forwards })
        })
        .boxed()
}

/// Which peers reach each other: mostly all, sometimes none, or some.
fn relay() -> impl Strategy<Value = Relay> {
    let pair = |one: &str, other: &str| [one, other].map(|name| name.parse().expect("a name"));
    let pairs = vec![pair("p0", "p1"), pair("p2", "p1")];
    prop_oneof![6 => Just(Relay::Auto), 1 => Just(Relay::Off), 2 => Just(Relay::Pairs(pairs))]
}

fn policy() -> impl Strategy<Value = OuterPolicy> {
    let ttl = prop_oneof![(1..=255_u8).prop_map(TtlPolicy::Fixed), Just(TtlPolicy::Inherit)];
    let fixed = (0..64_u8).prop_map(|dscp| DscpPolicy::Fixed(Dscp::new(dscp).expect("six bits")));
    let dscp = prop_oneof![Just(DscpPolicy::Inherit), fixed];
    let ecn = select(&[EcnMode::Normal, EcnMode::Compatibility][..]);
    (ttl, dscp, ecn, any::<bool>()).prop_map(|(ttl, dscp, ecn, df)| OuterPolicy { ttl, dscp, ecn, df })
}

/// Packets from either side of a gateway.
pub(super) fn packets(
    setup: &Setup,
    count: usize,
) -> impl Strategy<Value = Vec<(Direction, Packet)>> + use<> {
    let ends = ends(setup);
    let inner = inner(ends.clone()).prop_map(|packet| (Direction::Encap, packet));
    let ours: Vec<bool> = setup.config.underlay.iter().map(|address| address.is_ipv6()).collect();
    let outer = select(ours).prop_flat_map(move |over_ipv6| outer(ends.clone(), over_ipv6).boxed());
    let outer = outer.prop_map(|packet| (Direction::Decap, packet));
    vec(prop_oneof![inner, outer].boxed(), count)
}

fn address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![9 => select(&INSIDE[..]), 1 => select(&OUTSIDE[..])].prop_map(parse)
}

/// A peer's gateway, and the two ends of a conversation.
type Ends = (Ipv4Addr, Ipv4Addr, Ipv4Addr);

/// Mostly between somebody behind that gateway and somebody in another network, if there are such.
fn ends(setup: &Setup) -> BoxedStrategy<Ends> {
    let tunnel = Tunnel::new(setup.config.clone()).expect("it has been made before");
    let owned: Vec<(Owner, Ipv4Addr)> = INSIDE
        .iter()
        .map(|text| parse(text))
        .filter_map(|inner| Some((tunnel.owner(inner)?, inner)))
        .collect();
    let pairs = owned.iter().flat_map(|here| owned.iter().map(move |there| (*here, *there)));
    let likely: Vec<Ends> = pairs
        .filter_map(|((here, from), (there, to))| match here {
            Owner::Peer(peer) if here != there => Some((gateway(peer.index()), from, to)),
            _ => None,
        })
        .collect();
    let any = ((0..MAX_PEERS).prop_map(gateway), address(), address());
    if likely.is_empty() {
        return any.boxed();
    }
    prop_oneof![4 => select(likely), 1 => any].boxed()
}

fn ttl() -> impl Strategy<Value = u8> {
    prop_oneof![8 => 2..=255_u8, 1 => Just(1), 1 => Just(0)]
}

/// IPv4 options: whole words.
fn ip_options() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![12 => Just(Vec::new()), 1 => vec(Just(1_u8), 4), 1 => vec(Just(1_u8), 40)]
}

/// Length of a datagram without options, in bytes: small, or close to what a path takes.
fn len() -> impl Strategy<Value = usize> {
    let edge = (select(&MTUS[..]), 18..=22_usize).prop_map(|(mtu, less)| usize::from(mtu) - less);
    prop_oneof![3 => 60..200_usize, 1 => edge]
}

/// A datagram of some transport between two addresses.
fn datagram(ends: impl Strategy<Value = (Ipv4Addr, Ipv4Addr)>) -> impl Strategy<Value = Datagram> {
    let transport = prop_oneof![
        4 => Just(Transport::Udp),
        4 => (any::<u8>(), tcp_options()).prop_map(|(flags, options)| Transport::Tcp { flags, options }),
        1 => select(&[1_u8, 2, 47, 255][..]).prop_map(Transport::Other),
        1 => Just(Transport::Nested),
        1 => (router_error(), prop_oneof![select(&OUTSIDE[..]), select(&INSIDE[..])])
            .prop_map(|(error, router)| Transport::RouterError { error, router: parse(router) }),
    ]
    .boxed();
    let whole = (ends, len(), transport).prop_map(|((from, to), len, transport)| match transport {
        Transport::Udp => udp(from, to, len),
        Transport::Tcp { flags, options } => {
            tcp(from, to, flags, &options, &vec![0x5a; len.saturating_sub(40 + options.len())])
        }
        Transport::Other(protocol) => bare(from, to, Protocol(protocol), vec![3; len - HEADER_LEN]),
        Transport::Nested => bare(from, to, Protocol::IPIP, udp(to, from, len - HEADER_LEN).build()),
        Transport::RouterError { error, router } => {
            let mut bytes = [0; icmpv4::MAX_ERROR_LEN];
            let end = icmpv4::build_error(&mut bytes, router, to, error, &udp(to, from, len).build());
            bare(router, to, Protocol::ICMP, bytes[HEADER_LEN..end].to_vec())
        }
    });
    (whole, any::<u8>(), ttl(), any::<bool>(), any::<u16>(), ip_options(), piece()).prop_map(
        |(datagram, tos, ttl, df, id, options, piece)| {
            let datagram = datagram.tos(tos).ttl(ttl).df(df).id(id).options(&options);
            match piece {
                Some((offset, len)) => datagram.piece(offset * 8, len),
                None => datagram,
            }
        },
    )
}

#[derive(Debug, Clone)]
enum Transport {
    Udp,
    Tcp {
        flags: u8,
        options: Vec<u8>,
    },
    Other(u8),
    Nested,
    /// An error from a router in the sender's site about a datagram to the sender.
    RouterError {
        error: Icmpv4Error,
        router: Ipv4Addr,
    },
}

fn router_error() -> BoxedStrategy<Icmpv4Error> {
    prop_oneof![
        (0..16_u8).prop_map(|code| Icmpv4Error::DestinationUnreachable { code }),
        any::<u16>().prop_map(|mtu| Icmpv4Error::TooBig { mtu }),
        (0..2_u8).prop_map(|code| Icmpv4Error::TimeExceeded { code }),
        any::<u8>().prop_map(|pointer| Icmpv4Error::ParameterProblem { code: 0, pointer }),
        Just(Icmpv4Error::SourceQuench),
    ]
    .boxed()
}

/// Where in a payload a fragment begins, in units of eight bytes, and its length in bytes.
fn piece() -> impl Strategy<Value = Option<(usize, usize)>> {
    weighted(0.08, (0..2_usize, 8..24_usize))
}

/// TCP options that are not an MSS, though some look like one.
const OTHER_OPTIONS: [&[u8]; 9] = [
    &[1, 1, 1, 1],
    &[1, 3, 3, 7],
    &[4, 2, 1, 1],
    &[1, 1, 8, 10, 2, 4, 2, 4, 0, 0, 2, 4],
    &[1, 2, 4, 9],
    &[2, 3, 5, 1],
    &[0, 0, 0, 0],
    &[9, 0, 0, 0],
    &[9, 44, 2, 4],
];

/// TCP options with the MSS first, elsewhere, twice, broken or absent, and with what only looks
/// like it.
fn tcp_options() -> impl Strategy<Value = Vec<u8>> {
    let mss = prop_oneof![0..=9000_u16, 1430..=1462_u16].prop_map(|mss| {
        let [high, low] = mss.to_be_bytes();
        vec![2, 4, high, low]
    });
    let other = select(&OTHER_OPTIONS[..]);
    let option = prop_oneof![mss.clone(), other.prop_map(<[u8]>::to_vec)];
    let usual = (mss, Just(vec![4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]));
    prop_oneof![
        Just(Vec::new()),
        usual.prop_map(|(mss, rest)| [mss, rest].concat()),
        vec(option, 0..=3).prop_map(|options| options.concat()),
    ]
}

/// What the host's stack gives to the tunnel interface. A test run needs at least a header.
fn inner(ends: BoxedStrategy<Ends>) -> impl Strategy<Value = Packet> {
    // Mostly from us to a peer, sometimes from peer to peer.
    let ends = ends.prop_map(|(_, there, here)| (here, there)).boxed();
    let one = (datagram(ends.clone()), family(), mutations(HEADER_LEN)).prop_map(
        |(datagram, family, mutations)| Packet::from(mutated(family.of(datagram.build()), &mutations)),
    );
    prop_oneof![9 => one, 1 => gso_packet(ends)]
}

/// In which family a datagram is.
#[derive(Debug, Clone, Copy)]
enum Family {
    V4,
    /// With this extension header, if any.
    V6(Option<u8>),
}

fn family() -> impl Strategy<Value = Family> {
    let extension = weighted(0.1, select(&[0_u8, 43, 44, 60][..]));
    prop_oneof![3 => Just(Family::V4), 2 => extension.prop_map(Family::V6)]
}

impl Family {
    /// The datagram itself, or a packet of IPv6 with the same transport between the same hosts.
    fn of(self, v4: Vec<u8>) -> Vec<u8> {
        let Family::V6(extension) = self else { return v4 };
        let ends = [&v4[12..16], &v4[16..20]].map(|octets| {
            let octets: [u8; 4] = octets.try_into().expect("an address");
            address_v6(octets.into()).octets()
        });
        let protocol = if v4[9] == Protocol::ICMP.0 { Protocol::ICMPV6.0 } else { v4[9] };
        let [next, behind] = [extension.unwrap_or(protocol), protocol];
        let mut payload = v4[usize::from(v4[0] & 0x0f) * 4..].to_vec();
        if v4[9] == Protocol::ICMP.0 {
            payload = error_v6(&payload, ends).unwrap_or(payload);
        }
        if extension.is_some() {
            payload.splice(..0, [behind, 0, 1, 4, 0, 0, 0, 0]);
        }
        let tos = v4[1];
        let mut bytes = vec![0x60 | tos >> 4, tos << 4 | v4[4] & 0x0f, v4[5], v4[4]];
        bytes.extend((payload.len() as u16).to_be_bytes());
        bytes.extend([next, v4[8]]);
        bytes.extend(ends.concat());
        bytes.extend(payload);
        bytes
    }
}

/// The same error of IPv6 about the same packet of IPv6, between these addresses. `None`: the
/// message is no error, or is cut.
fn error_v6(message: &[u8], ends: [[u8; 16]; 2]) -> Option<Vec<u8>> {
    let (header, quote) = message.split_first_chunk::<8>().filter(|(_, quote)| quote.len() >= HEADER_LEN)?;
    let [kind, code, _, _, pointer, _, high, low] = *header;
    let error = match (kind, code) {
        (3, 4) => Icmpv6Error::TooBig { mtu: u16::from_be_bytes([high, low]).into() },
        (3, code) => Icmpv6Error::DestinationUnreachable { code },
        (11, code) => Icmpv6Error::TimeExceeded { code },
        (12, code) => Icmpv6Error::ParameterProblem { code, pointer: pointer.into() },
        _ => return None,
    };
    let quote = Family::V6(None).of(quote.to_vec());
    let [from, to] = ends.map(Ipv6Addr::from);
    let mut bytes = [0; icmpv6::MAX_ERROR_LEN];
    let len = icmpv6::build_error(&mut bytes, from, to, error, &quote);
    Some(bytes[ipv6::HEADER_LEN..len].to_vec())
}

/// The IPv6 address of a host, by its IPv4 address. Those of nobody become those that IPv6 has
/// instead.
fn address_v6(v4: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = v4.octets();
    match a {
        0 => Ipv6Addr::UNSPECIFIED,
        127 => Ipv6Addr::LOCALHOST,
        224 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        255 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
        198 if b == 51 => v4.to_ipv6_mapped(),
        _ => Ipv6Addr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]),
    }
}

/// The IPv6 network of the same hosts.
fn network_v6(v4: Ipv4Net) -> IpNet {
    Ipv6Net::new_assert(address_v6(v4.network()), 96 + v4.prefix_len()).into()
}

/// A TCP or UDP packet to be segmented.
fn gso_packet(ends: impl Strategy<Value = (Ipv4Addr, Ipv4Addr)>) -> impl Strategy<Value = Packet> {
    let size = prop_oneof![100..1500_u16, Just(1440), Just(1441), Just(1452), Just(1453)];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6(None))];
    let parts = (ends, any::<bool>(), 1000..2800_usize, size, any::<u8>(), ttl(), any::<bool>(), family);
    parts.prop_map(|((from, to), stream, len, size, tos, ttl, df, family)| {
        let datagram = if stream { tcp(from, to, 0x10, &[], &vec![7; len - 40]) } else { udp(from, to, len) };
        let packet = datagram.tos(tos).ttl(ttl).df(df).cut_at(size);
        Packet { bytes: family.of(packet.bytes), ..packet }
    })
}

/// What arrives from the underlay.
fn outer(ends: BoxedStrategy<Ends>, over_ipv6: bool) -> impl Strategy<Value = Packet> {
    let inside = ends.prop_flat_map(|(gateway, from, to)| {
        let ends = Just((from, to));
        let one = (datagram(ends), family(), mutations(0)).prop_map(|(datagram, family, mutations)| {
            Packet::from(mutated(family.of(datagram.build()), &mutations))
        });
        (Just(gateway), prop_oneof![9 => one, 1 => gso_packet(ends)])
    });
    let unknown = weighted(0.05, select(&OUTSIDE[..]).prop_map(parse));
    let elsewhere = weighted(0.05, select(&OUTSIDE[..]).prop_map(parse));
    let fields = (any::<u8>(), 1..=255_u8, any::<bool>(), any::<u16>(), ip_options(), piece());
    let fields = fields.prop_map(|(tos, ttl, df, id, options, piece)| OuterFields {
        tos,
        ttl,
        df,
        id,
        options,
        piece,
    });
    let least = if over_ipv6 { ipv6::HEADER_LEN } else { HEADER_LEN };
    let after = (weighted(0.2, 1..40_usize), mutations(least));
    (inside, unknown, elsewhere, fields, after).prop_map(
        move |((gateway, inside), unknown, elsewhere, fields, after)| {
            let (padding, mutations) = after;
            let ends = (unknown.unwrap_or(gateway), elsewhere.unwrap_or(A));
            let write = if over_ipv6 { OuterFields::in_ipv6 } else { OuterFields::in_ipv4 };
            let gso_size = inside.gso_size;
            let bytes = write(&fields, ends, inside);
            if gso_size.is_some() {
                return Packet { bytes, gso_size };
            }
            let mut bytes = mutated(bytes, &mutations);
            bytes.extend(vec![0xa5; padding.unwrap_or(0)]);
            bytes.into()
        },
    )
}

/// Fields of an outer header.
#[derive(Debug, Clone)]
struct OuterFields {
    tos: u8,
    ttl: u8,
    df: bool,
    id: u16,
    options: Vec<u8>,
    piece: Option<(usize, usize)>,
}

impl OuterFields {
    fn in_ipv4(&self, (from, to): (Ipv4Addr, Ipv4Addr), inside: Packet) -> Vec<u8> {
        let outer = bare(from, to, protocol_of(&inside), inside.bytes);
        let outer = outer.tos(self.tos).ttl(self.ttl).df(self.df).id(self.id);
        let outer = match self.piece {
            _ if inside.gso_size.is_some() => outer,
            // A fragment of something as large, so that nothing is cut short.
            Some((offset, _)) if !self.df => outer.fragment(offset == 0, offset * 8),
            _ => outer.options(&self.options),
        };
        outer.build()
    }

    fn in_ipv6(&self, (from, to): (Ipv4Addr, Ipv4Addr), inside: Packet) -> Vec<u8> {
        let outer = bare_v6(address_v6(from), address_v6(to), protocol_of(&inside), inside.bytes);
        let outer = outer.traffic_class(self.tos).hop_limit(self.ttl).flow_label(self.id.into());
        let outer = match self.piece {
            _ if inside.gso_size.is_some() => outer,
            Some((offset, _)) if !self.df => {
                let (more, offset) = (u8::from(offset == 0), offset as u8 * 8);
                outer.extension(Protocol::FRAGMENT, [0, 0, offset | more, 0, 0, 0, 7])
            }
            _ if self.options.is_empty() => outer,
            _ => outer.extension(Protocol::DESTINATION_OPTIONS, [0, 4, 1, self.ttl, 1, 1, 0]),
        };
        outer.build()
    }
}

/// What an outer header says of a packet.
fn protocol_of(inside: &Packet) -> Protocol {
    if is_ipv6(&inside.bytes) { Protocol::IPV6 } else { Protocol::IPIP }
}

/// A change to a valid packet.
#[derive(Debug, Clone)]
enum Mutation {
    /// Flips a bit of its first bytes.
    Flip { at: usize, bit: u8, mended: bool },
    /// Sets a byte of its first bytes.
    Set { at: usize, value: u8, mended: bool },
    /// Ends it early.
    Cut { len: usize },
    /// Appends bytes.
    Extend { by: usize },
}

/// A few changes or none, which leave at least `least` bytes.
fn mutations(least: usize) -> impl Strategy<Value = Vec<Mutation>> {
    const HEADERS: RangeInclusive<usize> = 0..=63;
    let mutation = prop_oneof![
        3 => (HEADERS, 0..8_u8, any::<bool>()).prop_map(|(at, bit, mended)| Mutation::Flip { at, bit, mended }),
        3 => (HEADERS, any::<u8>(), any::<bool>()).prop_map(|(at, value, mended)| Mutation::Set { at, value, mended }),
        1 => (least..80).prop_map(|len| Mutation::Cut { len }),
        1 => (1..30_usize).prop_map(|by| Mutation::Extend { by }),
    ];
    prop_oneof![3 => Just(Vec::new()), 1 => vec(mutation, 1..3)]
}

fn mutated(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let mend_it = match *mutation {
            Mutation::Flip { at, bit, mended } => bytes.get_mut(at).is_some_and(|byte| {
                *byte ^= 1 << bit;
                mended
            }),
            Mutation::Set { at, value, mended } => bytes.get_mut(at).is_some_and(|byte| {
                *byte = value;
                mended
            }),
            Mutation::Cut { len } => {
                bytes.truncate(len);
                false
            }
            Mutation::Extend { by } => {
                bytes.extend(vec![0x33; by]);
                false
            }
        };
        if mend_it && bytes.len() >= HEADER_LEN && !is_ipv6(&bytes) {
            mend(&mut bytes);
        }
    }
    bytes.truncate(MAX_LEN);
    bytes
}
