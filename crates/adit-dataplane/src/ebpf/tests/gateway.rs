//! A gateway without programs: the tunnel, what the userspace plane does to the bytes, and the
//! host's forwarding as one hop. End-to-end tests cover the sockets and rings around it.

use std::net::IpAddr;

use adit_fixtures::site::{FLOW_KEY, ROUTER, STRANGER6};
use adit_fixtures::{Direction, Outcome, Packet, Setup};
use adit_linux::sockets::virtio_net::{Checksum, Gso, VirtioNetHeader};
use adit_policy::{FlowKey, Owner, OwnerLookup};
use adit_tunnel::{
    Counters, Decapsulated, DropReason, Encapsulated, Inner, Instant, Origin, Outer, Reply, Totals, Tunnel,
};
use adit_wire::checksum::ChecksumState;
use adit_wire::encapsulation::OuterHeader;
use adit_wire::icmpv4::{self, Icmpv4Error};
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::ipv4::{self, Ipv4Packet, Ipv4Repr};
use adit_wire::ipv6::{self, FragmentsV6, Ipv6Packet, Ipv6Repr, is_ipv6};
use adit_wire::{Protocol, Validation, fragment, tcp};

use crate::userspace::segment::GsoPacket;

/// Nothing here takes time.
const NOW: Instant = Instant::from_millis(1_000_000);

pub(super) struct Gateway {
    pub(super) tunnel: Tunnel,
    counters: Counters,
    forwards: bool,
}

impl Gateway {
    /// A gateway with this setup and no counts.
    pub(super) fn new(setup: &Setup) -> Gateway {
        let tunnel = Tunnel::new(setup.config.clone()).expect("the configuration is good");
        let tunnel = tunnel.with_flow_key(FlowKey(FLOW_KEY));
        let learning = tunnel.counters();
        for ((peer, ends), path) in tunnel.paths().zip(&setup.paths) {
            tunnel.set_underlay_mtu(peer, path.mtu);
            if path.owed {
                let message = unreachable(ends.source, ends.destination);
                tunnel.on_underlay_icmp(&message, NOW, &learning);
                assert!(tunnel.has_pending_error(peer), "the message is believed");
            }
        }
        let counters = tunnel.counters();
        Gateway { tunnel, counters, forwards: setup.forwards }
    }

    /// The outcome of a packet.
    pub(super) fn run(&self, direction: Direction, packet: &Packet) -> Outcome {
        match direction {
            Direction::Encap => self.encapsulate(&packet.bytes, packet.gso_size),
            Direction::Decap => self.decapsulate(&packet.bytes, packet.gso_size),
        }
    }

    /// The counts so far.
    pub(super) fn totals(&self) -> Totals {
        Totals::sum([&self.counters])
    }

    fn encapsulate(&self, bytes: &[u8], gso_size: Option<u16>) -> Outcome {
        let header = described(bytes, gso_size);
        let gso_packet = GsoPacket::new(bytes, &header).expect("a packet that can be cut");
        let inner = Inner {
            bytes,
            largest_datagram: gso_packet.largest(),
            segments: gso_packet.count() as u16,
            origin: Origin::Unknown,
        };
        match self.tunnel.encapsulate(&inner, NOW, &self.counters) {
            Encapsulated::Forward { peer, outer, max_mss } => {
                let clamp = |datagram: &mut [u8]| {
                    let lowered =
                        max_mss.and_then(|max| tcp::clamp_mss(datagram, max, ChecksumState::Complete));
                    if lowered.is_some() {
                        self.counters.count_mss_clamped(peer);
                    }
                };
                Outcome::Sent(cut(&gso_packet, &outer, clamp))
            }
            Encapsulated::Fragment { max_datagram, outer, .. } => {
                Outcome::Sent(fragments(&gso_packet, &outer, max_datagram))
            }
            Encapsulated::Reply { reply: Reply::V4 { destination, error }, reason } => {
                Outcome::Answered { reason, to: destination, error }
            }
            Encapsulated::ForwardInFragments { max_datagram, outer, .. } => {
                Outcome::Sent(outer_fragments(&gso_packet, &outer, max_datagram))
            }
            Encapsulated::Reply { reply: Reply::V6 { destination, error }, reason } => {
                Outcome::AnsweredV6 { reason, to: destination, error }
            }
            Encapsulated::Drop(reason) => Outcome::Dropped(reason),
        }
    }

