//! One test for each row of the RFCs, named by RFC and section. The timers of RFC 1191 are tested
//! in `path_mtu.rs`, and the identifications of RFC 6864 in `soft_state.rs`.

mod common;

use std::time::Duration;

use adit_tunnel::{
    Decapsulated, DropReason, Encapsulated, Inner, Instant, LearnedBy, Origin, Outer, PATH_MTU_LIFETIME,
    PathMtu, Reachability, Tunnel, UnderlayIcmp, UnreachableError,
};
use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::{Ecn, EcnAnomaly, EcnMode};
use adit_wire::encapsulation::TtlPolicy;
use adit_wire::icmpv4::{self, Icmpv4Error, Icmpv4Message};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation, fragment};
use common::*;

fn strict(bytes: &[u8]) -> Ipv4Packet<'_> {
    Ipv4Packet::parse(bytes, Validation::Strict).expect("a strictly valid datagram")
}

/// The error that the original sender of `inner` gets when the underlay reports `error` about it;
/// `None`: none.
fn relayed(gateway: &Gateway, error: Icmpv4Error, inner: Datagram) -> Option<Icmpv4Error> {
    let (sender, bytes) = (inner.repr.source, inner.build());
    let message = icmp(error, &gateway.outer(&bytes), 576);
    match gateway.icmp(&message) {
        UnderlayIcmp::Relay { peer, reply, offending } => {
            assert_eq!((peer, of_v4(&reply).0), (PEER_B, sender));
            let quoted = &message[offending];
            assert!(
                !quoted.is_empty() && bytes.starts_with(quoted),
                "the quoted bytes must begin the inner datagram"
            );
            Some(of_v4(&reply).1)
        }
        UnderlayIcmp::Ignored(DropReason::IcmpNotRelayed) => None,
        other => panic!("{error:?}: {other:?}"),
    }
}

fn heard(error: Icmpv4Error) -> Option<Icmpv4Error> {
    relayed(&Gateway::default(), error, a_to_b().df(true))
}

fn with_policy(change: impl FnOnce(&mut adit_wire::encapsulation::OuterPolicy)) -> Gateway {
    let mut config = config();
    change(&mut config.outer);
    Gateway::new(config)
}

#[test]
fn rfc2003_s3_1_the_outer_header_has_the_required_fields() {
    let inner = a_to_b().tos(0b1011_1001).build();
    let bytes = Gateway::default().outer(&inner);
    let outer = strict(&bytes);
    assert_eq!((outer.source(), outer.destination(), outer.protocol()), (A, B, Protocol::IPIP));
    assert_eq!((outer.tos(), outer.ttl(), outer.header_len()), (0b1011_1001, 64, 20));
    assert_eq!(outer.total_len(), inner.len() + 20);
    assert_eq!(outer.payload(), inner, "the inner datagram is unchanged");
}

#[test]
fn rfc2003_s3_1_inner_df_sets_outer_df() {
    let gateway = with_policy(|outer| outer.df = false);
    assert!(strict(&gateway.outer(&a_to_b().df(true).build())).dont_fragment());
    assert!(!strict(&gateway.outer(&a_to_b().df(false).build())).dont_fragment());
}

#[test]
fn rfc2003_s5_1_outer_df_is_set_by_default() {
    assert!(strict(&Gateway::default().outer(&a_to_b().df(false).build())).dont_fragment());
}

#[test]
fn rfc2003_s3_1_inner_options_are_not_copied() {
    // Four no-operation options make a header of 24 bytes.
    let plain = a_to_b().build();
    let mut with_options = plain[..20].to_vec();
    with_options.extend([1; 4]);
    with_options.extend(&plain[20..]);
    let total = (with_options.len() as u16).to_be_bytes();
    let with_options = rewrite(rewrite(with_options, 0, &[0x46]), 2, &total);
    let outer = Gateway::default().outer(&with_options);
    assert_eq!(strict(&outer).header_len(), 20);
    assert_eq!(strict(&outer).payload(), with_options);
}

#[test]
fn rfc2003_s3_1_outer_ttl_suffices_to_reach_the_decapsulator() {
    let gateway = with_policy(|outer| outer.ttl = TtlPolicy::Fixed(200));
    assert_eq!(strict(&gateway.outer(&a_to_b().ttl(1).build())).ttl(), 200);
    let gateway = with_policy(|outer| outer.ttl = TtlPolicy::Inherit);
    assert_eq!(strict(&gateway.outer(&a_to_b().ttl(9).build())).ttl(), 9);
}

