//! Packets of IPv6 in IPv4: RFC 4213 sections 3.2, 3.5 and 3.6, RFC 6040.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::encapsulation::TtlPolicy;
use adit_wire::icmpv6::{Icmpv6Error, unreachable};

use super::{NOT_A_FRAME, NOT_FORWARDED, NOT_LEARNED, NOT_RECEIVED};
use crate::case::{Case, Counts, decap_v6, encap_v6};
use crate::packet::{Datagram, Packet, a_to_b, ours, theirs, udp};
use crate::packet_v6::{PacketV6, a_to_b_v6, bare_v6, icmp_v6, tcp_v6, udp_v6};
use crate::site::{
    A, B, C, HOST_A6, HOST_B, HOST_B6, HOST_C6, INSIDE_A, INSIDE_A6, PEER_B, PEER_C, STRANGER, STRANGER6,
};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const ECHO_REQUEST: [u8; 2] = [128, 0];
/// Next header 59: nothing follows (RFC 8200 section 4.7).
const NO_NEXT_HEADER: Protocol = Protocol(59);
const OPTIONED: Protocol = Protocol::DESTINATION_OPTIONS;
/// A PadN option of six bytes, after the length of its header.
const PADDED: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];

const NOT_DECIDED: &str = "the host decides what becomes of it";

pub(super) fn cases() -> Vec<Case> {
    [
        encapsulated(),
        outer_header(),
        too_big(),
        refused(),
        malformed(),
        decapsulated(),
        spoofed(),
        malformed_inside(),
        relayed(),
        mss(),
        gso_packets(),
        router_errors(),
    ]
    .concat()
}

/// An outer datagram as gateway A writes it.
fn sent(to: Ipv4Addr, inner: impl Into<Packet>) -> Datagram {
    ours(to, inner).protocol(Protocol::IPV6)
}

/// An outer datagram as another gateway sends it.
fn received(from: Ipv4Addr, inner: impl Into<Packet>) -> Datagram {
    theirs(from, inner).protocol(Protocol::IPV6)
}

/// UDP from host B to host A.
fn b_to_a() -> PacketV6 {
    udp_v6(HOST_B6, HOST_A6, 100)
}

/// TCP with the first sequence number of a stream.
fn tcp(source: Ipv6Addr, destination: Ipv6Addr, flags: u8, options: &[u8], payload: &[u8]) -> PacketV6 {
    tcp_v6((source, destination), 0x1234_5678, flags, options, payload)
}

