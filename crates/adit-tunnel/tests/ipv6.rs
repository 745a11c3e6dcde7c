//! Packets of IPv6 through the tunnel: RFC 4213, with RFC 2473 sections 7 and 8, RFC 4443 and
//! RFC 6040.

mod common;

use std::time::Duration;

use adit_tunnel::{
    Decapsulated, DropReason, Encapsulated, MAX_REPLY_LEN, PathOptions, Peer, PeerSet, Reply, TunnelConfig,
    UnderlayIcmp,
};
use adit_wire::ecn::Ecn;
use adit_wire::icmpv4::EchoKind;
use adit_wire::icmpv6::{self, Icmpv6Error, Icmpv6Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{self, Ipv6Packet};
use adit_wire::{Protocol, Validation};
use common::*;

/// Site A has 2001:db8:a::/48, peer B 2001:db8:b::/48 and peer C 2001:db8:c::/48, each beside its
/// network of IPv4.
fn both_families() -> TunnelConfig {
    let parse = |network: &str| network.parse().expect("a network");
    let mut peers =
        PeerSet::new(Some(A.into()), ["172.16.17.0/24", "2001:db8:a::/48"].map(parse)).expect("no conflict");
    for (name, underlay, networks) in
        [("b", B, ["192.168.199.0/24", "2001:db8:b::/48"]), ("c", C, ["192.168.200.0/24", "2001:db8:c::/48"])]
    {
        let (name, networks) = (name.parse().expect("a name"), networks.map(parse).into());
        peers
            .insert(Peer { name, underlay: underlay.into(), networks, path: PathOptions::default() })
            .expect("no conflict");
    }
    TunnelConfig { peers, ..config() }
}

fn gateway() -> Gateway {
    Gateway::new(both_families())
}

/// The error that its sender gets, and the reason.
fn answered(gateway: &Gateway, inner: &[u8]) -> (Icmpv6Error, DropReason) {
    let Encapsulated::Reply { reply, reason } = gateway.encapsulate(inner) else { panic!("not answered") };
    let Reply::V6 { destination, error } = reply else { panic!("{reply:?}") };
    let mut out = [0; MAX_REPLY_LEN];
    let len = reply.write(inner, &mut out);
    let packet = Ipv6Packet::parse(&out[..len], Validation::Strict).expect("a packet");
    assert_eq!((packet.destination(), packet.next_header()), (destination, Protocol::ICMPV6));
    let message = Icmpv6Message::parse(packet.payload()).expect("a message");
    assert_eq!(message.error(), Some(error));
    let quoted = &packet.payload()[icmpv6::HEADER_LEN..];
    assert!(inner.starts_with(quoted) && len <= usize::from(ipv6::MIN_MTU), "{len}");
    (error, reason)
}

#[test]
fn rfc4213_s3_5_the_outer_header_says_protocol_41() {
    for (class, ecn) in [(0, 0), (0xb8, 0), (0xb9, 1), (0x02, 2), (0x03, 3)] {
        let inner = packet_v6_with(A6, B6, 1000, |repr| repr.traffic_class = class);
        let outer = gateway().outer(&inner);
        let header = Ipv4Packet::parse(&outer, Validation::Strict).expect("a datagram");
        assert_eq!((header.source(), header.destination()), (A, B));
        assert_eq!((header.protocol(), header.ttl(), header.tos()), (Protocol::IPV6, 64, class));
        assert_eq!((header.total_len(), header.ecn().bits()), (1020, ecn));
        assert!(header.dont_fragment() && header.payload() == inner);
    }
}

/// The table of RFC 4213 section 3.2.2: what leaves in one piece, what leaves in outer fragments,
/// and what its sender is told.
#[test]
fn rfc4213_s3_2_2_a_packet_of_up_to_1280_bytes_is_carried_whatever_the_path_leaves() {
    // Underlay MTU, length, whether DF is set; or the MTU in Packet Too Big.
    for (underlay_mtu, len, expected) in [
        (1500, 1280, Ok(true)),
        (1500, 1480, Ok(true)),
        (1500, 1481, Err(1480)),
        (1300, 1280, Ok(true)),
        (1300, 1281, Err(1280)),
        (1299, 1279, Ok(true)),
        (1299, 1280, Ok(false)),
        (1299, 1281, Err(1280)),
        (1280, 1260, Ok(true)),
        (1280, 1261, Ok(false)),
        (1280, 1280, Ok(false)),
        (576, 556, Ok(true)),
        (576, 1280, Ok(false)),
        (576, 1281, Err(1280)),
    ] {
        let gateway = Gateway::new(TunnelConfig { underlay_mtu, ..both_families() });
        let inner = packet_v6(A6, B6, len);
        let what = format!("{len} bytes over an MTU of {underlay_mtu}");
        match expected {
            Ok(df) => {
                let outer = gateway.outer(&inner);
                let header = Ipv4Packet::parse(&outer, Validation::Strict).expect("a datagram");
                assert_eq!(header.dont_fragment(), df, "{what}");
                let next = gateway.outer(&inner);
                let next = Ipv4Packet::parse(&next, Validation::Strict).expect("a datagram");
                assert_eq!(header.identification() == next.identification(), df, "{what}");
                let longest = match gateway.encapsulate(&inner) {
                    Encapsulated::Forward { .. } => None,
                    Encapsulated::ForwardInFragments { max_datagram, .. } => Some(max_datagram),
                    refused => panic!("{what}: {refused:?}"),
                };
                assert_eq!(longest, (!df).then_some(usize::from(underlay_mtu)), "{what}");
            }
            Err(mtu) => {
                let found = answered(&gateway, &inner);
                assert_eq!(found, (Icmpv6Error::TooBig { mtu }, DropReason::InnerTooBig), "{what}");
            }
        }
    }
}

#[test]
fn rfc4443_s3_a_sender_learns_why_a_packet_is_refused() {
    let gateway = gateway();
    let unreachable = |code| Icmpv6Error::DestinationUnreachable { code };
    for (inner, error, reason) in [
        (packet_v6(A6, "2001:db8:d::1", 100), unreachable(0), DropReason::InnerDestinationUnknown),
        (packet_v6("2001:db8:d::1", B6, 100), unreachable(1), DropReason::InnerSourceDenied),
        (
            packet_v6_with(A6, B6, 100, |repr| repr.hop_limit = 0),
            Icmpv6Error::TimeExceeded { code: 0 },
            DropReason::InnerTtlZero,
        ),
    ] {
        assert_eq!(answered(&gateway, &inner), (error, reason));
    }
}

#[test]
fn rfc4443_s2_4_no_error_is_sent_about_an_error_or_to_nobody() {
    let gateway = gateway();
    let mut message = [0; 64];
    let echo =
        icmpv6::build_echo(&mut message, (v6(A6), v6(B6)), 1, 1, &[], EchoKind::Request).expect("room");
    let icmp = |kind: u8| {
        let mut message = message[..echo].to_vec();
        message[0] = kind;
        let header =
            packet_v6_with(A6, "2001:db8:d::1", 40 + echo, |repr| repr.next_header = Protocol::ICMPV6);
        [&header[..40], &message].concat()
    };
    assert!(matches!(gateway.encapsulate(&icmp(128)), Encapsulated::Reply { .. }));
    let unknown = Encapsulated::Drop(DropReason::InnerDestinationUnknown);
    assert_eq!(gateway.encapsulate(&icmp(1)), unknown);
    assert_eq!(gateway.encapsulate(&packet_v6("::", "2001:db8:d::1", 100)), unknown);
    assert_eq!(gateway.encapsulate(&packet_v6(A6, "ff02::1", 100)), unknown);
}

#[test]
fn what_is_no_packet_is_dropped() {
    let gateway = gateway();
    let whole = packet_v6(A6, B6, 100);
    let malformed = Encapsulated::Drop(DropReason::InnerMalformed);
    for bytes in [&whole[..99], &whole[..39], &[&whole[..], &[0]].concat()] {
        assert_eq!(gateway.encapsulate(bytes), malformed, "{} bytes", bytes.len());
    }
    assert_eq!(gateway.encapsulate(&[0x75; 40]), Encapsulated::Drop(DropReason::InnerNotIpv4));
}

/// A tunnel without networks of IPv6 is one of IPv4 alone.
#[test]
fn without_a_network_of_ipv6_protocol_41_is_not_ours() {
    let gateway = Gateway::default();
    let inner = packet_v6(A6, B6, 100);
    assert_eq!(gateway.encapsulate(&inner), Encapsulated::Drop(DropReason::InnerNotIpv4));
    let found = gateway.decapsulate(&from_b(&packet_v6(B6, A6, 100)));
    assert_eq!(found, Decapsulated::Drop(DropReason::OuterNotProtocol4));
}

/// In an outer datagram of protocol 41 from B.
fn from_b(inner: &[u8]) -> Vec<u8> {
    let mut outer = datagram(B, A);
    outer.repr.protocol = Protocol::IPV6;
    outer.payload = inner.to_vec();
    outer.build()
}

#[test]
fn rfc4213_s3_6_a_packet_from_a_peer_is_delivered_unchanged() {
    let gateway = gateway();
    let inner = packet_v6(B6, A6, 900);
    let outer = from_b(&inner);
    let Decapsulated::Deliver { peer, inner: range, set_ecn, max_mss } = gateway.decapsulate(&outer) else {
        panic!("not delivered")
    };
    assert_eq!((peer, &outer[range], set_ecn, max_mss), (PEER_B, &inner[..], None, None));
    assert_eq!((gateway.totals().peers[0].rx_packets, gateway.totals().peers[0].rx_bytes), (1, 900));
}

#[test]
fn rfc4213_s3_6_what_a_peer_may_not_send_is_dropped() {
    let gateway = gateway();
    let own = DropReason::InnerSourceIsOwn;
    let not_theirs = DropReason::InnerSourceNotFromPeer;
    for (inner, reason) in [
        (packet_v6(A6, A6, 100), own),
        (packet_v6(C6, A6, 100), not_theirs),
        (packet_v6("2001:db8:d::1", A6, 100), not_theirs),
        (packet_v6("::", A6, 100), not_theirs),
        (packet_v6("::1", A6, 100), not_theirs),
        (packet_v6("::192.168.199.9", A6, 100), not_theirs),
        (packet_v6("::ffff:192.168.199.9", A6, 100), not_theirs),
        (packet_v6("fe80::1", A6, 100), not_theirs),
        (packet_v6("ff02::1", A6, 100), not_theirs),
        (packet_v6(B6, "2001:db8:d::1", 100), DropReason::InnerDestinationNotOurs),
        (packet_v6(B6, "2001:db8:b::1", 100), DropReason::InnerDestinationNotOurs),
        (packet_v6(B6, "ff0e::1", 100), DropReason::InnerDestinationNotOurs),
        (packet_v6_with(B6, A6, 100, |repr| repr.hop_limit = 0), DropReason::DecapInnerTtlZero),
        (packet_v6(B6, A6, 100)[..60].to_vec(), DropReason::DecapInnerMalformed),
        (datagram(HOST_B, HOST_A).build(), DropReason::DecapInnerMalformed),
    ] {
        assert_eq!(gateway.decapsulate(&from_b(&inner)), Decapsulated::Drop(reason), "{inner:02x?}");
    }
    // The other way round: IPv6 where protocol 4 is said.
    let mut outer = datagram(B, A);
    (outer.repr.protocol, outer.payload) = (Protocol::IPIP, packet_v6(B6, A6, 100));
    assert_eq!(gateway.decapsulate(&outer.build()), Decapsulated::Drop(DropReason::DecapInnerNotIpv4));
}

/// Even if a peer has a network around them.
#[test]
fn rfc4213_s3_6_some_addresses_never_come_out_of_a_tunnel() {
    let mut config = both_families();
    let default = Peer {
        name: "d".parse().expect("a name"),
        underlay: [10, 1, 1, 4].into(),
        networks: vec!["::/0".parse().expect("a network")],
        path: PathOptions::default(),
    };
    let mut peers =
        PeerSet::nested(Some(A.into()), ["2001:db8:a::/48".parse().expect("a network")]).expect("a site");
    peers.insert(default).expect("no conflict");
    config.peers = peers;
    let gateway = Gateway::new(config);
    for (source, expected) in [
        ("2001:db8:d::1", None),
        ("fd00::1", None),
        ("fe80::1", Some(DropReason::InnerSourceNotFromPeer)),
        ("ff05::1", Some(DropReason::InnerSourceNotFromPeer)),
        ("::1", Some(DropReason::InnerSourceNotFromPeer)),
        ("::ffff:10.1.1.1", Some(DropReason::InnerSourceNotFromPeer)),
        (A6, Some(DropReason::InnerSourceIsOwn)),
    ] {
        let mut outer = datagram([10, 1, 1, 4].into(), A);
        (outer.repr.protocol, outer.payload) = (Protocol::IPV6, packet_v6(source, A6, 100));
        let found = gateway.decapsulate(&outer.build());
        match expected {
            None => assert!(matches!(found, Decapsulated::Deliver { .. }), "{source}: {found:?}"),
            Some(reason) => assert_eq!(found, Decapsulated::Drop(reason), "{source}"),
        }
    }
}

#[test]
fn a_hub_relays_to_another_peer() {
    let gateway = gateway();
    assert!(matches!(gateway.decapsulate(&from_b(&packet_v6(B6, C6, 100))), Decapsulated::Deliver { .. }));
    // Out again, by the host's stack.
    let Encapsulated::Forward { peer, .. } = gateway.encapsulate(&packet_v6(B6, C6, 100)) else {
        panic!("not relayed")
    };
    assert_eq!(peer, PEER_C);
    let same = Encapsulated::Drop(DropReason::RelayToSamePeer);
    assert_eq!(gateway.encapsulate(&packet_v6(B6, "2001:db8:b::1", 100)), same);
}

/// All sixteen pairs of RFC 6040 section 4.2, as for IPv4.
#[test]
fn rfc6040_s4_2_the_ecn_field_after_the_tunnel() {
    let codepoints = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];
    for inner in codepoints {
        for outer in codepoints {
            let gateway = gateway();
            let packet = packet_v6_with(B6, A6, 100, |repr| repr.traffic_class = inner.bits());
            let mut datagram = datagram(B, A);
            (datagram.repr.protocol, datagram.repr.tos) = (Protocol::IPV6, outer.bits());
            datagram.payload = packet;
            let expected = match (inner, outer) {
                (Ecn::NotEct, Ecn::Ce) => None,
                (Ecn::NotEct, _) => Some(Ecn::NotEct),
                (_, Ecn::Ce) => Some(Ecn::Ce),
                (Ecn::Ect0, Ecn::Ect1) => Some(Ecn::Ect1),
                (inner, _) => Some(inner),
            };
            match gateway.decapsulate(&datagram.build()) {
                Decapsulated::Deliver { set_ecn, .. } => {
                    assert_eq!(Some(set_ecn.unwrap_or(inner)), expected, "{inner:?} in {outer:?}");
                }
                other => assert_eq!(
                    (other, expected),
                    (Decapsulated::Drop(DropReason::EcnViolation), None),
                    "{inner:?} in {outer:?}"
                ),
            }
        }
    }
}

