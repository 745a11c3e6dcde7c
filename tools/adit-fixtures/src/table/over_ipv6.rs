//! An underlay of IPv6 (RFC 2473): the rows of an underlay of IPv4 with another outer header, and
//! rows about what only IPv6 has.

use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_tunnel::{DropReason, Peer, PeerSet, TunnelConfig};
use adit_wire::ipv6::Ipv6Repr;
use adit_wire::{Protocol, checksum};
use siphasher::sip::SipHasher13;

use super::{NOT_FORWARDED, NOT_RECEIVED};
use crate::case::{Case, Direction, Outcome, decap_v6, encap_v6};
use crate::packet::{Packet, a_to_b, bare, udp};
use crate::packet_v6::{PacketV6, a_to_b_v6, bare_v6, udp_v6};
use crate::site::{
    A, B, C, FLOW_KEY, HOST_A, HOST_A6, HOST_B, HOST_B6, INSIDE_A6, PEER_B, Path, STRANGER, STRANGER6, Setup,
    UNDERLAY_A6, UNDERLAY_B6, UNDERLAY_C6,
};

const V4: usize = 20;
/// The narrowest path of IPv6, in bytes.
const MIN_MTU: u16 = 1280;

/// The same rows over IPv6. The outer header is 20 bytes longer and the path's MTU too, so what is
/// inside stays as it is. Left out are rows about what IPv6 does not have (options of the outer
/// header, its checksum and fragments, narrower paths), and rows with an address of the underlay
/// inside.
pub(super) fn translated(rows: &[Case]) -> Vec<Case> {
    rows.iter().filter_map(over_ipv6).collect()
}

fn over_ipv6(case: &Case) -> Option<Case> {
    let inner = match case.direction {
        Direction::Encap => &case.packet.bytes[..],
        Direction::Decap => case.packet.bytes.get(V4..)?,
    };
    // What is no tunnel's is not counted: a packet filter cannot tell what follows an extension.
    let is_no_tunnels = case.outcome == Outcome::Dropped(DropReason::OuterNotProtocol4);
    if is_no_tunnels || has_underlay_address(inner) {
        return None;
    }
    let packet = match case.direction {
        Direction::Encap => case.packet.clone(),
        Direction::Decap => Packet { bytes: in_ipv6(&case.packet.bytes, 0)?, ..case.packet },
    };
    let outcome = match &case.outcome {
        Outcome::Sent(frames) => {
            let label = label(inner);
            Outcome::Sent(frames.iter().map(|frame| in_ipv6(frame, label)).collect::<Option<_>>()?)
        }
        other => other.clone(),
    };
    let name = format!("over IPv6: {}", case.name);
    Some(Case { name, setup: setup_over_ipv6(&case.setup)?, packet, outcome, ..case.clone() })
}

fn has_underlay_address(inner: &[u8]) -> bool {
    let is_one = |octets: &[u8]| [A, B, C].iter().any(|address| address.octets() == octets);
    inner.first().is_some_and(|first| first >> 4 == 4)
        && inner.get(12..20).is_some_and(|both| both.chunks(4).any(is_one))
}

/// The gateway with the same networks and other addresses on the underlay.
fn setup_over_ipv6(setup: &Setup) -> Option<Setup> {
    let v4 = &setup.config.peers;
    let mut peers = PeerSet::new(Some(UNDERLAY_A6.into()), v4.site_networks().iter().copied()).ok()?;
    for peer in v4.iter() {
        let peer = Peer { underlay: address_v6(peer.underlay.first())?.into(), ..Peer::clone(peer) };
        peers.insert(peer).ok()?;
    }
    let longer = |mtu: u16| mtu.checked_add(V4 as u16).filter(|mtu| *mtu >= MIN_MTU);
    let config = TunnelConfig {
        underlay: UNDERLAY_A6.into(),
        peers,
        underlay_mtu: longer(setup.config.underlay_mtu)?,
        ..setup.config.clone()
    };
    let path = |path: &Path| Some(Path { mtu: longer(path.mtu)?, ..*path });
    let paths = setup.paths.iter().map(path).collect::<Option<_>>()?;
    Some(Setup { config, paths, ..setup.clone() })
}

fn address_v6(address: impl Into<IpAddr>) -> Option<Ipv6Addr> {
    let IpAddr::V4(address) = address.into() else { return None };
    let pairs: [(Ipv4Addr, Ipv6Addr); 4] =
        [(A, UNDERLAY_A6), (B, UNDERLAY_B6), (C, UNDERLAY_C6), (STRANGER, STRANGER6)];
    pairs.iter().find(|(v4, _)| *v4 == address).map(|(_, v6)| *v6)
}