fn encapsulated() -> Vec<Case> {
    let to_c = || udp_v6(HOST_A6, HOST_C6, 60);
    let segment = || tcp(HOST_A6, HOST_B6, ACK, &[], &[7; 200]);
    let echo = || icmp_v6((HOST_A6, HOST_B6), ECHO_REQUEST, 1, &[5; 40]);
    let small = || bare_v6(HOST_A6, HOST_B6, NO_NEXT_HEADER, Vec::new());
    let nested = || bare_v6(HOST_A6, HOST_B6, Protocol::IPV6, a_to_b_v6().build());
    let v4 = || bare_v6(HOST_A6, HOST_B6, Protocol::IPIP, a_to_b().build());
    let own = || udp_v6(INSIDE_A6, HOST_B6, 80);
    let relayed = || udp_v6(HOST_C6, HOST_B6, 80);
    let whole = || udp_v6(HOST_A6, HOST_B6, 1400);
    let optioned = || a_to_b_v6().extension(OPTIONED, PADDED);
    vec![
        encap_v6("IPv6: UDP", a_to_b_v6()).sends(PEER_B, sent(B, a_to_b_v6())),
        encap_v6("IPv6: UDP to the other peer", to_c()).sends(PEER_C, sent(C, to_c())),
        encap_v6("IPv6: TCP", segment()).sends(PEER_B, sent(B, segment())),
        encap_v6("IPv6: an echo request", echo()).sends(PEER_B, sent(B, echo())),
        encap_v6("IPv6: a header and nothing behind it", small()).sends(PEER_B, sent(B, small())),
        encap_v6("IPv6: a tunnel between hosts is a packet like any other", nested())
            .sends(PEER_B, sent(B, nested())),
        encap_v6("IPv6: a tunnel of IPv4 between hosts too", v4()).sends(PEER_B, sent(B, v4())),
        encap_v6("IPv6: what the gateway itself sends", own())
            .sends(PEER_B, sent(B, own()))
            .not_end_to_end("only a forgery comes from outside with this source"),
        encap_v6("IPv6: from one peer to another, forwarded by the host", relayed())
            .sends(PEER_B, sent(B, relayed())),
        encap_v6("IPv4 beside IPv6", a_to_b()).sends(PEER_B, ours(B, a_to_b())),
        // The programs read the header that follows, and no more.
        encap_v6("IPv6: destination options", optioned()).sends(PEER_B, sent(B, optioned())).declined(),
        encap_v6("IPv6: the first fragment", whole().piece(0, 800))
            .sends(PEER_B, sent(B, whole().piece(0, 800)))
            .declined(),
        encap_v6("IPv6: a later fragment", whole().piece(800, 560))
            .sends(PEER_B, sent(B, whole().piece(800, 560)))
            .declined(),
        encap_v6("IPv6: the next hop is not known", a_to_b_v6())
            .with(|setup| setup.paths[0].known = false)
            .sends(PEER_B, sent(B, a_to_b_v6()))
            .declined(),
        encap_v6("IPv6: a pending error, answered", a_to_b_v6())
            .with(|setup| setup.paths[0].owed = true)
            .answers_v6(
                DropReason::PeerUnreachable,
                Some(PEER_B),
                HOST_A6,
                Icmpv6Error::DestinationUnreachable { code: unreachable::ADDRESS },
            )
            .not_end_to_end(NOT_LEARNED),
    ]
}

/// RFC 4213 section 3.5.
fn outer_header() -> Vec<Case> {
    const MARKED: u8 = 0b1011_1000;
    let marked = || a_to_b_v6().traffic_class(MARKED);
    let one = || a_to_b_v6().hop_limit(1);
    let nine = || a_to_b_v6().hop_limit(9);
    vec![
        encap_v6("IPv6: the DSCP is inherited", marked()).sends(PEER_B, sent(B, marked()).tos(MARKED)),
        encap_v6("IPv6: the TTL is fixed", one())
            .with(|setup| setup.config.outer.ttl = TtlPolicy::Fixed(200))
            .sends(PEER_B, sent(B, one()).ttl(200)),
        encap_v6("IPv6: the hop limit is inherited", nine())
            .with(|setup| setup.config.outer.ttl = TtlPolicy::Inherit)
            .sends(PEER_B, sent(B, nine()).ttl(9)),
        encap_v6("IPv6: a hop limit of 1 is enough for the tunnel", one()).sends(PEER_B, sent(B, one())),
        encap_v6("IPv6: DF outside, whatever the policy", a_to_b_v6())
            .with(|setup| setup.config.outer.df = false)
            .sends(PEER_B, sent(B, a_to_b_v6())),
    ]
}

