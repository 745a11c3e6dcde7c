//! GSO packets: what a host leaves to be segmented, and what its receive path has merged.

use std::net::Ipv4Addr;

use adit_tunnel::DropReason;
use adit_wire::Protocol;
use adit_wire::icmpv4::Icmpv4Error;

use super::NOT_A_FRAME;
use crate::case::{Case, decap, encap};
use crate::packet::{self, Datagram, ours, tcp, theirs, transport, udp};
use crate::site::{B, HOST_A, HOST_B, PEER_B};

const ACK: u8 = 0x10;
const IDENTIFICATION: u16 = 0x1234;

/// Segment number `index` of a TCP stream cut at `size`. Sequence number and identification grow.
pub(super) fn tcp_segment(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    payload: &[u8],
    size: usize,
    index: usize,
) -> Datagram {
    let piece = payload.chunks(size).nth(index).expect("as many pieces as that");
    let segment = packet::tcp_segment(0x1234_5678 + (index * size) as u32, ACK, &[], piece);
    transport(source, destination, Protocol::TCP, segment).id(IDENTIFICATION + index as u16)
}

/// UDP datagram number `index` of those with `size` bytes of payload each, cut from one of `len`
/// bytes.
fn udp_segment(len: usize, size: usize, index: usize) -> Datagram {
    let whole = udp(HOST_A, HOST_B, len).build().split_off(28);
    let piece = whole.chunks(size).nth(index).expect("as many pieces as that");
    let mut segment = [4000u16.to_be_bytes(), 4242u16.to_be_bytes()].concat();
    segment.extend((piece.len() as u16 + 8).to_be_bytes());
    segment.extend([0; 2]);
    segment.extend(piece);
    transport(HOST_A, HOST_B, Protocol::UDP, segment).id(IDENTIFICATION + index as u16)
}

pub(super) fn cases() -> Vec<Case> {
    [encapsulated(), decapsulated()]
        .concat()
        .into_iter()
        .map(|case| case.not_end_to_end(NOT_A_FRAME))
        .collect()
}

fn encapsulated() -> Vec<Case> {
    const PAYLOAD: [u8; 2300] = [9; 2300];
    let stream = || tcp(HOST_A, HOST_B, ACK, &[], &PAYLOAD);
    let segment =
        |size, df, index| ours(B, tcp_segment(HOST_A, HOST_B, &PAYLOAD, size, index).df(df)).build();
    let segments =
        |size, df| (0..PAYLOAD.len().div_ceil(size)).map(|index| segment(size, df, index)).collect();
    let datagrams = |len: usize, size: usize| {
        let count = (len - 28).div_ceil(size);
        (0..count).map(|index| ours(B, udp_segment(len, size, index)).build()).collect()
    };
    vec![
        encap("a GSO packet of TCP, the last segment short", stream().df(true).cut_at(1000))
            .sends_all(PEER_B, segments(1000, true)),
        encap("a GSO packet of TCP, all segments full", stream().df(true).cut_at(1150))
            .sends_all(PEER_B, segments(1150, true)),
        encap("a GSO packet of TCP that fits exactly", stream().df(true).cut_at(1440))
            .sends_all(PEER_B, segments(1440, true)),
        encap("a GSO packet of TCP, a byte too many a segment", stream().df(true).cut_at(1441))
            .answers(DropReason::InnerTooBig, Some(PEER_B), HOST_A, Icmpv4Error::TooBig { mtu: 1480 })
            .counting(|counts| counts.drop = Some((DropReason::InnerTooBig, Some(PEER_B), 2))),
        encap("a GSO packet of TCP to be cut further", stream().cut_at(1444))
            .sends_all(PEER_B, cut_further(&PAYLOAD))
            .counting(|counts| counts.tx = Some((PEER_B, 2, 2340)))
            .declined(),
        encap("a GSO packet without DF, none outside either", stream().cut_at(1000))
            .with(|setup| setup.config.outer.df = false)
            .sends_all(PEER_B, without_df(&PAYLOAD)),
        encap("a GSO packet of UDP, the last datagram short", udp(HOST_A, HOST_B, 2500).cut_at(900))
            .sends_all(PEER_B, datagrams(2500, 900)),
        encap("a GSO packet of UDP that fits exactly", udp(HOST_A, HOST_B, 2932).cut_at(1452))
            .sends_all(PEER_B, datagrams(2932, 1452)),
        encap("a GSO packet to the peer's own sender", udp(B, HOST_B, 2500).cut_at(900))
            .drops(DropReason::InnerSourceIsTunnelExit, Some(PEER_B))
            .counting(|counts| counts.drop = Some((DropReason::InnerSourceIsTunnelExit, Some(PEER_B), 3))),
    ]
}

/// Segments of 1444 and 856 bytes of payload; the first becomes two fragments.
fn cut_further(payload: &[u8]) -> Vec<Vec<u8>> {
    let segment = |index| tcp_segment(HOST_A, HOST_B, payload, 1444, index);
    vec![
        ours(B, segment(0).piece(0, 1456)).build(),
        ours(B, segment(0).piece(1456, 8)).build(),
        ours(B, segment(1)).build(),
    ]
}

/// Three segments without an outer DF, for which any outer identification is right.
fn without_df(payload: &[u8]) -> Vec<Vec<u8>> {
    (0..3).map(|index| ours(B, tcp_segment(HOST_A, HOST_B, payload, 1000, index)).df(false).build()).collect()
}

fn decapsulated() -> Vec<Case> {
    let stream = || tcp(HOST_B, HOST_A, ACK, &[], &[9; 2300]);
    let counted = |case: Case, datagrams| case.counting(|counts| counts.rx = Some((PEER_B, datagrams, 2340)));
    vec![
        counted(decap("a GSO packet comes out", theirs(B, stream()).cut_at(1000)).delivers(stream()), 3),
        counted(
            decap("a GSO packet that met congestion", theirs(B, stream().tos(2)).tos(3).cut_at(1000))
                .delivers(stream().tos(3))
                .counting(|counts| counts.marked = Some((PEER_B, 3))),
            3,
        ),
        decap(
            "a GSO packet with a forged source",
            theirs(B, tcp(HOST_A, HOST_A, ACK, &[], &[9; 2300])).cut_at(1000),
        )
        .drops(DropReason::InnerSourceIsOwn, Some(PEER_B))
        .counting(|counts| counts.drop = Some((DropReason::InnerSourceIsOwn, Some(PEER_B), 3))),
    ]
}
