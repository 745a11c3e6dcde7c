use std::net::Ipv6Addr;

use adit_wire::icmpv4::EchoKind;
use adit_wire::icmpv6::{self, Icmpv6Error, Icmpv6Message, MAX_ERROR_LEN, build_echo, build_error};
use adit_wire::ipv6::{Ipv6Packet, Ipv6Repr};
use adit_wire::{Protocol, Validation, checksum};
use etherparse::{Icmpv6Header, Icmpv6Slice, Icmpv6Type, TcpHeader};
use proptest::prelude::*;

const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const TOO_BIG: Icmpv6Error = Icmpv6Error::TooBig { mtu: 1280 };
const NO_ROUTE: Icmpv6Error = Icmpv6Error::DestinationUnreachable { code: icmpv6::unreachable::NO_ROUTE };

fn packet(source: Ipv6Addr, destination: Ipv6Addr, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv6Repr {
        source,
        destination,
        next_header: Protocol(next_header),
        hop_limit: 64,
        traffic_class: 0,
        flow_label: 0,
        payload_len: payload.len() as u16,
    };
    [&repr.emit()[..], payload].concat()
}

fn may_answer(bytes: &[u8], error: Icmpv6Error) -> bool {
    icmpv6::may_answer(&Ipv6Packet::parse(bytes, Validation::Datapath).expect("a packet"), error)
}