/// 20 bytes less than over IPv4: the inner header is longer.
#[test]
fn rfc9293_s3_7_1_a_syn_gets_the_mss_that_the_path_leaves() {
    let gateway = gateway();
    let syn = |flags: u8| {
        let mut packet = packet_v6_with(A6, B6, 60, |repr| repr.next_header = Protocol::TCP);
        packet[40..].fill(0);
        (packet[52], packet[53]) = (5 << 4, flags);
        packet
    };
    for (flags, expected) in [(0x02, Some(1420)), (0x12, Some(1420)), (0x10, None)] {
        let Encapsulated::Forward { max_mss, .. } = gateway.encapsulate(&syn(flags)) else {
            panic!("refused")
        };
        assert_eq!(max_mss, expected, "flags {flags:#x}");
    }
}

/// Protocol 41 nests as protocol 4 does.
#[test]
fn rfc2003_s3_2_the_tunnel_does_not_encapsulate_itself() {
    let gateway = gateway();
    for protocol in [Protocol::IPIP, Protocol::IPV6] {
        let mut own = datagram(A, HOST_B);
        own.repr.protocol = protocol;
        let nested = Encapsulated::Drop(DropReason::NestedEncapsulation);
        assert_eq!(gateway.encapsulate(&own.build()), nested, "{protocol}");
        let mut inner = datagram(HOST_B, A);
        inner.repr.protocol = protocol;
        let found = gateway.decapsulate(&inner.inside(B, A).build());
        assert_eq!(found, Decapsulated::Drop(DropReason::NestedToOurselves), "{protocol}");
    }
}

