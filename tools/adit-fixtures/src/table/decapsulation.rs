//! Decapsulation: RFC 2003 sections 3.1 and 6.1, RFC 6169 section 2.2, RFC 2827.

use adit_tunnel::DropReason;
use adit_wire::Protocol;

use super::NOT_RECEIVED;
use crate::case::{Case, decap};
use crate::packet::{Datagram, bare, rewritten, tcp, theirs, udp};
use crate::site::{A, B, C, HOST_A, HOST_B, HOST_C, INSIDE_A, PEER_B, STRANGER};

const NOT_FORWARDED_ON: &str = "the host treats such a datagram by its own rules once it is decapsulated";

/// UDP from host B to host A.
fn b_to_a() -> Datagram {
    udp(HOST_B, HOST_A, 100)
}

pub(super) fn cases() -> Vec<Case> {
    [usual(), left_to_userspace(), spoofed(), malformed_outside(), malformed_inside()].concat()
}

fn usual() -> Vec<Case> {
    let segment = || tcp(HOST_B, HOST_A, 0x10, &[], &[7; 200]);
    let big = || udp(HOST_B, HOST_A, 1400);
    let short = || udp(HOST_B, HOST_A, 36);
    let nested = || bare(HOST_B, HOST_A, Protocol::IPIP, b_to_a().build());
    let padded = |datagram: Datagram, len| [datagram.build(), vec![0; len]].concat();
    vec![
        decap("UDP comes out", theirs(B, b_to_a())).delivers(b_to_a()),
        decap("TCP comes out", theirs(B, segment())).delivers(segment()),
        decap("to the gateway itself", theirs(B, udp(HOST_B, INSIDE_A, 90)))
            .delivers(udp(HOST_B, INSIDE_A, 90))
            .not_end_to_end(NOT_FORWARDED_ON),
        decap("a TTL of 1 comes out, for the host to judge", theirs(B, b_to_a().ttl(1)))
            .delivers(b_to_a().ttl(1))
            .not_end_to_end(NOT_FORWARDED_ON),
        decap("an outer TTL of 1", theirs(B, b_to_a()).ttl(1)).delivers(b_to_a()),
        decap("no DF outside", theirs(B, b_to_a()).df(false)).delivers(b_to_a()),
        decap("the outer DSCP stays outside", theirs(B, b_to_a()).tos(0xb8)).delivers(b_to_a()),
        decap("the first fragment comes out", theirs(B, big().piece(0, 800)))
            .delivers(big().piece(0, 800))
            .declined(),
        decap("a later fragment comes out", theirs(B, big().piece(800, 580)))
            .delivers(big().piece(800, 580))
            .declined(),
        decap("a tunnel between hosts comes out", theirs(B, nested())).delivers(nested()),
        decap("Ethernet's padding", padded(theirs(B, short()), 6)).delivers(short()),
        decap("padding inside the outer datagram", theirs(B, padded(b_to_a(), 6))).delivers(b_to_a()),
    ]
}