/// RFC 4213 section 3.2.2.
fn too_big() -> Vec<Case> {
    let of = |len| udp_v6(HOST_A6, HOST_B6, len);
    let narrow = |setup: &mut crate::Setup| setup.paths[0].mtu = 1000;
    let error = |mtu| Icmpv6Error::TooBig { mtu };
    let whole = |len| sent(B, of(len)).df(false);
    let answered = |name: &str, len, mtu| {
        let draft = encap_v6(name, of(len)).with(|setup| setup.paths[0].mtu = mtu);
        let left = u32::from(mtu - 20).max(1280);
        draft
            .answers_v6(DropReason::InnerTooBig, Some(PEER_B), HOST_A6, error(left))
            .not_end_to_end(NOT_LEARNED)
    };
    let cut = |name: &str, len: usize| {
        let pieces = vec![whole(len).piece(0, 976).build(), whole(len).piece(976, len - 976).build()];
        encap_v6(name, of(len))
            .with(narrow)
            .sends_all(PEER_B, pieces)
            .counting(|counts| counts.tx = Some((PEER_B, 1, len as u64)))
            .declined()
            .not_end_to_end(NOT_LEARNED)
    };
    vec![
        encap_v6("IPv6: exactly as much as the path takes", of(1480)).sends(PEER_B, sent(B, of(1480))),
        answered("IPv6: a byte too many", 1481, 1500),
        answered("IPv6: a byte too many for the narrowest path of IPv6", 1281, 1300),
        answered("IPv6: a byte too many for a path that is too narrow for IPv6", 1281, 1000),
        encap_v6("IPv6: as much as a narrow path takes", of(980))
            .with(narrow)
            .sends(PEER_B, sent(B, of(980)))
            .not_end_to_end(NOT_LEARNED),
        cut("IPv6: a byte more than a narrow path takes, in outer fragments", 981),
        cut("IPv6: 1280 bytes over a narrow path, in outer fragments", 1280),
    ]
}

fn refused() -> Vec<Case> {
    let unreachable = |code| Icmpv6Error::DestinationUnreachable { code };
    let from = |source| udp_v6(source, HOST_B6, 100);
    let silent = |name: &str, packet: PacketV6| {
        encap_v6(name, packet)
            .drops(DropReason::InnerDestinationUnknown, None)
            .declined()
            .counting(|counts| counts.icmp_suppressed = 1)
            .not_end_to_end(NOT_FORWARDED)
    };
    vec![
        encap_v6("IPv6: to nobody's network", udp_v6(HOST_A6, STRANGER6, 100))
            .answers_v6(
                DropReason::InnerDestinationUnknown,
                None,
                HOST_A6,
                unreachable(unreachable::NO_ROUTE),
            )
            .not_end_to_end(NOT_FORWARDED),
        silent(
            "IPv6: an ICMP error to nobody's network",
            icmp_v6((HOST_A6, STRANGER6), [1, 0], 0, &[0x60; 40]),
        ),
        silent("IPv6: to a group", udp_v6(HOST_A6, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 0x101), 100)),
        encap_v6("IPv6: from nobody's network", from(STRANGER6)).answers_v6(
            DropReason::InnerSourceDenied,
            Some(PEER_B),
            STRANGER6,
            unreachable(unreachable::PROHIBITED),
        ),
        encap_v6("IPv6: a hop limit of 0", a_to_b_v6().hop_limit(0))
            .answers_v6(DropReason::InnerTtlZero, None, HOST_A6, Icmpv6Error::TimeExceeded { code: 0 })
            .not_end_to_end(NOT_FORWARDED),
        encap_v6("IPv6: back to the peer that it came from", from(HOST_B6))
            .drops(DropReason::RelayToSamePeer, Some(PEER_B)),
    ]
}

fn malformed() -> Vec<Case> {
    let wrong = |name: &str, bytes: Vec<u8>| {
        encap_v6(name, bytes).drops(DropReason::InnerMalformed, None).declined().not_end_to_end(NOT_FORWARDED)
    };
    let with_payload_len = |len: u16| {
        let mut bytes = a_to_b_v6().build();
        bytes[4..6].copy_from_slice(&len.to_be_bytes());
        bytes
    };
    vec![
        wrong("IPv6: a payload length beyond the end", with_payload_len(61)),
        wrong("IPv6: a payload length before the end", with_payload_len(59)),
        wrong("IPv6: a header cut short", a_to_b_v6().build()[..39].to_vec()),
    ]
}

