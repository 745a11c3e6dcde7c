//! Every drop reason, caused by the smallest datagram that has it, with the section of the RFC that
//! requires the drop. Nothing else is counted.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use adit_tunnel::{Decapsulated, DropReason, Encapsulated, Origin, Relay, UnderlayIcmp};
use adit_wire::icmpv4::Icmpv4Error;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use common::*;

enum Through {
    /// Into the tunnel, and whether the sender must get an ICMP error.
    In {
        origin: Origin,
        bytes: Vec<u8>,
        answered: bool,
    },
    Out(Vec<u8>),
    Icmp(Vec<u8>),
}

struct Case {
    reason: DropReason,
    section: &'static str,
    through: Through,
    before: fn(&Gateway),
}

fn nothing(_: &Gateway) {}

/// A router that quotes no more than RFC 792 requires has reported that B is unreachable.
fn short_unreachable(gateway: &Gateway) {
    let outer = gateway.outer(&a_to_b().build());
    assert_eq!(gateway.icmp(&icmp(unreachable(1), &outer, 28)), UnderlayIcmp::StateChanged { peer: PEER_B });
}

fn use_up_icmp(gateway: &Gateway) {
    let outer = gateway.outer(&a_to_b().build());
    for _ in 0..adit_tunnel::ICMP_BURST {
        assert!(matches!(gateway.icmp(&icmp(unreachable(1), &outer, 120)), UnderlayIcmp::Relay { .. }));
    }
}

/// An error of a router with an unlisted address, about a datagram from the host that gets it.
fn router_error(source: std::net::Ipv4Addr, to: std::net::Ipv4Addr, about: std::net::Ipv4Addr) -> Datagram {
    let mut message = [0; adit_wire::icmpv4::MAX_ERROR_LEN];
    let quote = datagram(to, about).build();
    let len = adit_wire::icmpv4::build_error(&mut message, source, to, unreachable(1), &quote);
    datagram(source, to).protocol(Protocol::ICMP).payload(message[20..len].to_vec())
}

fn use_up_router_errors(gateway: &Gateway) {
    for _ in 0..adit_tunnel::ICMP_BURST {
        let verdict = gateway.encapsulate(&router_error(STRANGER, HOST_B, HOST_A).build());
        assert!(matches!(verdict, Encapsulated::Forward { .. }), "{verdict:?}");
        let verdict = gateway.decapsulate(&router_error(STRANGER, HOST_A, HOST_B).inside(B, A).build());
        assert!(matches!(verdict, Decapsulated::Deliver { .. }), "{verdict:?}");
    }
}