    fn decapsulate(&self, bytes: &[u8], gso_size: Option<u16>) -> Outcome {
        let outer = Outer { bytes, segments: joined(bytes, gso_size), policy_checked: false };
        let (peer, inner, set_ecn, max_mss) = match self.tunnel.decapsulate(&outer, NOW, &self.counters) {
            Decapsulated::Deliver { peer, inner, set_ecn, max_mss } => (peer, inner, set_ecn, max_mss),
            Decapsulated::Answer { peer } => panic!("peer {peer:?} answers a probe that nobody sent"),
            Decapsulated::Unanswerable { peer } => panic!("peer {peer:?} probes, and nobody said so"),
            // Nobody counts it.
            Decapsulated::NotOurs => return Outcome::Dropped(DropReason::OuterNotProtocol4),
            Decapsulated::LeftToStack => panic!("no policy covers a peer"),
            Decapsulated::Drop(reason) => return Outcome::Dropped(reason),
        };
        let mut inner = bytes[inner].to_vec();
        if let Some(ecn) = set_ecn {
            let set = if is_ipv6(&inner) { ipv6::set_ecn } else { ipv4::set_ecn };
            set(&mut inner, ecn).expect("it has a header");
        }
        let lowered = max_mss.and_then(|max| tcp::clamp_mss(&mut inner, max, ChecksumState::Complete));
        if lowered.is_some() {
            self.counters.count_mss_clamped(peer);
        }
        self.received_by_host(inner, gso_size)
    }

    /// The host's stack receives the datagram: it delivers it here, or forwards it to the tunnel
    /// interface.
    fn received_by_host(&self, mut inner: Vec<u8>, gso_size: Option<u16>) -> Outcome {
        let ttl = inner[if is_ipv6(&inner) { 7 } else { 8 }];
        if !self.forwards || !is_for_a_peer(&self.tunnel, &inner) || ttl <= 1 {
            return Outcome::Delivered(inner);
        }
        let set = if is_ipv6(&inner) { ipv6::set_hop_limit } else { ipv4::set_ttl };
        set(&mut inner, ttl - 1).expect("it has a header");
        self.encapsulate(&inner, gso_size)
    }
}

/// Whether the host forwards a packet into the tunnel again. The tunnel has checked it.
pub(super) fn is_for_a_peer(tunnel: &Tunnel, inner: &[u8]) -> bool {
    if is_ipv6(inner) {
        let packet = Ipv6Packet::parse(inner, Validation::Datapath).expect("a packet");
        let owner = tunnel.owner(packet.destination());
        return matches!(owner, Some(Owner::Peer(_))) && !tunnel.is_local(packet.destination());
    }
    let packet = Ipv4Packet::parse(inner, Validation::Datapath).expect("a datagram");
    tunnel.lookup_inner(packet.destination()).is_some() && !tunnel.is_local(packet.destination())
}

/// Bytes of the IP header, and the protocol behind it.
fn transport_of(packet: &[u8]) -> (usize, Protocol) {
    if is_ipv6(packet) {
        (ipv6::HEADER_LEN, Protocol(packet[6]))
    } else {
        (ipv4::HEADER_LEN, Protocol(packet[9]))
    }
}

/// The virtio-net header of a packet from the host's stack.
pub(super) fn described(bytes: &[u8], gso_size: Option<u16>) -> VirtioNetHeader {
    let Some(gso_size) = gso_size else { return VirtioNetHeader::PLAIN };
    let gso = match transport_of(bytes) {
        (_, Protocol::TCP) if is_ipv6(bytes) => Gso::TcpV6 { cwr: false },
        (_, Protocol::TCP) => Gso::TcpV4 { cwr: false },
        _ => Gso::UdpL4,
    };
    VirtioNetHeader { checksum: Checksum::Unknown, gso, header_len: 0, gso_size }
}

/// Number of datagrams that an outer GSO packet was coalesced from.
fn joined(outer: &[u8], gso_size: Option<u16>) -> u16 {
    let Some(size) = gso_size else { return 1 };
    let inner = &outer[transport_of(outer).0..];
    let (header_len, protocol) = transport_of(inner);
    let transport = match protocol {
        Protocol::TCP => usize::from(inner[header_len + 12] >> 4) * 4,
        _ => 8,
    };
    let payload = inner.len() - header_len - transport;
    payload.div_ceil(usize::from(size)).max(1) as u16
}