#[test]
fn rfc2003_s3_1_inner_ttl_is_changed_only_by_the_hosts_forwarding() {
    let inner = datagram(HOST_B, HOST_A).ttl(1).build();
    let outer = wrap(B, A, inner.clone()).build();
    let Decapsulated::Deliver { inner: range, set_ecn: None, .. } = Gateway::default().decapsulate(&outer)
    else {
        panic!("not delivered");
    };
    assert_eq!(outer[range], inner, "the decapsulator does not decrement TTL 1");
    let one = a_to_b().ttl(1).build();
    assert_eq!(Gateway::default().outer(&one)[20..], one, "the encapsulator does not either");
}

#[test]
fn rfc2003_s3_1_ttl_zero_is_answered_with_time_exceeded_and_not_encapsulated() {
    let verdict = Gateway::default().encapsulate_from(&a_to_b().ttl(0).build(), Origin::Forwarded);
    let Encapsulated::Reply { reply, reason: DropReason::InnerTtlZero } = verdict else {
        panic!("{verdict:?}");
    };
    assert_eq!(of_v4(&reply), (HOST_A, Icmpv4Error::TimeExceeded { code: 0 }));
}

#[test]
fn rfc2003_s3_1_ttl_zero_is_discarded_after_decapsulation() {
    let outer = datagram(HOST_B, HOST_A).ttl(0).inside(B, A).build();
    assert_eq!(Gateway::default().decapsulate(&outer), Decapsulated::Drop(DropReason::DecapInnerTtlZero));
}

#[test]
fn rfc2003_s3_2_own_source_is_refused_only_in_forwarded_datagrams() {
    let gateway = Gateway::default();
    let bytes = datagram(GATEWAY_A, HOST_B).build();
    let refused = Encapsulated::Drop(DropReason::InnerSourceIsOwnForwarded);
    assert_eq!(gateway.encapsulate_from(&bytes, Origin::Forwarded), refused);
    assert!(matches!(gateway.encapsulate_from(&bytes, Origin::Local), Encapsulated::Forward { .. }));
    assert!(matches!(gateway.encapsulate_from(&bytes, Origin::Unknown), Encapsulated::Forward { .. }));
}

#[test]
fn rfc2003_s3_2_the_decapsulators_address_is_refused_as_source() {
    let bytes = datagram(B, HOST_B).build();
    let refused = Encapsulated::Drop(DropReason::InnerSourceIsTunnelExit);
    assert_eq!(Gateway::default().encapsulate(&bytes), refused);
}

#[test]
fn rfc2003_s4_1_net_unreachable_is_relayed_as_code_1_to_our_own_network() {
    assert_eq!(heard(unreachable(0)), Some(unreachable(1)));
}

#[test]
fn rfc2003_s4_1_net_unreachable_is_relayed_as_code_0_to_others() {
    let relay = datagram(HOST_C, HOST_B);
    assert_eq!(relayed(&Gateway::default(), unreachable(0), relay), Some(unreachable(0)));
}

#[test]
fn rfc2003_s4_1_host_unreachable_is_relayed() {
    for sender in [HOST_A, HOST_C] {
        let inner = datagram(sender, HOST_B);
        assert_eq!(relayed(&Gateway::default(), unreachable(1), inner), Some(unreachable(1)));
    }
}

#[test]
fn rfc2003_s4_1_protocol_unreachable_becomes_code_0_or_1() {
    assert_eq!(heard(unreachable(2)), Some(unreachable(1)));
    let relay = datagram(HOST_C, HOST_B);
    assert_eq!(relayed(&Gateway::default(), unreachable(2), relay), Some(unreachable(0)));
}

#[test]
fn rfc2003_s4_1_port_unreachable_is_not_relayed() {
    assert_eq!(heard(unreachable(3)), None);
}

#[test]
fn rfc2003_s4_1_datagram_too_big_is_relayed_less_the_tunnel_header() {
    let gateway = Gateway::default();
    let big = a_to_b().len(1480).df(true);
    let told = relayed(&gateway, Icmpv4Error::TooBig { mtu: 1400 }, big);
    assert_eq!(told, Some(Icmpv4Error::TooBig { mtu: 1380 }));
    let expires = Some(gateway.now.saturating_add(PATH_MTU_LIFETIME));
    assert_eq!(
        gateway.tunnel.path_mtu(PEER_B),
        PathMtu { mtu: 1400, learned: Some(LearnedBy::Router), expires }
    );
    assert!(gateway.tunnel.path_mtu(PEER_C).learned.is_none(), "the path of another peer is unchanged");
}