fn left_to_userspace() -> Vec<Case> {
    let optioned = || b_to_a().options(&[1, 1, 1, 0]);
    let echo = |source| bare(source, A, Protocol::ICMP, vec![8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    vec![
        // It may be a probe, which userspace counts apart.
        decap("a ping of the gateway's address on the underlay", theirs(B, echo(HOST_B)))
            .delivers(echo(HOST_B))
            .declined()
            .not_end_to_end(NOT_FORWARDED_ON),
        decap("options inside", theirs(B, optioned())).delivers(optioned()).declined(),
        decap("options outside", theirs(B, b_to_a()).options(&[1; 8])).delivers(b_to_a()).declined(),
    ]
}

fn spoofed() -> Vec<Case> {
    let drops =
        |name: &str, inner: Datagram, reason| decap(name, theirs(B, inner)).drops(reason, Some(PEER_B));
    let stranger = |name: &str, outer: Datagram, reason| decap(name, outer).drops(reason, None).declined();
    let own = DropReason::InnerSourceIsOwn;
    let not_from = DropReason::InnerSourceNotFromPeer;
    let not_ours = DropReason::InnerDestinationNotOurs;
    let from = |source| udp(source, HOST_A, 100);
    vec![
        stranger("a stranger's", theirs(STRANGER, b_to_a()), DropReason::OuterSourceUnknown),
        stranger("from our own address", theirs(A, b_to_a()), DropReason::OuterSourceUnknown)
            .not_end_to_end(NOT_RECEIVED),
        stranger("to somebody else", theirs(B, b_to_a()).to(C), DropReason::OuterDestinationNotOurs)
            .not_end_to_end(NOT_RECEIVED),
        stranger(
            "another protocol",
            theirs(B, b_to_a()).protocol(Protocol(47)),
            DropReason::OuterNotProtocol4,
        )
        .not_end_to_end(NOT_RECEIVED),
        stranger(
            "IPv6 in IPv4 for a site without IPv6",
            theirs(B, b_to_a()).protocol(Protocol::IPV6),
            DropReason::OuterNotProtocol4,
        )
        .not_end_to_end(NOT_RECEIVED),
        drops("a host of ours as the source", from(HOST_A), own),
        drops("our gateway as the source", from(INSIDE_A), own),
        drops("our underlay address as the source", from(A), own),
        drops("the peer's own underlay address as the source", from(B), not_from),
        drops("another peer's host as the source", from(HOST_C), not_from),
        drops("a stranger as the source", from(STRANGER), not_from),
        drops("to a stranger", udp(HOST_B, STRANGER, 100), not_ours),
        drops("UDP to our address on the underlay", udp(HOST_B, A, 100), not_ours),
        drops("back to where it came from", udp(HOST_B, HOST_B, 100), not_ours),
        drops("another outer datagram to ourselves", theirs(B, b_to_a()), DropReason::NestedToOurselves),
        drops(
            "a tunnel of a host's to ourselves",
            bare(HOST_B, A, Protocol::IPIP, b_to_a().build()),
            DropReason::NestedToOurselves,
        ),
        drops(
            "a tunnel of IPv6 of a host's to ourselves",
            bare(HOST_B, A, Protocol::IPV6, vec![0x60; 40]),
            DropReason::NestedToOurselves,
        ),
        drops("a TTL of 0 inside", b_to_a().ttl(0), DropReason::DecapInnerTtlZero),
    ]
}

fn malformed_outside() -> Vec<Case> {
    let good = || theirs(B, b_to_a()).build();
    let wrong =
        |name: &str, bytes: Vec<u8>, reason, whose| decap(name, bytes).drops(reason, whose).declined();
    let malformed = DropReason::OuterMalformed;
    let mut checksum = good();
    checksum[10] ^= 0x80;
    let fragment = |offset, len| theirs(B, b_to_a()).df(false).piece(offset, len).build();
    vec![
        wrong("a wrong outer checksum", checksum, malformed, None),
        wrong("an outer total length beyond the end", rewritten(good(), 2, &[0, 121]), malformed, None),
        wrong("an outer total length within the header", rewritten(good(), 2, &[0, 19]), malformed, None),
        wrong("an outer header below 20 bytes", rewritten(good(), 0, &[0x44]), malformed, None),
        wrong("the first outer fragment", fragment(0, 64), DropReason::OuterFragment, Some(PEER_B))
            .not_end_to_end("the host reassembles"),
        wrong("a later outer fragment", fragment(64, 36), DropReason::OuterFragment, Some(PEER_B))
            .not_end_to_end("the host reassembles"),
    ]
}

fn malformed_inside() -> Vec<Case> {
    let wrong = |name: &str, inner: Vec<u8>, reason| {
        decap(name, theirs(B, inner)).drops(reason, Some(PEER_B)).declined()
    };
    let good = || b_to_a().build();
    let malformed = DropReason::DecapInnerMalformed;
    let mut checksum = good();
    checksum[10] ^= 0x80;
    let ipv6 = [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &[0; 32]].concat();
    vec![
        wrong("a wrong inner checksum", checksum, malformed),
        wrong("an inner total length beyond the end", rewritten(good(), 2, &[0, 101]), malformed),
        wrong("an inner total length within the header", rewritten(good(), 2, &[0, 19]), malformed),
        wrong("an inner header below 20 bytes", rewritten(good(), 0, &[0x44]), malformed),
        wrong("an inner header cut short", good()[..19].to_vec(), malformed),
        wrong("nothing inside", Vec::new(), malformed),
        wrong("IPv6 inside", ipv6, DropReason::DecapInnerNotIpv4),
    ]
}