fn cases() -> Vec<Case> {
    use DropReason as R;
    let case = |reason, section, through, before| Case { reason, section, through, before };
    let into = |reason, section, bytes, answered| {
        case(
            reason,
            section,
            Through::In { origin: Origin::Unknown, bytes, answered },
            nothing as fn(&Gateway),
        )
    };
    let out = |reason, section, bytes| case(reason, section, Through::Out(bytes), nothing as fn(&Gateway));
    let back = |reason, section, bytes| case(reason, section, Through::Icmp(bytes), nothing as fn(&Gateway));

    let good = a_to_b().build();
    let from_b = || datagram(HOST_B, HOST_A);
    let ours = a_to_b().inside(A, B).df(true).build();
    let icmp_error_inside = {
        let mut payload = vec![3, 1, 0, 0, 0, 0, 0, 0];
        payload.extend(datagram(HOST_B, HOST_A).build());
        a_to_b().protocol(Protocol::ICMP).payload(payload).inside(A, B).build()
    };
    let mut bad_checksum = good.clone();
    bad_checksum[10] ^= 1;
    let mut ipv6 = good.clone();
    ipv6[0] = 0x65;
    let mut bad_icmp = icmp(unreachable(1), &ours, 100);
    bad_icmp[40] ^= 1;

    vec![
        into(R::InnerMalformed, "RFC 791 section 3.1", bad_checksum.clone(), false),
        into(R::InnerMalformed, "RFC 791 section 3.1", Vec::new(), false),
        into(R::InnerMalformed, "RFC 791 section 3.1", [good.clone(), vec![0]].concat(), false),
        into(R::InnerMalformed, "RFC 791 section 3.1", good[..99].to_vec(), false),
        into(R::InnerNotIpv4, "RFC 2003 section 3.1", ipv6.clone(), false),
        into(R::InnerTtlZero, "RFC 2003 section 3.1", a_to_b().ttl(0).build(), true),
        case(
            R::InnerTtlZero,
            "RFC 2003 section 3.1",
            Through::In { origin: Origin::Local, bytes: a_to_b().ttl(0).build(), answered: false },
            nothing,
        ),
        into(
            R::InnerDestinationUnknown,
            "RFC 1812 section 5.2.7.1",
            datagram(HOST_A, STRANGER).build(),
            true,
        ),
        into(
            R::InnerDestinationUnknown,
            "RFC 1812 section 5.2.7.1",
            datagram(HOST_A, GATEWAY_A).build(),
            true,
        ),
        into(
            R::InnerDestinationUnknown,
            "RFC 1812 section 5.2.7.1",
            datagram(HOST_A, [224, 0, 0, 5].into()).build(),
            false,
        ),
        into(R::InnerSourceDenied, "RFC 2827 section 4", datagram(STRANGER, HOST_B).build(), true),
        into(
            R::InnerSourceDenied,
            "RFC 2827 section 4",
            datagram([0, 0, 0, 0].into(), HOST_B).build(),
            false,
        ),
        case(
            R::RouterErrorLimited,
            "RFC 1812 section 4.3.2.8",
            Through::In {
                origin: Origin::Unknown,
                bytes: router_error(STRANGER, HOST_B, HOST_A).build(),
                answered: false,
            },
            use_up_router_errors,
        ),
        case(
            R::DecapRouterErrorLimited,
            "RFC 1812 section 4.3.2.8",
            Through::Out(router_error(STRANGER, HOST_A, HOST_B).inside(B, A).build()),
            use_up_router_errors,
        ),
        case(
            R::InnerSourceIsOwnForwarded,
            "RFC 2003 section 3.2",
            Through::In {
                origin: Origin::Forwarded,
                bytes: datagram(GATEWAY_A, HOST_B).build(),
                answered: false,
            },
            nothing,
        ),
        into(R::InnerSourceIsTunnelExit, "RFC 2003 section 3.2", datagram(B, HOST_B).build(), false),
        into(R::NestedEncapsulation, "RFC 2003 section 3.2", a_to_b().inside(A, HOST_B).build(), false),
        into(R::NestedEncapsulation, "RFC 2003 section 3.2", a_to_b().inside(HOST_A, C).build(), false),
        into(R::RelayToSamePeer, "RFC 2827 section 4", datagram(HOST_B, HOST_B).build(), false),
        into(R::InnerTooBig, "RFC 2003 section 5.1", a_to_b().len(1481).df(true).build(), true),
        case(
            R::PeerUnreachable,
            "RFC 2003 section 4",
            Through::In { origin: Origin::Unknown, bytes: good.clone(), answered: true },
            short_unreachable,
        ),
        out(R::OuterMalformed, "RFC 791 section 3.1", bad_checksum.clone()),
        out(R::OuterMalformed, "RFC 791 section 3.1", ipv6.clone()),
        out(R::OuterMalformed, "RFC 791 section 3.1", Vec::new()),
        out(
            R::OuterNotProtocol4,
            "RFC 2003 section 3.1",
            from_b().inside(B, A).protocol(Protocol::UDP).build(),
        ),
        out(R::OuterDestinationNotOurs, "RFC 2003 section 3.1", from_b().inside(B, C).build()),
        out(R::OuterSourceUnknown, "RFC 2003 section 6.1", from_b().inside(STRANGER, A).build()),
        out(R::OuterFragment, "RFC 4459 section 3.3", rewrite(from_b().inside(B, A).build(), 6, &[0x20, 0])),
        out(R::OuterFragment, "RFC 4459 section 3.3", rewrite(from_b().inside(B, A).build(), 6, &[0, 9])),
        out(R::DecapInnerMalformed, "RFC 791 section 3.1", wrap(B, A, bad_checksum).build()),
        out(R::DecapInnerMalformed, "RFC 791 section 3.1", wrap(B, A, Vec::new()).build()),
        out(R::DecapInnerNotIpv4, "RFC 2003 section 3.1", wrap(B, A, ipv6).build()),
        out(R::DecapInnerTtlZero, "RFC 2003 section 3.1", from_b().ttl(0).inside(B, A).build()),
        out(R::NestedToOurselves, "RFC 6169 section 2.2", from_b().inside(HOST_B, A).inside(B, A).build()),
        out(R::InnerSourceIsOwn, "RFC 2827 section 4", datagram(HOST_A, GATEWAY_A).inside(B, A).build()),
        out(R::InnerSourceIsOwn, "RFC 2827 section 4", datagram(A, HOST_A).inside(B, A).build()),
        out(R::InnerSourceNotFromPeer, "RFC 6169 section 2.2", datagram(HOST_C, HOST_A).inside(B, A).build()),
        out(
            R::InnerSourceNotFromPeer,
            "RFC 6169 section 2.2",
            datagram(STRANGER, HOST_A).inside(B, A).build(),
        ),
        out(
            R::InnerDestinationNotOurs,
            "RFC 2003 section 6.1",
            datagram(HOST_B, STRANGER).inside(B, A).build(),
        ),
        out(
            R::InnerDestinationNotOurs,
            "RFC 2003 section 6.1",
            datagram(HOST_B, HOST_B).inside(B, A).build(),
        ),
        out(R::EcnViolation, "RFC 6040 section 4.2", from_b().inside(B, A).tos(3).build()),
        back(R::IcmpMalformed, "RFC 792", bad_icmp),
        back(R::IcmpMalformed, "RFC 792", vec![0x45; 19]),
        back(R::IcmpMalformed, "RFC 792", icmp(unreachable(1), &[0x60; 40], 40)),
        back(
            R::IcmpUnbelievable,
            "RFC 5927 section 4",
            icmp(unreachable(1), &a_to_b().inside(A, STRANGER).build(), 120),
        ),
        back(
            R::IcmpUnbelievable,
            "RFC 5927 section 4",
            icmp(unreachable(1), &a_to_b().inside(C, B).build(), 120),
        ),
        back(
            R::IcmpUnbelievable,
            "RFC 5927 section 4",
            icmp(unreachable(1), &a_to_b().inside(A, C).build(), 120),
        ),
        back(
            R::IcmpUnbelievable,
            "RFC 5927 section 4",
            icmp(unreachable(1), &datagram(STRANGER, HOST_B).inside(A, B).build(), 120),
        ),
        back(R::IcmpUnbelievable, "RFC 5927 section 4", icmp(Icmpv4Error::TooBig { mtu: 120 }, &ours, 120)),
        back(
            R::IcmpUnbelievable,
            "RFC 5927 section 4",
            icmp(Icmpv4Error::TooBig { mtu: 100 }, &a_to_b().inside(A, B).build(), 120),
        ),
        back(R::IcmpNotRelayed, "RFC 2003 section 4", icmp(Icmpv4Error::SourceQuench, &ours, 120)),
        back(R::IcmpNotAnswerable, "RFC 1122 section 3.2.2", icmp(unreachable(1), &icmp_error_inside, 120)),
        case(
            R::IcmpRateLimited,
            "RFC 1812 section 4.3.2.8",
            Through::Icmp(icmp(unreachable(1), &ours, 120)),
            use_up_icmp,
        ),
    ]
}