/// The error goes to the next sender.
/// A short quote is told to the sender of the next packet, a longer one to the sender of this one.
#[test]
fn rfc4213_s3_4_a_sender_is_told_that_a_router_cannot_reach_the_peer() {
    let unreachable = Icmpv6Error::DestinationUnreachable { code: 3 };
    for (quoted, is_enough) in [(28, false), (67, false), (68, true), (120, true)] {
        let mut gateway = gateway();
        let inner = packet_v6(A6, B6, 100);
        let sent = gateway.outer(&inner);
        let error = adit_wire::icmpv4::Icmpv4Error::DestinationUnreachable { code: 1 };
        let message = icmp(error, &sent, quoted);
        let learned = gateway.icmp(&message);
        if is_enough {
            let UnderlayIcmp::Relay { peer, reply, offending } = learned else { panic!("{learned:?}") };
            assert_eq!((peer, reply), (PEER_B, Reply::V6 { destination: v6(A6), error: unreachable }));
            assert!(inner.starts_with(&message[offending]), "{quoted}");
        } else {
            assert_eq!(learned, UnderlayIcmp::StateChanged { peer: PEER_B }, "{quoted}");
        }
        let told = answered(&gateway, &inner);
        assert_eq!(told, (unreachable, DropReason::PeerUnreachable), "for a second everybody is told");
        gateway.now = gateway.now.saturating_add(Duration::from_secs(5));
        assert!(matches!(gateway.encapsulate(&inner), Encapsulated::Forward { .. }), "once is enough");
    }
}

