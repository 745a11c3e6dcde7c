//! Relaying from peer b to peer c: decapsulation, one hop, and encapsulation for the other peer.

use adit_tunnel::{DropReason, Relay};

use super::{NOT_A_FRAME, NOT_LEARNED};
use crate::case::{Case, Counts, decap};
use crate::packet::{Datagram, ours, tcp, theirs, udp};
use crate::site::{B, C, HOST_B, HOST_C, PEER_B, PEER_C};

/// UDP from host B to host C, TTL 63.
fn b_to_c() -> Datagram {
    udp(HOST_B, HOST_C, 100)
}

const NOT_DECIDED: &str = "the host decides what becomes of it";

pub(super) fn cases() -> Vec<Case> {
    [headers(), mss(), not_relayed(), not_allowed()].concat()
}

fn headers() -> Vec<Case> {
    let large = |ttl| udp(HOST_B, HOST_C, 1480).ttl(ttl);
    vec![
        decap("a relay takes a hop", theirs(B, b_to_c())).sends(PEER_C, ours(C, b_to_c().ttl(62))),
        decap("a relay takes the last hop but one", theirs(B, b_to_c().ttl(2)))
            .sends(PEER_C, ours(C, b_to_c().ttl(1))),
        decap("a relay of as much as the path takes", theirs(B, large(63))).sends(PEER_C, ours(C, large(62))),
        decap("a relay keeps the DSCP, and passes congestion on", theirs(B, b_to_c().tos(0x2a)).tos(0x03))
            .sends(PEER_C, ours(C, b_to_c().ttl(62).tos(0x2b)).tos(0x2b))
            .counting(|counts| counts.marked = Some((PEER_B, 1))),
        decap("a relay without DF", theirs(B, b_to_c()))
            .with(|setup| setup.config.outer.df = false)
            .sends(PEER_C, ours(C, b_to_c().ttl(62)).df(false)),
        decap("a relay of a GSO packet", relayed_gso_packet())
            .sends_all(PEER_C, (0..3).map(relayed_segment).collect())
            .counting(|counts| {
                let counted = Some((PEER_B, 3, 20 + 20 + 1100));
                (counts.rx, counts.tx) = (counted, counted.map(|(_, n, bytes)| (PEER_C, n, bytes)));
            })
            .not_end_to_end(NOT_A_FRAME),
    ]
}

fn relayed_gso_packet() -> crate::Packet {
    theirs(B, tcp(HOST_B, HOST_C, 0x10, &[], &[5; 1100])).cut_at(500)
}

/// One of the segments that leave, with 500, 500 and 100 bytes of payload.
fn relayed_segment(index: usize) -> Vec<u8> {
    let inner = super::gso::tcp_segment(HOST_B, HOST_C, &[5; 1100], 500, index);
    ours(C, inner.ttl(62)).build()
}

fn mss() -> Vec<Case> {
    let syn = |mss: u16| tcp(HOST_B, HOST_C, 0x02, &[&[2, 4], &mss.to_be_bytes()[..]].concat(), &[]);
    let once = |name: &str, path_b, path_c, left, clamped: &[_]| {
        decap(name, theirs(B, syn(1460)))
            .with(|setup| (setup.paths[0].mtu, setup.paths[1].mtu) = (path_b, path_c))
            .sends(PEER_C, ours(C, syn(left).ttl(62)))
            .counting(|counts| counts.clamped.extend(clamped))
            .not_end_to_end(NOT_LEARNED)
    };
    vec![
        once("an MSS, lowered for the path it came by", 1000, 1500, 940, &[PEER_B]),
        once("an MSS, lowered for both paths", 1400, 1000, 940, &[PEER_B, PEER_C]),
        once("an MSS, lowered for the path it goes by", 1600, 1000, 940, &[PEER_C]),
    ]
}

/// What `tunnel.relay` says.
fn not_allowed() -> Vec<Case> {
    let relay =
        |name: &str, rule: Relay| decap(name, theirs(B, b_to_c())).with(|setup| setup.config.relay = rule);
    let stays = |case: Case| case.not_end_to_end("the files of the end-to-end test do not say so");
    let pair = |one: &str, other: &str| vec![[one, other].map(|name| name.parse().expect("a name"))];
    let refused = |name: &str, rule| stays(relay(name, rule).drops(DropReason::RelayRefused, Some(PEER_B)));
    let relayed = |name: &str, rule| stays(relay(name, rule).sends(PEER_C, ours(C, b_to_c().ttl(62))));
    vec![
        refused("a relay where none is allowed", Relay::Off),
        refused("a relay of a pair that is not listed", Relay::Pairs(pair("b", "d"))),
        relayed("a relay of a listed pair", Relay::Pairs(pair("b", "c"))),
        relayed("a relay of a pair that is listed the other way", Relay::Pairs(pair("c", "b"))),
        relayed("a relay past the host's rules", Relay::Direct),
    ]
}

fn not_relayed() -> Vec<Case> {
    let stays = |case: Case| case.declined().not_end_to_end(NOT_DECIDED);
    let large = || udp(HOST_B, HOST_C, 1400);
    let pieces = || {
        let whole = large().ttl(62);
        vec![ours(C, whole.clone().piece(0, 960)).build(), ours(C, whole.piece(960, 420)).build()]
    };
    vec![
        stays(decap("a relay at the last hop", theirs(B, b_to_c().ttl(1))).delivers(b_to_c().ttl(1))),
        decap("a relay that the host's rules decide about", theirs(B, b_to_c()))
            .with(|setup| setup.forwards = false)
            .delivers(b_to_c())
            .not_end_to_end(NOT_DECIDED),
        decap("to an address of our own in another peer's network", theirs(B, b_to_c()))
            .with(|setup| setup.config.local_addresses.push(HOST_C.into()))
            .drops(DropReason::InnerDestinationNotOurs, Some(PEER_B))
            .not_end_to_end("the gateway of the test network has no such address"),
        decap("a relay to where the next hop is not known", theirs(B, b_to_c()))
            .with(|setup| setup.paths[1].known = false)
            .sends(PEER_C, ours(C, b_to_c().ttl(62)))
            .declined(),
        decap("a relay that has to be cut", theirs(B, large()))
            .with(|setup| setup.paths[1].mtu = 1000)
            .sends_all(PEER_C, pieces())
            .counting(|counts| {
                let (rx, tx) = (Some((PEER_B, 1, 1400)), Some((PEER_C, 1, 1400)));
                *counts = Counts { rx, tx, ..Counts::default() };
            })
            .declined()
            .not_end_to_end(NOT_LEARNED),
    ]
}