#[test]
fn rfc2003_s4_1_source_route_failed_is_not_relayed() {
    assert_eq!(heard(unreachable(5)), None);
}

#[test]
fn rfc1812_s5_2_7_1_newer_codes_are_handled_like_the_general_ones() {
    for code in [6, 9, 11] {
        let relay = datagram(HOST_C, HOST_B);
        assert_eq!(relayed(&Gateway::default(), unreachable(code), relay), Some(unreachable(0)), "{code}");
    }
    for code in [7, 8, 10, 12, 13, 14, 15] {
        let relay = datagram(HOST_C, HOST_B);
        assert_eq!(relayed(&Gateway::default(), unreachable(code), relay), Some(unreachable(1)), "{code}");
    }
    assert_eq!(heard(unreachable(16)), None);
}

#[test]
fn rfc2003_s4_2_and_rfc6633_source_quench_is_neither_relayed_nor_acted_upon() {
    let gateway = Gateway::default();
    assert_eq!(relayed(&gateway, Icmpv4Error::SourceQuench, a_to_b()), None);
    assert_eq!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
    assert_eq!(gateway.tunnel.next_deadline(), None);
}

#[test]
fn rfc2003_s4_3_redirect_is_not_relayed() {
    assert_eq!(heard(Icmpv4Error::Redirect { code: 1, gateway: ROUTER }), None);
}

#[test]
fn rfc2003_s4_4_time_exceeded_is_reported_as_host_unreachable() {
    let gateway = Gateway::default();
    let relay = datagram(HOST_C, HOST_B);
    assert_eq!(relayed(&gateway, Icmpv4Error::TimeExceeded { code: 0 }, relay), Some(unreachable(1)));
    let expected = Reachability::Unreachable {
        error: UnreachableError::time_exceeded(0),
        router: ROUTER.into(),
        since: gateway.now,
    };
    assert_eq!(gateway.tunnel.reachability(PEER_B), expected);
}

/// A deviation from RFC 2003 section 4.4: the sender chose the TTL, and gets what it would get
/// without a tunnel. The peer is as reachable as before.
#[test]
fn an_inherited_ttl_that_runs_out_is_the_senders_affair() {
    let gateway = with_policy(|outer| outer.ttl = TtlPolicy::Inherit);
    let expired = Icmpv4Error::TimeExceeded { code: 0 };
    assert_eq!(relayed(&gateway, expired, a_to_b().ttl(3)), Some(expired));
    let short = icmp(expired, &gateway.outer(&a_to_b().build()), 28);
    assert_eq!(gateway.icmp(&short), UnderlayIcmp::Ignored(DropReason::IcmpNotRelayed));
    assert_eq!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
    assert!(!gateway.tunnel.has_pending_error(PEER_B));
    let in_reassembly = Icmpv4Error::TimeExceeded { code: 1 };
    assert_eq!(relayed(&gateway, in_reassembly, a_to_b()), Some(unreachable(1)), "no TTL is to blame");
}

#[test]
fn rfc2003_s4_5_parameter_problem_about_what_the_encapsulator_wrote_is_not_relayed() {
    for pointer in [0, 2, 4, 6, 8, 9, 10, 12, 16, 19] {
        assert_eq!(heard(Icmpv4Error::ParameterProblem { code: 0, pointer }), None, "{pointer}");
    }
    let gateway = with_policy(|outer| outer.dscp = DscpPolicy::Fixed(Dscp::DEFAULT));
    assert_eq!(relayed(&gateway, Icmpv4Error::ParameterProblem { code: 0, pointer: 1 }, a_to_b()), None);
}

#[test]
fn rfc2003_s4_5_parameter_problem_about_a_copied_field_is_relayed() {
    let problem = |pointer| Icmpv4Error::ParameterProblem { code: 0, pointer };
    assert_eq!(heard(problem(1)), Some(problem(1)), "TOS is copied");
    assert_eq!(heard(problem(29)), Some(problem(9)), "the sender itself wrote the inner header");
    let gateway = with_policy(|outer| outer.ttl = TtlPolicy::Inherit);
    assert_eq!(relayed(&gateway, problem(8), a_to_b()), Some(problem(8)), "an inherited TTL is copied");
}