fn decapsulated() -> Vec<Case> {
    let segment = || tcp(HOST_B6, HOST_A6, ACK, &[], &[7; 200]);
    let short = || bare_v6(HOST_B6, HOST_A6, NO_NEXT_HEADER, Vec::new());
    let padded = |bytes: Vec<u8>| [bytes, vec![0; 6]].concat();
    let to_gateway = || udp_v6(HOST_B6, INSIDE_A6, 90);
    let last_hop = || b_to_a().hop_limit(1);
    let whole = || udp_v6(HOST_B6, HOST_A6, 1400);
    let optioned = || b_to_a().extension(OPTIONED, PADDED);
    let v4 = || udp(HOST_B, INSIDE_A, 100);
    vec![
        decap_v6("IPv6: UDP comes out", received(B, b_to_a())).delivers(b_to_a()),
        decap_v6("IPv6: TCP comes out", received(B, segment())).delivers(segment()),
        decap_v6("IPv6: nothing behind the header comes out", received(B, short())).delivers(short()),
        decap_v6("IPv6: to the gateway itself", received(B, to_gateway()))
            .delivers(to_gateway())
            .not_end_to_end(NOT_DECIDED),
        decap_v6("IPv6: a hop limit of 1 comes out, for the host to judge", received(B, last_hop()))
            .delivers(last_hop())
            .not_end_to_end(NOT_DECIDED),
        decap_v6("IPv6: no DF outside", received(B, b_to_a()).df(false)).delivers(b_to_a()),
        decap_v6("IPv6: the outer DSCP stays outside", received(B, b_to_a()).tos(0xb8)).delivers(b_to_a()),
        decap_v6("IPv6: Ethernet's padding", padded(received(B, short()).build())).delivers(short()),
        decap_v6("IPv6: padding inside the outer datagram", received(B, padded(b_to_a().build())))
            .delivers(b_to_a()),
        decap_v6("IPv4 comes out beside IPv6", theirs(B, v4())).delivers(v4()).not_end_to_end(NOT_DECIDED),
        decap_v6("IPv6: destination options come out", received(B, optioned()))
            .delivers(optioned())
            .declined(),
        decap_v6("IPv6: the first fragment comes out", received(B, whole().piece(0, 800)))
            .delivers(whole().piece(0, 800))
            .declined(),
        decap_v6("IPv6: a later fragment comes out", received(B, whole().piece(800, 560)))
            .delivers(whole().piece(800, 560))
            .declined(),
    ]
}

/// RFC 4213 section 3.6: what an ingress filter at the end of the tunnel refuses.
fn spoofed() -> Vec<Case> {
    let drops =
        |name: &str, inner: PacketV6, reason| decap_v6(name, received(B, inner)).drops(reason, Some(PEER_B));
    let own = DropReason::InnerSourceIsOwn;
    let not_from = DropReason::InnerSourceNotFromPeer;
    let not_ours = DropReason::InnerDestinationNotOurs;
    let from = |source| udp_v6(source, HOST_A6, 100);
    let to = |destination| udp_v6(HOST_B6, destination, 100);
    vec![
        decap_v6("IPv6: a stranger's", received(STRANGER, b_to_a()))
            .drops(DropReason::OuterSourceUnknown, None)
            .declined(),
        decap_v6("IPv6: from our own address", received(A, b_to_a()))
            .drops(DropReason::OuterSourceUnknown, None)
            .declined()
            .not_end_to_end(NOT_RECEIVED),
        drops("IPv6: a host of ours as the source", from(HOST_A6), own),
        drops("IPv6: our gateway as the source", from(INSIDE_A6), own),
        drops("IPv6: another peer's host as the source", from(HOST_C6), not_from),
        drops("IPv6: a stranger as the source", from(STRANGER6), not_from),
        drops("IPv6: no address as the source", from(Ipv6Addr::UNSPECIFIED), not_from),
        drops("IPv6: a loopback address as the source", from(Ipv6Addr::LOCALHOST), not_from),
        drops("IPv6: an IPv4-mapped address as the source", from(HOST_B.to_ipv6_mapped()), not_from),
        drops("IPv6: an IPv4-compatible address as the source", from(compatible()), not_from),
        drops("IPv6: a link-local source", from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)), not_from),
        drops("IPv6: a group as the source", from(Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1)), not_from),
        drops("IPv6: to a stranger", to(STRANGER6), not_ours),
        drops(
            "IPv6: to a group, out of the tunnel",
            to(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
            not_ours,
        ),
        drops("IPv6: back to where it came from", to(HOST_B6), not_ours),
        drops("IPv6: a hop limit of 0 inside", b_to_a().hop_limit(0), DropReason::DecapInnerTtlZero),
    ]
}