/// The source that a drop is noted with: the inner one of what comes from a known peer, else the
/// outer one.
fn source_of(bytes: &[u8], is_from_peer: bool) -> Option<IpAddr> {
    let source = |bytes: &[u8]| match bytes.first()? >> 4 {
        6 => Some(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into()),
        _ => Ipv4Packet::parse(bytes, Validation::Lenient).map(|packet| packet.source().into()).ok(),
    };
    let inner = bytes.get(20..).filter(|_| is_from_peer);
    inner.and_then(source).or_else(|| source(bytes))
}

#[test]
fn every_case_is_dropped_for_its_reason_and_counted_once() {
    for (number, case) in cases().into_iter().enumerate() {
        let Case { reason, section, through, before } = case;
        let what = format!("case {number}, {reason}");
        assert_eq!(reason.section(), section, "{what}");
        let gateway = Gateway::default();
        before(&gateway);
        let earlier = gateway.totals();
        assert_eq!(earlier.dropped(), 0, "{what}: a datagram was dropped in its preparation");
        let (bytes, is_from_underlay) = match &through {
            Through::In { bytes, .. } | Through::Icmp(bytes) => (bytes.clone(), false),
            Through::Out(bytes) => (bytes.clone(), true),
        };
        match through {
            Through::In { origin, bytes, answered } => match gateway.encapsulate_from(&bytes, origin) {
                Encapsulated::Reply { reply, reason: found } => {
                    assert_eq!((found, answered), (reason, true), "{what}: {reply:?}");
                    assert_eq!(gateway.totals().icmp.sent, 1, "{what}");
                }
                Encapsulated::Drop(found) => assert_eq!((found, answered), (reason, false), "{what}"),
                passed => panic!("{what}: {passed:?}"),
            },
            Through::Out(bytes) => {
                assert_eq!(gateway.decapsulate(&bytes), Decapsulated::Drop(reason), "{what}")
            }
            Through::Icmp(bytes) => assert_eq!(gateway.icmp(&bytes), UnderlayIcmp::Ignored(reason), "{what}"),
        }
        assert_eq!(gateway.drops(), [(reason, 1)], "{what}");
        let last = gateway.totals().last_drops[reason.index()].expect("it is noted");
        let source = source_of(&bytes, is_from_underlay && last.peer.is_some());
        assert_eq!((last.source, last.at), (source, gateway.now), "{what}");
        let passed = |totals: &adit_tunnel::Totals| {
            totals.peers.iter().map(|peer| peer.tx_packets + peer.rx_packets).sum::<u64>()
        };
        assert_eq!(
            passed(&gateway.totals()),
            passed(&earlier),
            "{what}: a datagram was counted as dropped and as passed"
        );
    }
}