#[test]
fn rfc2003_s4_an_error_with_a_short_quote_is_reported_for_the_next_datagram() {
    let mut gateway = Gateway::default();
    let inner = a_to_b().build();
    let short = icmp(unreachable(0), &gateway.outer(&inner), 28);
    assert_eq!(gateway.icmp(&short), UnderlayIcmp::StateChanged { peer: PEER_B });
    // A datagram that may not be answered passes, and the error waits for the next one.
    let unanswerable = a_to_b().protocol(Protocol::ICMP).payload(vec![3, 1, 0, 0, 0, 0, 0, 0]).build();
    assert!(matches!(gateway.encapsulate(&unanswerable), Encapsulated::Forward { .. }));
    assert!(matches!(gateway.encapsulate(&datagram(HOST_A, HOST_C).build()), Encapsulated::Forward { .. }));
    let Encapsulated::Reply { reply, reason: DropReason::PeerUnreachable } = gateway.encapsulate(&inner)
    else {
        panic!("not answered");
    };
    assert_eq!(of_v4(&reply), (HOST_A, unreachable(1)));
    gateway.now = gateway.now.saturating_add(adit_tunnel::UNREACHABLE_WINDOW);
    assert!(
        matches!(gateway.encapsulate(&inner), Encapsulated::Forward { .. }),
        "the datagram after it is sent again"
    );
}

#[test]
fn rfc2003_s5_an_unreachable_decapsulator_is_reported_for_a_second_or_until_it_sends() {
    for has_sent in [false, true] {
        let mut gateway = Gateway::default();
        let inner = a_to_b().build();
        let report = icmp(unreachable(1), &gateway.outer(&inner), 576);
        assert!(matches!(gateway.icmp(&report), UnderlayIcmp::Relay { .. }));
        for _ in 0..3 {
            let verdict = gateway.encapsulate(&inner);
            let Encapsulated::Reply { reply, reason: DropReason::PeerUnreachable } = verdict else {
                panic!("{verdict:?}");
            };
            assert_eq!(of_v4(&reply).1, unreachable(1));
        }
        if has_sent {
            gateway.decapsulate(&datagram(HOST_B, HOST_A).inside(B, A).build());
        } else {
            gateway.now = gateway.now.saturating_add(adit_tunnel::UNREACHABLE_WINDOW);
        }
        assert!(matches!(gateway.encapsulate(&inner), Encapsulated::Forward { .. }));
        assert!(!gateway.tunnel.has_pending_error(PEER_B));
    }
}

#[test]
fn rfc2003_s4_a_pending_error_expires() {
    let mut gateway = Gateway::default();
    let inner = a_to_b().build();
    gateway.icmp(&icmp(unreachable(0), &gateway.outer(&inner), 28));
    gateway.now = gateway.now.saturating_add(adit_tunnel::PENDING_LIFETIME);
    assert!(matches!(gateway.encapsulate(&inner), Encapsulated::Forward { .. }));
}

#[test]
fn rfc2003_s4_a_too_big_with_a_short_quote_takes_effect_by_the_path_mtu() {
    let gateway = Gateway::default();
    let inner = a_to_b().len(1480).df(true).build();
    let short = icmp(Icmpv4Error::TooBig { mtu: 1300 }, &gateway.outer(&inner), 28);
    assert_eq!(gateway.icmp(&short), UnderlayIcmp::StateChanged { peer: PEER_B });
    let Encapsulated::Reply { reply, reason: DropReason::InnerTooBig } = gateway.encapsulate(&inner) else {
        panic!("not answered");
    };
    assert_eq!(of_v4(&reply).1, Icmpv4Error::TooBig { mtu: 1280 });
}

#[test]
fn rfc2003_s5_a_datagram_from_the_peer_clears_its_unreachability() {
    let gateway = Gateway::default();
    relayed(&gateway, unreachable(1), a_to_b());
    assert_ne!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
    gateway.decapsulate(&datagram(HOST_B, HOST_A).inside(B, A).build());
    assert_eq!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
}

#[test]
fn rfc2003_s5_1_a_too_big_datagram_is_answered_at_once() {
    let gateway = Gateway::default();
    assert!(matches!(
        gateway.encapsulate(&a_to_b().len(1480).df(true).build()),
        Encapsulated::Forward { .. }
    ));
    let offending = a_to_b().len(1481).df(true).build();
    let Encapsulated::Reply { reply, .. } = gateway.encapsulate(&offending) else { panic!("not answered") };
    assert_eq!(of_v4(&reply).1, Icmpv4Error::TooBig { mtu: 1480 });
    let mut out = [0; adit_tunnel::MAX_REPLY_LEN];
    let len = reply.write(&offending, &mut out);
    let answer = strict(&out[..len]);
    assert_eq!((answer.destination(), len), (HOST_A, 576));
    let message = Icmpv4Message::parse(answer.payload()).expect("a valid ICMP message");
    assert_eq!(message.error(), Some(of_v4(&reply).1));
    assert!(offending.starts_with(message.payload()));
}