/// An outer packet with another outer header, and whatever follows it. `None` if the header is not
/// plain.
fn in_ipv6(outer: &[u8], flow_label: u32) -> Option<Vec<u8>> {
    let (header, rest) = outer.split_first_chunk::<V4>()?;
    let [kind, tos, high, low, _, _, fragment_high, fragment_low, ttl, protocol, ..] = *header;
    let payload_len = u16::from_be_bytes([high, low]).checked_sub(V4 as u16)?;
    let is_whole = fragment_high & 0x3f == 0 && fragment_low == 0 && usize::from(payload_len) <= rest.len();
    let is_ours = matches!(Protocol(protocol), Protocol::IPIP | Protocol::IPV6);
    if kind != 0x45 || !is_whole || !is_ours || checksum::checksum(header) != 0 {
        return None;
    }
    let address = |at: usize| {
        let octets: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        address_v6(Ipv4Addr::from(octets))
    };
    let repr = Ipv6Repr {
        source: address(12)?,
        destination: address(16)?,
        next_header: Protocol(protocol),
        hop_limit: ttl,
        traffic_class: tos,
        flow_label,
        payload_len,
    };
    Some([&repr.emit()[..], rest].concat())
}

/// The flow label of an inner packet with the table's key, by another implementation of the hash:
/// over both addresses, the ports and the protocol.
fn label(inner: &[u8]) -> u32 {
    let is_v6 = inner[0] >> 4 == 6;
    let (addresses, protocol, transport) = if is_v6 {
        (&inner[8..40], inner[6], 40)
    } else {
        (&inner[12..20], inner[9], usize::from(inner[0] & 0x0f) * 4)
    };
    let is_fragment = !is_v6 && (inner[6] & 0x3f != 0 || inner[7] != 0);
    let has_ports = matches!(Protocol(protocol), Protocol::TCP | Protocol::UDP) && !is_fragment;
    let ports = inner.get(transport..transport + 4).filter(|_| has_ports).unwrap_or(&[0; 4]);
    let mut hasher = SipHasher13::new_with_keys(FLOW_KEY[0], FLOW_KEY[1]);
    [addresses, ports, &[protocol]].into_iter().for_each(|bytes| hasher.write(bytes));
    (hasher.finish() as u32 & 0xf_ffff).max(1)
}

/// An outer packet as another gateway sends it to gateway A: hop limit 61.
fn received(from: Ipv6Addr, inner: impl Into<Packet>) -> PacketV6 {
    let inner = inner.into().bytes;
    let protocol =
        if inner.first().is_some_and(|first| first >> 4 == 6) { Protocol::IPV6 } else { Protocol::IPIP };
    bare_v6(from, UNDERLAY_A6, protocol, inner).hop_limit(61)
}

/// The gateway with networks of both families, over IPv6.
fn both(setup: &mut Setup) {
    *setup = setup_over_ipv6(setup).expect("its addresses have counterparts");
}

/// UDP from host B to host A, in each family.
fn from_b() -> [(&'static str, Packet); 2] {
    [("IPv4", udp(HOST_B, HOST_A, 100).into()), ("IPv6", udp_v6(HOST_B6, HOST_A6, 100).into())]
}

/// Rows that only an underlay of IPv6 has.
pub(super) fn cases() -> Vec<Case> {
    [outside(), extensions(), malformed_outside(), underlay_inside(), nested(), limits()].concat()
}

fn outside() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, inner) in from_b() {
        let from = |source| received(source, inner.clone());
        let row =
            |what: &str, outer: PacketV6| decap_v6(format!("in IPv6, {family}: {what}"), outer).with(both);
        cases.extend([
            row("an outer hop limit of 1", from(UNDERLAY_B6).hop_limit(1)).delivers(inner.clone()),
            row("from our own address", from(UNDERLAY_A6))
                .drops(DropReason::OuterSourceUnknown, None)
                .declined()
                .not_end_to_end(NOT_RECEIVED),
            row("from a mapped address", from(B.to_ipv6_mapped()))
                .drops(DropReason::OuterSourceUnknown, None)
                .declined()
                .not_end_to_end(NOT_RECEIVED),
            row("a stranger's", from(STRANGER6)).drops(DropReason::OuterSourceUnknown, None).declined(),
        ]);
    }
    // Less inside than the outer header has: Linux before 6.3 shortens a packet in two steps.
    for len in [20, 28] {
        let inner = || match len {
            20 => bare(HOST_B, HOST_A, Protocol(253), Vec::new()),
            len => udp(HOST_B, HOST_A, len),
        };
        let draft = decap_v6(format!("in IPv6, IPv4: {len} bytes"), received(UNDERLAY_B6, inner()));
        cases.push(draft.with(both).delivers(inner()));
    }
    cases
}

/// Destination options as Linux's ip6tnl writes them: an encapsulation limit (RFC 2473 section
/// 5.1).
fn extensions() -> Vec<Case> {
    const LIMIT: [u8; 7] = [0, 4, 1, 4, 1, 1, 0];
    const MUST_BE_KNOWN: [u8; 7] = [0, 0x45, 4, 0, 0, 0, 0];
    let mut cases = Vec::new();
    for (family, inner) in from_b() {
        let optioned =
            |body| received(UNDERLAY_B6, inner.clone()).extension(Protocol::DESTINATION_OPTIONS, body);
        let row =
            |what: &str, outer: PacketV6| decap_v6(format!("in IPv6, {family}: {what}"), outer).with(both);
        cases.extend([
            row("an encapsulation limit outside", optioned(LIMIT)).delivers(inner.clone()).declined(),
            row("an option outside that a node must know", optioned(MUST_BE_KNOWN))
                .drops(DropReason::OuterMalformed, None)
                .declined()
                .not_end_to_end(NOT_RECEIVED),
        ]);
    }
    cases
}