#[test]
fn rfc4443_s2_4_e_errors_are_not_sent_about_what_must_not_be_answered() {
    let icmp = |kind: u8| packet(A, B, 58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    for (bytes, unreachable, too_big) in [
        (packet(A, B, 17, &[0; 8]), true, true),
        (icmp(128), true, true),
        (icmp(129), true, true),
        (icmp(135), true, true),
        (icmp(1), false, false),
        (icmp(4), false, false),
        (icmp(100), false, false),
        (icmp(127), false, false),
        (icmp(137), false, false),
        (packet(A, B, 58, &[]), false, false),
        (packet(A, GROUP, 17, &[0; 8]), false, true),
        (packet(GROUP, B, 17, &[0; 8]), false, false),
        (packet(Ipv6Addr::UNSPECIFIED, B, 17, &[0; 8]), false, false),
        (packet(Ipv6Addr::LOCALHOST, B, 17, &[0; 8]), false, false),
        // An ICMP error behind a destination options header, and in a later fragment.
        (packet(A, B, 60, &[58, 0, 1, 4, 0, 0, 0, 0, 1, 0, 0, 0]), false, false),
        (packet(A, B, 44, &[58, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0]), true, true),
    ] {
        assert_eq!(may_answer(&bytes, NO_ROUTE), unreachable, "{bytes:02x?}");
        assert_eq!(may_answer(&bytes, TOO_BIG), too_big, "{bytes:02x?}");
    }
    let group = packet(A, GROUP, 17, &[0; 8]);
    let problem = |code| Icmpv6Error::ParameterProblem { code, pointer: 40 };
    assert!(may_answer(&group, problem(icmpv6::parameter::OPTION)));
    assert!(!may_answer(&group, problem(icmpv6::parameter::HEADER_FIELD)));
}

#[test]
fn rfc4443_s2_4_c_an_error_quotes_what_fits_into_the_minimum_mtu() {
    for (payload, quoted) in [(0, 40), (1192, 1232), (1193, 1232), (9000, 1232)] {
        let offending = packet(A, B, 17, &vec![7; payload]);
        let mut out = [0; MAX_ERROR_LEN];
        let len = build_error(&mut out, B, A, TOO_BIG, &offending);
        let error = Ipv6Packet::parse(&out[..len], Validation::Strict).expect("a valid packet");
        assert_eq!(error.payload().len(), 8 + quoted, "{payload}");
        let message = Icmpv6Message::parse(error.payload()).expect("a message");
        assert!(message.checksum_ok(B, A) && !message.checksum_ok(A, A));
        assert_eq!(message.quote().expect("a quote").as_bytes(), &offending[..quoted]);
    }
}

#[test]
fn rfc4884_s4_extensions_are_no_part_of_the_quote() {
    let offending = packet(A, B, 17, &[7; 88]);
    let mut out = [0; MAX_ERROR_LEN];
    let len = build_error(&mut out, B, A, NO_ROUTE, &offending);
    let mut message = out[40..len].to_vec();
    message.extend_from_slice(&[0x20, 0, 0, 0]);
    message[4] = 16;
    let quote = Icmpv6Message::parse(&message).and_then(|message| message.quote()).expect("a quote");
    assert_eq!(quote.as_bytes(), offending);
    message[4] = 6;
    let quote = Icmpv6Message::parse(&message).and_then(|message| message.quote()).expect("a quote");
    assert_eq!(quote.as_bytes(), &offending[..48]);
    // In a Packet Too Big these bytes are the MTU.
    message[0] = icmpv6::types::PACKET_TOO_BIG;
    let view = Icmpv6Message::parse(&message).expect("a message");
    assert_eq!(view.error(), Some(Icmpv6Error::TooBig { mtu: 6 << 24 }));
    assert_eq!(view.quote().expect("a quote").as_bytes(), offending);
}

#[test]
fn a_message_that_is_cut_short_or_no_error_quotes_nothing() {
    assert!(Icmpv6Message::parse(&[1, 0, 0, 0, 0, 0, 0]).is_none());
    let echo = [128, 0, 0, 0, 0x12, 0x34, 0, 7];
    let message = Icmpv6Message::parse(&echo).expect("a message");
    assert_eq!((message.echo(), message.error()), (Some((0x1234, 7)), None));
    assert!(message.quote().is_none());
    let unreachable = [1, 0, 0, 0, 0, 0, 0, 0, 0x45];
    assert!(Icmpv6Message::parse(&unreachable).expect("a message").quote().is_none());
    assert_eq!(build_echo(&mut [0; 8], (A, B), 1, 2, b"x", EchoKind::Request), None);
}

fn any_error() -> impl Strategy<Value = Icmpv6Error> {
    prop_oneof![
        (0_u8..=6).prop_map(|code| Icmpv6Error::DestinationUnreachable { code }),
        any::<u32>().prop_map(|mtu| Icmpv6Error::TooBig { mtu }),
        (0_u8..=1).prop_map(|code| Icmpv6Error::TimeExceeded { code }),
        (0_u8..=2, any::<u32>()).prop_map(|(code, pointer)| Icmpv6Error::ParameterProblem { code, pointer }),
    ]
}

proptest! {
    #[test]
    fn rfc4443_s3_an_error_is_what_etherparse_reads(
        error in any_error(), source in any::<[u8; 16]>(), payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let source = Ipv6Addr::from(source);
        let offending = packet(A, B, 17, &payload);
        let mut out = [0; MAX_ERROR_LEN];
        let len = build_error(&mut out, source, A, error, &offending);
        let bytes = &out[40..len];
        let theirs = Icmpv6Slice::from_slice(bytes).expect("a valid message");
        prop_assert!(theirs.is_checksum_valid(source.octets(), A.octets()));
        prop_assert_eq!((theirs.type_u8(), theirs.code_u8()), error.type_and_code());
        let expected = match theirs.icmp_type() {
            Icmpv6Type::DestinationUnreachable(code) => {
                Icmpv6Error::DestinationUnreachable { code: code.code_u8() }
            }
            Icmpv6Type::PacketTooBig { mtu } => Icmpv6Error::TooBig { mtu },
            Icmpv6Type::TimeExceeded(code) => Icmpv6Error::TimeExceeded { code: code.code_u8() },
            Icmpv6Type::ParameterProblem(problem) => Icmpv6Error::ParameterProblem {
                code: problem.code.code_u8(), pointer: problem.pointer,
            },
            other => return Err(TestCaseError::fail(format!("{other:?}"))),
        };
        prop_assert_eq!(error, expected);
        prop_assert_eq!(Icmpv6Message::parse(bytes).expect("a message").error(), Some(error));
        prop_assert_eq!(theirs.payload(), &offending[..]);
    }

    #[test]
    fn rfc4443_s4_an_echo_is_what_etherparse_writes(
        id in any::<u16>(), seq in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..300),
        is_request in any::<bool>(),
    ) {
        let mut out = [0; 400];
        let echo = etherparse::IcmpEchoHeader { id, seq };
        let (kind, theirs) = if is_request {
            (EchoKind::Request, Icmpv6Type::EchoRequest(echo))
        } else {
            (EchoKind::Reply, Icmpv6Type::EchoReply(echo))
        };
        let len = build_echo(&mut out, (A, B), id, seq, &payload, kind).expect("there is room");
        let header = Icmpv6Header::with_checksum(theirs, A.octets(), B.octets(), &payload).expect("short");
        prop_assert_eq!(&out[..len], &[&header.to_bytes()[..], &payload].concat()[..]);
        let message = Icmpv6Message::parse(&out[..len]).expect("a message");
        prop_assert_eq!(message.echo(), Some((id, seq)));
        prop_assert!(message.checksum_ok(A, B));
    }

    #[test]
    fn rfc8200_s8_1_the_pseudo_header_is_that_of_etherparse(
        source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), payload in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut header = TcpHeader::new(1, 2, 3, 4);
        let expected = header.calc_checksum_ipv6_raw(source, destination, &payload).expect("short");
        header.checksum = 0;
        let segment = [&header.to_bytes()[..], &payload].concat();
        let sum = checksum::pseudo_header_v6(source.into(), destination.into(), Protocol::TCP, segment.len() as u32);
        prop_assert_eq!(sum.add_bytes(&segment).checksum(), expected);
    }
}