#[test]
fn rfc2003_s5_2_congestion_inside_the_tunnel_is_counted() {
    let gateway = Gateway::default();
    gateway.decapsulate(&datagram(HOST_B, HOST_A).tos(2).inside(B, A).tos(3).build());
    assert_eq!(gateway.totals().peers[0].congestion_experienced, 1);
}

#[test]
fn rfc2003_s6_1_only_configured_peers_are_decapsulated() {
    let outer = datagram(HOST_B, HOST_A).inside(STRANGER, A).build();
    assert_eq!(Gateway::default().decapsulate(&outer), Decapsulated::Drop(DropReason::OuterSourceUnknown));
}

#[test]
fn rfc2003_s6_2_only_datagrams_that_may_come_from_the_peer_are_delivered() {
    let gateway = Gateway::default();
    let forged = datagram(HOST_C, HOST_A).inside(B, A).build();
    assert_eq!(gateway.decapsulate(&forged), Decapsulated::Drop(DropReason::InnerSourceNotFromPeer));
    let relay = datagram(HOST_B, HOST_C).inside(B, A).build();
    assert!(matches!(gateway.decapsulate(&relay), Decapsulated::Deliver { peer: PEER_B, .. }));
    let to_the_gateway = datagram(HOST_B, GATEWAY_A).inside(B, A).build();
    assert!(matches!(gateway.decapsulate(&to_the_gateway), Decapsulated::Deliver { .. }));
}