fn malformed_outside() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, inner) in from_b() {
        let good = || received(UNDERLAY_B6, inner.clone()).build();
        let with = |at: usize, value: u8| {
            let mut bytes = good();
            bytes[at] = value;
            bytes
        };
        let row = |what: &str, bytes: Vec<u8>| {
            decap_v6(format!("in IPv6, {family}: {what}"), bytes)
                .with(both)
                .drops(DropReason::OuterMalformed, None)
                .declined()
                .not_end_to_end(NOT_RECEIVED)
        };
        cases.extend([
            row("an outer payload length beyond the end", with(5, 101)),
            row("an outer header of another version", with(0, 0x50)),
        ]);
    }
    cases
}

/// The rules about the underlay's addresses inside, which are of the inner family here.
fn underlay_inside() -> Vec<Case> {
    let row = |what: &str, inner: PacketV6| {
        decap_v6(format!("in IPv6: {what}"), received(UNDERLAY_B6, inner)).with(both)
    };
    let own = DropReason::InnerSourceIsOwn;
    let not_from = DropReason::InnerSourceNotFromPeer;
    let not_ours = DropReason::InnerDestinationNotOurs;
    let nested = DropReason::NestedToOurselves;
    let from = |source| udp_v6(source, HOST_A6, 100);
    let tunnel = |protocol, inner: Packet| bare_v6(HOST_B6, UNDERLAY_A6, protocol, inner.bytes);
    vec![
        row("our underlay address as the source", from(UNDERLAY_A6)).drops(own, Some(PEER_B)),
        row("our gateway as the source", from(INSIDE_A6)).drops(own, Some(PEER_B)),
        row("the peer's underlay address as the source", from(UNDERLAY_B6)).drops(not_from, Some(PEER_B)),
        row("UDP to our address on the underlay", udp_v6(HOST_B6, UNDERLAY_A6, 100))
            .drops(not_ours, Some(PEER_B)),
        row("another outer packet to ourselves", received(UNDERLAY_B6, a_to_b_v6()))
            .drops(nested, Some(PEER_B)),
        row("a tunnel of a host's to ourselves", tunnel(Protocol::IPV6, a_to_b_v6().into()))
            .drops(nested, Some(PEER_B)),
        row("a tunnel of IPv4 of a host's to ourselves", tunnel(Protocol::IPIP, a_to_b().into()))
            .drops(nested, Some(PEER_B)),
    ]
}

/// What must not enter the tunnel (RFC 2473 sections 3.1 and 4.1.1).
fn nested() -> Vec<Case> {
    let row = |what: &str, inner: PacketV6| encap_v6(format!("into IPv6: {what}"), inner).with(both);
    let inner = || a_to_b_v6().build();
    vec![
        row("the tunnel's own packet", bare_v6(UNDERLAY_A6, HOST_B6, Protocol::IPV6, inner()))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end(NOT_FORWARDED),
        row("a packet to the tunnel's exit", bare_v6(HOST_A6, UNDERLAY_B6, Protocol::IPV6, inner()))
            .drops(DropReason::NestedEncapsulation, None)
            .not_end_to_end(NOT_FORWARDED),
        row("from the tunnel's exit", udp_v6(UNDERLAY_B6, HOST_B6, 100))
            .drops(DropReason::InnerSourceIsTunnelExit, Some(PEER_B))
            .not_end_to_end(NOT_FORWARDED),
    ]
}

/// RFC 2473 section 4.1.1: a packet with a limit enters with one less, and none enters at 0.
fn limits() -> Vec<Case> {
    let limited = |left| a_to_b_v6().extension(Protocol::DESTINATION_OPTIONS, [0, 4, 1, left, 1, 1, 0]);
    let row =
        |left| encap_v6(format!("into IPv6: an encapsulation limit of {left}"), limited(left)).with(both);
    let sent = |left: u8| {
        let inner = limited(left).build();
        let label = label(&inner);
        let outer = bare_v6(UNDERLAY_A6, UNDERLAY_B6, Protocol::IPV6, inner)
            .hop_limit(64)
            .flow_label(label)
            .extension(Protocol::DESTINATION_OPTIONS, [0, 4, 1, left - 1, 1, 1, 0]);
        row(left).sends(PEER_B, outer).declined()
    };
    let error = adit_wire::icmpv6::Icmpv6Error::ParameterProblem { code: 0, pointer: 44 };
    let none_left = row(0).answers_v6(DropReason::EncapsulationLimit, Some(PEER_B), HOST_A6, error);
    vec![none_left, sent(1), sent(4)]
}