/// The datagrams of a GSO packet, each in its outer header.
pub(super) fn cut(
    gso_packet: &GsoPacket<'_>,
    outer: &OuterHeader,
    change: impl Fn(&mut [u8]),
) -> Vec<Vec<u8>> {
    let datagrams = 0..gso_packet.count();
    let frame = |index| {
        let mut datagram = whole(gso_packet, index);
        change(&mut datagram);
        let identification =
            if outer.dont_fragment() { 0 } else { outer.identification().wrapping_add(index as u16) };
        [outer.for_segment(datagram.len() as u16, identification).as_bytes(), &datagram].concat()
    };
    datagrams.map(frame).collect()
}

/// The same datagrams in fragments, each in its outer header. Identifications stay 0.
fn fragments(gso_packet: &GsoPacket<'_>, outer: &OuterHeader, max_datagram: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for index in 0..gso_packet.count() {
        let bytes = whole(gso_packet, index);
        let packet = Ipv4Packet::parse(&bytes, Validation::Datapath).expect("the tunnel has checked it");
        let Ok(pieces) = fragment::fragments(&packet, max_datagram) else { continue };
        frames.extend(pieces.map(|piece| {
            let outer = outer.for_segment(piece.len() as u16, 0);
            [outer.as_bytes(), piece.header(), &bytes[piece.payload()]].concat()
        }));
    }
    frames
}

/// The same datagrams in outer fragments. Identifications stay 0.
fn outer_fragments(gso_packet: &GsoPacket<'_>, outer: &OuterHeader, max_datagram: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for bytes in cut(gso_packet, outer, |_| {}) {
        if is_ipv6(&bytes) {
            let packet = Ipv6Packet::parse(&bytes, Validation::Datapath).expect("it was just made");
            let pieces = FragmentsV6::new(&packet, max_datagram, 0).into_iter().flatten();
            frames.extend(pieces.map(|piece| [&piece.header[..], &bytes[piece.payload]].concat()));
            continue;
        }
        let packet = Ipv4Packet::parse(&bytes, Validation::Datapath).expect("it was just made");
        let Ok(pieces) = fragment::fragments(&packet, max_datagram) else { continue };
        frames.extend(pieces.map(|piece| [piece.header(), &bytes[piece.payload()]].concat()));
    }
    frames
}

fn whole(gso_packet: &GsoPacket<'_>, index: usize) -> Vec<u8> {
    let mut datagram = vec![0; gso_packet.datagram_len(index)];
    gso_packet.write_whole(index, &mut datagram);
    datagram
}

/// A router's error that the peer cannot be reached, with too short a quote to tell whose packet it
/// was.
fn unreachable(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let start_of_inner = [0x45, 0, 0, 100, 0, 0, 0, 0];
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let quoted = Ipv4Repr {
                source,
                destination,
                protocol: Protocol::IPIP,
                ttl: 60,
                tos: 0,
                identification: 0,
                dont_fragment: true,
                payload_len: 100,
            };
            let quote = [&quoted.emit()[..], &start_of_inner].concat();
            let mut message = [0; icmpv4::MAX_ERROR_LEN];
            let error = Icmpv4Error::DestinationUnreachable { code: icmpv4::unreachable::HOST };
            let len = icmpv4::build_error(&mut message, ROUTER, source, error, &quote);
            message[..len].to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let quoted = Ipv6Repr {
                source,
                destination,
                next_header: Protocol::IPIP,
                hop_limit: 60,
                traffic_class: 0,
                flow_label: 0,
                payload_len: 100,
            };
            let quote = [&quoted.emit()[..], &start_of_inner].concat();
            let mut message = [0; icmpv6::MAX_ERROR_LEN];
            let error = Icmpv6Error::DestinationUnreachable { code: icmpv6::unreachable::ADDRESS };
            let len = icmpv6::build_error(&mut message, STRANGER6, source, error, &quote);
            message[..len].to_vec()
        }
        _ => panic!("both ends of a path are of one family"),
    }
}