#[test]
fn rfc2827_s4_inner_sources_are_filtered() {
    let verdict = Gateway::default().encapsulate(&datagram(STRANGER, HOST_B).build());
    let Encapsulated::Reply { reply, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(of_v4(&reply).1, unreachable(13));
}

#[test]
fn rfc1812_s5_2_7_1_a_datagram_without_a_peer_is_answered_with_net_unreachable() {
    let verdict = Gateway::default().encapsulate(&datagram(HOST_A, STRANGER).build());
    let Encapsulated::Reply { reply, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(of_v4(&reply).1, unreachable(0));
}

#[test]
fn rfc6169_s2_2_a_nested_tunnel_to_ourselves_is_refused() {
    let nested = datagram(HOST_B, HOST_A).inside(HOST_B, A).inside(B, A).build();
    assert_eq!(Gateway::default().decapsulate(&nested), Decapsulated::Drop(DropReason::NestedToOurselves));
    let through = datagram(HOST_B, HOST_A).inside(HOST_B, HOST_A).inside(B, A).build();
    assert!(
        matches!(Gateway::default().decapsulate(&through), Decapsulated::Deliver { .. }),
        "a tunnel between hosts passes"
    );
}

#[test]
fn rfc1122_s3_2_2_no_error_is_sent_about_icmp_errors_multicast_or_later_fragments() {
    let gateway = Gateway::default();
    let never = [
        a_to_b().df(true).len(1481).protocol(Protocol::ICMP).payload(vec![3; 1461]),
        datagram(HOST_A, [224, 0, 0, 1].into()),
        datagram(HOST_A, [255, 255, 255, 255].into()),
        datagram([127, 0, 0, 1].into(), HOST_B),
        datagram([240, 0, 0, 1].into(), HOST_B),
    ];
    let later_fragment = rewrite(datagram(HOST_A, STRANGER).build(), 6, &[0, 3]);
    for bytes in never.map(Datagram::build).into_iter().chain([later_fragment]) {
        assert!(matches!(gateway.encapsulate(&bytes), Encapsulated::Drop(_)), "{bytes:?}");
    }
    assert_eq!((gateway.totals().icmp.sent, gateway.totals().icmp.suppressed), (0, 6));
}

#[test]
fn rfc1812_s4_3_2_8_icmp_errors_are_rate_limited() {
    let mut gateway = Gateway::default();
    let bytes = a_to_b().len(1481).df(true).build();
    let mut sent = |seconds: u64| {
        gateway.now = gateway.now.saturating_add(Duration::from_secs(seconds));
        (0..500).filter(|_| matches!(gateway.encapsulate(&bytes), Encapsulated::Reply { .. })).count() as u32
    };
    assert_eq!(sent(0), adit_tunnel::ICMP_BURST);
    assert_eq!(sent(0), 0);
    assert_eq!(sent(1), adit_tunnel::ICMP_BURST, "a second refills the bucket");
    let totals = gateway.totals();
    assert_eq!(totals.drops_of(DropReason::InnerTooBig), 1500, "each drop is counted, answered or not");
    assert_eq!((totals.icmp.sent, totals.icmp.suppressed), (100, 1400));
}

#[test]
fn rfc5927_s4_an_error_is_accepted_only_if_this_tunnel_could_have_sent_its_quote() {
    let gateway = Gateway::default();
    let ours = a_to_b().df(true).len(1400).inside(A, B).df(true).build();
    let lies = [
        icmp(Icmpv4Error::TooBig { mtu: 1420 }, &ours, 576),
        icmp(Icmpv4Error::TooBig { mtu: 1000 }, &rewrite(ours.clone(), 6, &[0, 0]), 576),
        icmp(unreachable(1), &rewrite(ours.clone(), 20, &[0x65]), 28),
        icmp(unreachable(1), &a_to_b().inside(A, C).build(), 576),
    ];
    for lie in lies {
        assert_eq!(gateway.icmp(&lie), UnderlayIcmp::Ignored(DropReason::IcmpUnbelievable));
    }
    assert_eq!(gateway.tunnel.reachability(PEER_B), Reachability::Assumed);
    assert!(gateway.tunnel.path_mtu(PEER_B).learned.is_none());
}

#[test]
fn rfc792_icmp_that_is_no_error_about_the_tunnel_is_not_ours() {
    let gateway = Gateway::default();
    let mut echo = [0; 64];
    let len = icmpv4::build_echo(&mut echo, 1, 1, &[0; 56], icmpv4::EchoKind::Request).expect("room");
    let echo = datagram(ROUTER, A).protocol(Protocol::ICMP).payload(echo[..len].to_vec()).build();
    assert_eq!(gateway.icmp(&echo), UnderlayIcmp::NotOurs);
    let about_udp = icmp(unreachable(3), &datagram(A, STRANGER).build(), 100);
    assert_eq!(gateway.icmp(&about_udp), UnderlayIcmp::NotOurs);
    assert_eq!((gateway.totals().icmp.not_ours, gateway.totals().dropped()), (2, 0));
}

#[test]
fn rfc6040_s4_1_and_4_3_the_ingress_modes_set_outer_ecn() {
    for (mode, expected) in [(EcnMode::Normal, [0, 1, 2, 3]), (EcnMode::Compatibility, [0; 4])] {
        let gateway = with_policy(|outer| outer.ecn = mode);
        let outer = [0u8, 1, 2, 3].map(|ecn| strict(&gateway.outer(&a_to_b().tos(ecn).build())).tos());
        assert_eq!(outer, expected, "{mode:?}");
    }
}

#[test]
fn rfc6040_s4_2_the_egress_follows_the_table() {
    const N: Option<Ecn> = Some(Ecn::NotEct);
    const E0: Option<Ecn> = Some(Ecn::Ect0);
    const E1: Option<Ecn> = Some(Ecn::Ect1);
    const CE: Option<Ecn> = Some(Ecn::Ce);
    let order = [Ecn::NotEct, Ecn::Ect0, Ecn::Ect1, Ecn::Ce];
    let table = [
        [(N, 0), (N, 1), (N, 1), (None, 1)],
        [(E0, 0), (E0, 0), (E1, 0), (CE, 0)],
        [(E1, 0), (E1, 1), (E1, 0), (CE, 0)],
        [(CE, 0), (CE, 0), (CE, 1), (CE, 0)],
    ];
    for (inner, row) in order.into_iter().zip(table) {
        for (outer, (expected, counted)) in order.into_iter().zip(row) {
            let gateway = Gateway::default();
            let bytes = datagram(HOST_B, HOST_A).tos(inner.bits()).inside(B, A).tos(outer.bits()).build();
            let found = match gateway.decapsulate(&bytes) {
                Decapsulated::Deliver { set_ecn, .. } => Some(set_ecn.unwrap_or(inner)),
                Decapsulated::Drop(reason) => {
                    assert_eq!(reason, DropReason::EcnViolation);
                    None
                }
                other => panic!("delivered or dropped, found {other:?}"),
            };
            assert_eq!(found, expected, "inner {inner:?}, outer {outer:?}");
            let anomalies = EcnAnomaly::ALL.map(|anomaly| gateway.totals().ecn_anomalies_of(anomaly));
            assert_eq!(anomalies.iter().sum::<u64>(), counted, "inner {inner:?}, outer {outer:?}");
        }
    }
}

#[test]
fn rfc2983_s3_dscp_is_inherited_or_fixed() {
    let dscp = |gateway: Gateway| strict(&gateway.outer(&a_to_b().tos(46 << 2).build())).dscp().value();
    assert_eq!(dscp(Gateway::default()), 46);
    let fixed = Dscp::new(10).expect("10 is a code point");
    assert_eq!(dscp(with_policy(|outer| outer.dscp = DscpPolicy::Fixed(fixed))), 10);
}

#[test]
fn rfc4459_s3_4_a_datagram_without_df_is_fragmented_before_encapsulation() {
    let gateway = Gateway::default();
    let bytes = a_to_b().len(4000).build();
    let verdict = gateway.encapsulate(&bytes);
    let Encapsulated::Fragment { peer: PEER_B, max_datagram: 1480, outer, .. } = verdict else {
        panic!("{verdict:?}");
    };
    let fragments: Vec<_> = fragment::fragments(&strict(&bytes), 1480).expect("DF is clear").collect();
    assert_eq!(fragments.len(), 3);
    for piece in fragments {
        let header = outer.for_segment(piece.len() as u16, 0);
        let whole = [header.as_bytes(), piece.header(), &bytes[piece.payload()]].concat();
        assert!(whole.len() <= 1500);
        assert!(strict(&whole).dont_fragment(), "the outer datagram must not be fragmented");
    }
}

#[test]
fn rfc6864_s4_1_atomic_datagrams_have_identification_0_and_others_a_new_one() {
    let id = |gateway: &Gateway| strict(&gateway.outer(&a_to_b().build())).identification();
    let gateway = Gateway::default();
    assert_eq!([id(&gateway), id(&gateway)], [0, 0]);
    let gateway = with_policy(|outer| outer.df = false);
    assert_eq!([id(&gateway), id(&gateway)], [0, 1]);
    let bytes = a_to_b().len(2900).build();
    let inner = Inner { bytes: &bytes, largest_datagram: 1460, segments: 2, origin: Origin::Unknown };
    gateway.tunnel.encapsulate(&inner, gateway.now, &gateway.counters);
    assert_eq!(id(&gateway), 4, "a GSO packet takes one for each segment");
    assert_eq!(gateway.tunnel.identifications(PEER_B, 3), 5);
    assert_eq!(id(&gateway), 8);
}

#[test]
fn rfc1191_s6_3_the_path_mtu_expires_at_the_deadline() {
    let mut gateway = Gateway::default();
    let big = a_to_b().len(1480).df(true);
    relayed(&gateway, Icmpv4Error::TooBig { mtu: 1400 }, big.clone());
    let deadline = gateway.tunnel.next_deadline().expect("a path MTU was learned");
    assert_eq!(deadline.since(gateway.now), PATH_MTU_LIFETIME);
    gateway.now = Instant::from_millis(deadline.as_millis() - 1);
    gateway.tunnel.on_deadline(gateway.now);
    assert!(matches!(gateway.encapsulate(&big.clone().build()), Encapsulated::Reply { .. }));
    gateway.now = deadline;
    gateway.tunnel.on_deadline(gateway.now);
    assert!(matches!(gateway.encapsulate(&big.build()), Encapsulated::Forward { .. }));
    assert_eq!(gateway.tunnel.next_deadline(), None);
}

#[test]
fn rfc1191_s5_a_too_big_without_an_mtu_means_the_next_plateau() {
    let gateway = Gateway::default();
    let told = relayed(&gateway, Icmpv4Error::TooBig { mtu: 0 }, a_to_b().len(1480).df(true));
    assert_eq!(told, Some(Icmpv4Error::TooBig { mtu: 1472 }));
    assert_eq!(gateway.tunnel.path_mtu(PEER_B).mtu, 1492);
}

#[test]
fn rfc1191_s3_a_relayed_mtu_is_at_least_68_and_that_of_the_floor() {
    for (mtu_floor, expected) in [(0, 68), (88, 68), (552, 532), (1280, 1260)] {
        let gateway = Gateway::new(adit_tunnel::TunnelConfig { mtu_floor, ..config() });
        let told = relayed(&gateway, Icmpv4Error::TooBig { mtu: 1 }, a_to_b().len(1480).df(true));
        assert_eq!(told, Some(Icmpv4Error::TooBig { mtu: expected }));
    }
}

#[test]
fn rfc9293_s3_7_1_mss_is_clamped_to_the_path_in_both_directions() {
    let gateway = Gateway::default();
    relayed(&gateway, Icmpv4Error::TooBig { mtu: 1400 }, a_to_b().len(1480).df(true));
    let Encapsulated::Forward { max_mss, .. } = gateway.encapsulate(&syn(HOST_A, HOST_B).build()) else {
        panic!("not forwarded");
    };
    assert_eq!(max_mss, Some(1340));
    let reply = gateway.decapsulate(&syn(HOST_B, HOST_A).inside(B, A).build());
    assert!(matches!(reply, Decapsulated::Deliver { max_mss: Some(1340), .. }), "{reply:?}");
    let Encapsulated::Forward { max_mss, .. } = gateway.encapsulate(&a_to_b().build()) else {
        panic!("not forwarded");
    };
    assert_eq!(max_mss, None, "UDP has no MSS");
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let refused = |change: fn(&mut adit_tunnel::TunnelConfig)| {
        let mut config = config();
        change(&mut config);
        Tunnel::new(config).expect_err("the configuration is invalid").to_string()
    };
    assert!(refused(|c| c.underlay = B.into()).contains("both peer b and this site"));
    assert!(refused(|c| c.underlay = HOST_B.into()).contains("192.168.199.0/24 of peer b contains"));
    assert!(refused(|c| c.underlay = [224, 0, 0, 1].into()).contains("unicast"));
    assert!(refused(|c| c.underlay = [240, 0, 0, 1].into()).contains("unicast"));
    assert!(refused(|c| c.outer.ttl = TtlPolicy::Fixed(0)).contains("TTL is 0"));
}

#[test]
fn a_changed_configuration_keeps_what_was_learned() {
    let gateway = Gateway::default();
    relayed(&gateway, Icmpv4Error::TooBig { mtu: 1400 }, a_to_b().len(1480).df(true));
    let mut changed = config();
    changed.peers =
        peer_set(A, "172.16.17.0/24", &[("c", C, "192.168.200.0/24"), ("b", B, "192.168.199.0/24")]);
    let next = Tunnel::new(changed).expect("the configuration is valid");
    next.inherit(&gateway.tunnel);
    assert_eq!(next.path_mtu(PEER_C).mtu, 1400, "peer b has a new number");
    assert!(next.path_mtu(PEER_B).learned.is_none());
}

#[test]
fn a_merged_packet_counts_each_of_its_datagrams() {
    let gateway = Gateway::default();
    let bytes = datagram(HOST_B, HOST_A).len(2800).inside(B, A).build();
    let outer = Outer { bytes: &[bytes, vec![0; 6]].concat(), segments: 2, policy_checked: false };
    let verdict = gateway.tunnel.decapsulate(&outer, gateway.now, &gateway.counters);
    assert!(
        matches!(verdict, Decapsulated::Deliver { inner, .. } if inner == (20..2820)),
        "Ethernet padding is not delivered"
    );
    let peer = gateway.totals().peers[0];
    assert_eq!((peer.rx_packets, peer.rx_bytes, peer.last_rx), (2, 2800, Some(gateway.now)));
}

#[test]
fn of_a_peer_that_is_left_to_the_stack_only_what_its_policies_let_pass_is_delivered() {
    let gateway = Gateway::default();
    gateway.tunnel.leave_to_stack(PEER_B, true);
    let bytes = datagram(HOST_B, HOST_A).inside(B, A).build();
    let run = |outer: &Outer<'_>| gateway.tunnel.decapsulate(outer, gateway.now, &gateway.counters);
    let seen = Outer::datagram(&bytes);
    assert_eq!(run(&seen), Decapsulated::LeftToStack);
    assert_eq!((gateway.totals().peers[0].rx_packets, gateway.totals().dropped()), (0, 0), "it comes again");
    assert!(matches!(run(&Outer { policy_checked: true, ..seen }), Decapsulated::Deliver { .. }));
    let of_another = datagram(HOST_C, HOST_A).inside(C, A).build();
    assert!(matches!(run(&Outer::datagram(&of_another)), Decapsulated::Deliver { .. }));
    gateway.tunnel.leave_to_stack(PEER_B, false);
    assert!(matches!(run(&seen), Decapsulated::Deliver { .. }));
}