#[test]
fn rfc4213_s3_2_2_a_path_mtu_that_a_router_tells_counts_for_both_families() {
    for (len, quoted, relayed) in
        [(1480, 60, false), (1480, 500, true), (1281, 500, true), (1280, 500, false)]
    {
        let gateway = gateway();
        let sent = gateway.outer(&packet_v6(A6, B6, len));
        let mtu = if len == 1480 { 1400 } else { 1290 };
        let message = icmp(adit_wire::icmpv4::Icmpv4Error::TooBig { mtu }, &sent, quoted);
        let learned = gateway.icmp(&message);
        let told = Icmpv6Error::TooBig { mtu: u32::from(mtu - 20).max(1280) };
        match learned {
            UnderlayIcmp::Relay { reply, .. } if relayed => {
                assert_eq!(reply, Reply::V6 { destination: v6(A6), error: told });
            }
            UnderlayIcmp::StateChanged { peer } if !relayed => assert_eq!(peer, PEER_B),
            other => panic!("{len} bytes, {quoted} of them quoted: {other:?}"),
        }
        assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, mtu);
        let next = answered(&gateway, &packet_v6(A6, B6, 1480));
        assert_eq!(next, (told, DropReason::InnerTooBig));
    }
}

/// RFC 5927 section 4.
#[test]
fn an_error_whose_quote_the_tunnel_would_not_have_sent_is_not_believed() {
    let gateway = gateway();
    let error = adit_wire::icmpv4::Icmpv4Error::TooBig { mtu: 1300 };
    for inner in [
        packet_v6(A6, C6, 1400),
        packet_v6("2001:db8:d::1", B6, 1400),
        packet_v6(B6, A6, 1400),
        vec![0x45; 100],
    ] {
        let quoted = [&gateway.outer(&packet_v6(A6, B6, 1400))[..20], &inner[..]].concat();
        let found = gateway.icmp(&icmp(error, &quoted, 60));
        assert_eq!(found, UnderlayIcmp::Ignored(DropReason::IcmpUnbelievable));
    }
    assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, 1500);
}