/// Reasons that only an operating system can cause. The data planes test them.
const BY_THE_SYSTEM: [DropReason; 4] = [
    DropReason::DeviceWriteFailed,
    DropReason::UnderlaySendFailed,
    DropReason::UnderlayNoRoute,
    DropReason::QueueFull,
];

/// Reasons that only a prober can find. `probing` and `doubt` test them.
const BY_PROBES: [DropReason; 2] = [DropReason::IcmpDisproved, DropReason::IcmpUnproven];

/// Reasons that need another file: an option, which is tested here, and an underlay of IPv6, for
/// `underlay_v6.rs`.
const BY_OPTION: DropReason = DropReason::RelayRefused;
const OVER_IPV6: DropReason = DropReason::EncapsulationLimit;

#[test]
fn a_relay_that_the_file_does_not_allow_is_refused() {
    let name = |name: &str| name.parse().expect("a name");
    let allowed = |relay| {
        let gateway = Gateway::new(adit_tunnel::TunnelConfig { relay, ..config() });
        let verdict = gateway.decapsulate(&datagram(HOST_B, HOST_C).inside(B, A).build());
        let is_refused = verdict == Decapsulated::Drop(BY_OPTION);
        assert_eq!(gateway.drops().len(), usize::from(is_refused));
        // What is for us passes in any case.
        let to_us = gateway.decapsulate(&datagram(HOST_B, HOST_A).inside(B, A).build());
        assert!(matches!(to_us, Decapsulated::Deliver { .. }));
        !is_refused
    };
    assert!(allowed(Relay::Auto) && allowed(Relay::Direct));
    assert!(!allowed(Relay::Off));
    assert!(allowed(Relay::Pairs(vec![[name("c"), name("b")]])), "in both directions");
    assert!(!allowed(Relay::Pairs(vec![[name("b"), name("later")]])));
    assert!(!allowed(Relay::Pairs(Vec::new())));
}

#[test]
fn the_cases_reach_every_drop_reason_of_the_tunnel() {
    let reached: BTreeSet<_> =
        cases().iter().map(|case| case.reason).chain(BY_PROBES).chain([BY_OPTION, OVER_IPV6]).collect();
    let expected: BTreeSet<_> = DropReason::ALL.into_iter().filter(|r| !BY_THE_SYSTEM.contains(r)).collect();
    assert_eq!(reached, expected);
}

#[test]
fn a_dropped_gso_packet_counts_each_of_its_segments() {
    let gateway = Gateway::default();
    let bytes = datagram(HOST_A, STRANGER).len(3000).build();
    let inner =
        adit_tunnel::Inner { bytes: &bytes, largest_datagram: 1500, segments: 3, origin: Origin::Unknown };
    let verdict = gateway.tunnel.encapsulate(&inner, gateway.now, &gateway.counters);
    assert!(matches!(verdict, Encapsulated::Reply { .. }), "{verdict:?}");
    assert_eq!(gateway.drops(), [(DropReason::InnerDestinationUnknown, 3)]);
}