/// `::192.168.199.10`, a form that RFC 4291 section 2.5.5.1 deprecates.
fn compatible() -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::from(HOST_B.to_bits()))
}

fn malformed_inside() -> Vec<Case> {
    let wrong = |name: &str, inner: Vec<u8>| {
        decap_v6(name, received(B, inner)).drops(DropReason::DecapInnerMalformed, Some(PEER_B)).declined()
    };
    let mut long = b_to_a().build();
    long[4..6].copy_from_slice(&61u16.to_be_bytes());
    vec![
        wrong("IPv6: a payload length beyond the end inside", long),
        wrong("IPv6: a header cut short inside", b_to_a().build()[..39].to_vec()),
        wrong("IPv6: nothing inside", Vec::new()),
        wrong("IPv4 in protocol 41", udp(HOST_B, INSIDE_A, 100).build()),
        decap_v6("IPv6 in protocol 4", theirs(B, b_to_a()))
            .drops(DropReason::DecapInnerNotIpv4, Some(PEER_B))
            .declined(),
    ]
}

fn relayed() -> Vec<Case> {
    let b_to_c = || udp_v6(HOST_B6, HOST_C6, 100);
    let large = |len: usize, hops| udp_v6(HOST_B6, HOST_C6, len).hop_limit(hops);
    let last_hop = || b_to_c().hop_limit(1);
    let pieces = || {
        let whole = || sent(C, large(1280, 62)).df(false);
        vec![whole().piece(0, 976).build(), whole().piece(976, 304).build()]
    };
    vec![
        decap_v6("IPv6: a relay takes a hop", received(B, b_to_c()))
            .sends(PEER_C, sent(C, b_to_c().hop_limit(62))),
        decap_v6("IPv6: a relay of as much as the path takes", received(B, large(1480, 63)))
            .sends(PEER_C, sent(C, large(1480, 62))),
        decap_v6("IPv6: a relay passes congestion on", received(B, b_to_c().traffic_class(0x2a)).tos(0x03))
            .sends(PEER_C, sent(C, b_to_c().hop_limit(62).traffic_class(0x2b)).tos(0x2b))
            .counting(|counts| counts.marked = Some((PEER_B, 1))),
        decap_v6("IPv6: a relay at the last hop", received(B, last_hop()))
            .delivers(last_hop())
            .declined()
            .not_end_to_end(NOT_DECIDED),
        decap_v6("IPv6: a relay where none is allowed", received(B, b_to_c()))
            .with(|setup| setup.config.relay = adit_tunnel::Relay::Off)
            .drops(DropReason::RelayRefused, Some(PEER_B))
            .not_end_to_end("the files of the end-to-end test do not say so"),
        decap_v6("IPv6: a relay over a narrow path, in outer fragments", received(B, large(1280, 63)))
            .with(|setup| setup.paths[1].mtu = 1000)
            .sends_all(PEER_C, pieces())
            .counting(|counts| {
                let (rx, tx) = (Some((PEER_B, 1, 1280)), Some((PEER_C, 1, 1280)));
                *counts = Counts { rx, tx, ..Counts::default() };
            })
            .declined()
            .not_end_to_end(NOT_LEARNED),
    ]
}

/// The MSS that a path of 1500 bytes leaves is 1420: the header of IPv6 is longer.
fn mss() -> Vec<Case> {
    let option = |value: u16| [&[2, 4], &value.to_be_bytes()[..]].concat();
    let syn = |value| tcp(HOST_A6, HOST_B6, SYN, &option(value), &[]);
    let answer = |value| tcp(HOST_B6, HOST_A6, SYN | ACK, &option(value), &[]);
    let hidden = || syn(1440).extension(OPTIONED, PADDED);
    vec![
        encap_v6("IPv6: an MSS that is too big", syn(1440))
            .sends(PEER_B, sent(B, syn(1420)))
            .counting(|counts| counts.clamped.push(PEER_B)),
        encap_v6("IPv6: an MSS that fits exactly", syn(1420)).sends(PEER_B, sent(B, syn(1420))),
        encap_v6("IPv6: an MSS behind destination options stays", hidden())
            .sends(PEER_B, sent(B, hidden()))
            .declined(),
        decap_v6("IPv6: an MSS at decapsulation", received(B, answer(9000)))
            .delivers(answer(1420))
            .counting(|counts| counts.clamped.push(PEER_B)),
        encap_v6("IPv6: an MSS that is too big, with clamping off", syn(1440))
            .with(|setup| setup.config.mss_clamp = false)
            .sends(PEER_B, sent(B, syn(1440))),
    ]
}

fn gso_packets() -> Vec<Case> {
    const PAYLOAD: [u8; 2300] = [9; 2300];
    const RELAYED: [u8; 1100] = [5; 1100];
    let stream = || tcp(HOST_A6, HOST_B6, ACK, &[], &PAYLOAD);
    let segments = |size| {
        let one = |(at, piece): (u32, &[u8])| {
            let sequence = 0x1234_5678 + at * size;
            sent(B, tcp_v6((HOST_A6, HOST_B6), sequence, ACK, &[], piece)).build()
        };
        (0..).zip(PAYLOAD.chunks(size as usize)).map(one).collect()
    };
    let relayed = |(at, piece): (u32, &[u8])| {
        let segment = tcp_v6((HOST_B6, HOST_C6), 0x1234_5678 + at * 500, ACK, &[], piece);
        sent(C, segment.hop_limit(62)).build()
    };
    let cases = vec![
        encap_v6("IPv6: a GSO packet of TCP, the last segment short", stream().cut_at(1000))
            .sends_all(PEER_B, segments(1000)),
        encap_v6("IPv6: a GSO packet of TCP that fits exactly", stream().cut_at(1420))
            .sends_all(PEER_B, segments(1420)),
        encap_v6("IPv6: a GSO packet of TCP, a byte too many a segment", stream().cut_at(1421))
            .answers_v6(DropReason::InnerTooBig, Some(PEER_B), HOST_A6, Icmpv6Error::TooBig { mtu: 1480 })
            .counting(|counts| counts.drop = Some((DropReason::InnerTooBig, Some(PEER_B), 2))),
        // One that comes out is tested with streams (`ipv6_inside`). Before Linux 6.3 two calls
        // remove the outer header. In a test run, where GSO packets have no type, the second fails.
        decap_v6(
            "IPv6: a GSO packet with a forged source",
            received(B, tcp(HOST_A6, HOST_A6, ACK, &[], &PAYLOAD)).cut_at(1000),
        )
        .drops(DropReason::InnerSourceIsOwn, Some(PEER_B))
        .counting(|counts| counts.drop = Some((DropReason::InnerSourceIsOwn, Some(PEER_B), 3))),
        decap_v6(
            "IPv6: a relay of a GSO packet",
            received(B, tcp(HOST_B6, HOST_C6, ACK, &[], &RELAYED)).cut_at(500),
        )
        .sends_all(PEER_C, (0..).zip(RELAYED.chunks(500)).map(relayed).collect())
        .counting(|counts| {
            let counted = (3, 40 + 20 + 1100);
            counts.rx = Some((PEER_B, counted.0, counted.1));
            counts.tx = Some((PEER_C, counted.0, counted.1));
        }),
    ];
    cases.into_iter().map(|case| case.not_end_to_end(NOT_A_FRAME)).collect()
}

/// ICMPv6 errors from routers whose own address is in no configured network.
fn router_errors() -> Vec<Case> {
    let error = |kind: [u8; 2], rest, source, to, about| {
        icmp_v6((source, to), kind, rest, &udp_v6(to, about, 100).build())
    };
    let mut cases = Vec::new();
    for (name, kind, rest) in [
        ("Destination Unreachable", [1, 3], 0),
        ("Packet Too Big", [2, 0], 1300),
        ("Time Exceeded", [3, 0], 0),
        ("Parameter Problem", [4, 1], 6),
    ] {
        let out = || error(kind, rest, STRANGER6, HOST_B6, HOST_A6);
        let inside = || error(kind, rest, STRANGER6, HOST_A6, HOST_B6);
        let relayed = || error(kind, rest, STRANGER6, HOST_C6, HOST_B6);
        cases.extend([
            encap_v6(format!("IPv6: {name} of a router of ours"), out())
                .sends(PEER_B, sent(B, out()))
                .declined(),
            decap_v6(format!("IPv6: {name} of a router behind a peer"), received(B, inside()))
                .delivers(inside())
                .declined(),
            decap_v6(
                format!("IPv6: {name} of a router behind a peer, to another peer"),
                received(B, relayed()),
            )
            .sends(PEER_C, sent(C, relayed().hop_limit(62)))
            .declined(),
        ]);
    }
    let too_big = |source, to, about| error([2, 0], 1300, source, to, about);
    let refused = |name: &str, inner: PacketV6| {
        decap_v6(format!("IPv6: a router's error {name}"), received(B, inner))
            .drops(DropReason::InnerSourceNotFromPeer, Some(PEER_B))
            .declined()
    };
    let mut broken = too_big(STRANGER6, HOST_A6, HOST_B6).build();
    broken[42] ^= 1;
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    cases.extend([
        refused("about a packet to another peer", too_big(STRANGER6, HOST_A6, HOST_C6)),
        refused("about a packet of ours to us", too_big(STRANGER6, HOST_A6, INSIDE_A6)),
        refused(
            "about somebody else's packet",
            icmp_v6((STRANGER6, HOST_A6), [2, 0], 1300, &udp_v6(INSIDE_A6, HOST_B6, 100).build()),
        ),
        refused("back to where it came from", too_big(STRANGER6, HOST_B6, HOST_B6)),
        refused("from another peer's host", too_big(HOST_C6, HOST_A6, HOST_B6)),
        refused("from a link-local address", too_big(link_local, HOST_A6, HOST_B6)),
        decap_v6("IPv6: a router's error with a wrong checksum", received(B, broken))
            .drops(DropReason::InnerSourceNotFromPeer, Some(PEER_B))
            .declined(),
        // The programs need no quote for these.
        decap_v6("IPv6: a router's error from our network", received(B, too_big(HOST_A6, HOST_A6, HOST_B6)))
            .drops(DropReason::InnerSourceIsOwn, Some(PEER_B)),
        decap_v6(
            "IPv6: a redirect of a router behind a peer",
            received(B, icmp_v6((STRANGER6, HOST_A6), [137, 0], 0, &[0; 32])),
        )
        .drops(DropReason::InnerSourceNotFromPeer, Some(PEER_B)),
        encap_v6("IPv6: a router's error about a packet to nobody", too_big(STRANGER6, HOST_B6, STRANGER6))
            .drops(DropReason::InnerSourceDenied, Some(PEER_B))
            .counting(|counts| counts.icmp_suppressed = 1)
            .declined(),
    ]);
    cases
}
