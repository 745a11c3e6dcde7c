use std::net::Ipv4Addr;

use adit_wire::icmpv4::{
    EchoKind, Icmpv4Error, Icmpv4Message, Icmpv4ParseError, MAX_ERROR_LEN, build_echo, build_error,
    may_answer, unreachable,
};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use etherparse::icmpv4::{DestUnreachableHeader, RedirectCode, TimeExceededCode};
use etherparse::{Icmpv4Slice, Icmpv4Type, Ipv4HeaderSlice};
use proptest::prelude::*;

use crate::packets::{A, B, GATEWAY_A, GATEWAY_B, any_datagram, datagram};

fn built(error: Icmpv4Error, offending: &[u8]) -> Vec<u8> {
    let mut out = [0xee; MAX_ERROR_LEN];
    let len = build_error(&mut out, GATEWAY_A, A, error, offending);
    out[..len].to_vec()
}

/// Returns an error message without an IPv4 header, such as `build_error` does not write.
fn message(message_type: u8, code: u8, rest: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&[message_type, code, 0, 0], &rest[..], payload].concat();
    let sum = adit_wire::checksum::checksum(&bytes);
    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn rfc792_etherparse_reads_every_error_that_is_built() {
    let offending = datagram(17, A, B, &[7; 30]);
    let host = DestUnreachableHeader::Host;
    let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1400 };
    let cases = [
        (Icmpv4Error::DestinationUnreachable { code: 1 }, Icmpv4Type::DestinationUnreachable(host)),
        (Icmpv4Error::TooBig { mtu: 1400 }, Icmpv4Type::DestinationUnreachable(needed)),
        (
            Icmpv4Error::TimeExceeded { code: 0 },
            Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
        ),
        (
            Icmpv4Error::Redirect { code: 1, gateway: GATEWAY_B },
            Icmpv4Type::Redirect(etherparse::icmpv4::RedirectHeader {
                code: RedirectCode::RedirectForHost,
                gateway_internet_address: GATEWAY_B.octets(),
            }),
        ),
        (
            Icmpv4Error::ParameterProblem { code: 0, pointer: 9 },
            Icmpv4Type::ParameterProblem(etherparse::icmpv4::ParameterProblemHeader::PointerIndicatesError(
                9,
            )),
        ),
        (Icmpv4Error::SourceQuench, Icmpv4Type::Unknown { type_u8: 4, code_u8: 0, bytes5to8: [0; 4] }),
    ];
    for (error, expected) in cases {
        let bytes = built(error, &offending);
        let theirs = Icmpv4Slice::from_slice(&bytes[20..]).expect("a valid message");
        assert_eq!(theirs.icmp_type(), expected);
        assert_eq!(theirs.payload(), offending);
    }
}

#[test]
fn rfc1812_s4_3_2_an_error_has_precedence_6_and_no_df() {
    let bytes = built(Icmpv4Error::TooBig { mtu: 1480 }, &datagram(17, A, B, &[7; 9]));
    let header = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header");
    assert_eq!((header.dcp().value(), header.ecn().value()), (48, 0));
    assert_eq!(header.ttl(), 64);
    assert!(!header.dont_fragment());
    assert_eq!(header.source_addr(), GATEWAY_A);
    assert_eq!(header.destination_addr(), A);
}

#[test]
fn rfc1812_s4_3_2_3_an_error_has_576_bytes_at_most_and_quotes_as_much_as_fits() {
    for (payload, quoted) in [(0, 20), (527, 547), (528, 548), (529, 548), (1480, 548)] {
        let offending = datagram(17, A, B, &vec![7; payload]);
        let bytes = built(Icmpv4Error::TooBig { mtu: 1480 }, &offending);
        assert_eq!(bytes.len(), 28 + quoted, "{payload}");
        assert_eq!(bytes[28..], offending[..quoted]);
    }
}

#[test]
fn rfc792_bytes_after_the_datagram_are_not_quoted() {
    let offending = datagram(17, A, B, &[7; 9]);
    let padded = [&offending[..], &[0xee; 17]].concat();
    assert_eq!(built(Icmpv4Error::SourceQuench, &padded)[28..], offending);
}

#[test]
fn rfc1191_s4_the_mtu_of_too_big_is_read_back_and_zero_is_an_old_router() {
    let offending = datagram(4, GATEWAY_A, GATEWAY_B, &datagram(17, A, B, &[7; 8]));
    for mtu in [0, 68, 1400, u16::MAX] {
        let bytes = built(Icmpv4Error::TooBig { mtu }, &offending);
        let read = Icmpv4Message::parse(&bytes[20..]).expect("valid");
        assert_eq!(read.error(), Some(Icmpv4Error::TooBig { mtu }));
        assert_eq!((read.message_type(), read.code()), (3, unreachable::FRAGMENTATION_NEEDED));
    }
}

#[test]
fn rfc2003_s4_the_quote_of_a_tunnel_datagram_holds_the_inner_one() {
    let inner = datagram(17, A, B, &[7; 8]);
    let outer = datagram(4, GATEWAY_A, GATEWAY_B, &inner);
    let bytes = built(Icmpv4Error::TimeExceeded { code: 0 }, &outer);
    let quote = Icmpv4Message::parse(&bytes[20..]).expect("valid").quote().expect("a quote");
    assert_eq!(quote.packet().protocol(), Protocol::IPIP);
    assert_eq!(quote.packet().destination(), GATEWAY_B);
    assert_eq!(quote.payload(), inner);
    assert_eq!(quote.datagram(), outer);
}

#[test]
fn rfc792_a_quote_of_eight_bytes_is_shown_as_far_as_it_goes() {
    let outer = datagram(4, GATEWAY_A, GATEWAY_B, &datagram(17, A, B, &[7; 8]));
    let bytes = message(11, 0, [0; 4], &outer[..28]);
    let quote = Icmpv4Message::parse(&bytes).expect("valid").quote().expect("a quote");
    assert_eq!(quote.payload(), &outer[20..28]);
    assert_eq!(quote.packet().total_len(), outer.len());
    // The quote is shorter than an IPv4 header.
    let bytes = message(11, 0, [0; 4], &outer[..19]);
    assert!(Icmpv4Message::parse(&bytes).expect("valid").quote().is_none());
}

#[test]
fn rfc4884_s4_extensions_after_the_length_are_not_part_of_the_quote() {
    // The total length exceeds the quote, so only the length attribute separates quote and
    // extensions.
    let offending = datagram(17, A, B, &[7; 1000]);
    let extension = [0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 0, 0, 0x31, 1];
    let payload = [&offending[..128], &extension].concat();
    for message_type in [3, 11, 12] {
        let quote_len = |length: u8| {
            let bytes = message(message_type, 0, [0, length, 0, 0], &payload);
            Icmpv4Message::parse(&bytes).expect("valid").quote().expect("a quote").datagram().len()
        };
        assert_eq!(quote_len(32), 128);
        assert_eq!(quote_len(0), 140, "no length: all of it");
        assert_eq!(quote_len(200), 140, "a length beyond the message");
    }
    // A redirect has an address in place of the length.
    let bytes = message(5, 0, [10, 32, 0, 1], &payload);
    let quote = Icmpv4Message::parse(&bytes).expect("valid").quote().expect("a quote");
    assert_eq!(quote.datagram().len(), 140);
}

#[test]
fn rfc4884_s4_3_the_length_of_too_big_leaves_its_mtu_alone() {
    let offending = datagram(4, GATEWAY_A, GATEWAY_B, &[0x45; 500]);
    let bytes = message(3, 4, [0, 32, 5, 0x78], &[&offending[..128], &[0x20, 0, 0, 0]].concat());
    let read = Icmpv4Message::parse(&bytes).expect("valid");
    assert_eq!(read.error(), Some(Icmpv4Error::TooBig { mtu: 1400 }));
    assert_eq!(read.quote().expect("a quote").datagram().len(), 128);
}

#[test]
fn rfc792_a_wrong_checksum_or_length_is_refused() {
    let mut bytes = message(8, 0, [0, 1, 0, 1], &[7; 3]);
    assert!(Icmpv4Message::parse(&bytes).is_ok());
    let right = u16::from_be_bytes([bytes[2], bytes[3]]);
    bytes[3] ^= 1;
    let error = Icmpv4ParseError::Checksum { expected: right, found: right ^ 1 };
    assert_eq!(Icmpv4Message::parse(&bytes).err(), Some(error));
    assert!(Icmpv4Message::parse_lenient(&bytes).is_ok());
    let error = Icmpv4ParseError::Truncated { expected: 8, found: 7 };
    assert_eq!(Icmpv4Message::parse_lenient(&bytes[..7]).err(), Some(error));
}

/// Returns true if a datagram with these fields and this first payload byte may be answered.
fn answered(source: [u8; 4], destination: [u8; 4], protocol: u8, first: u8) -> bool {
    let bytes = datagram(protocol, source.into(), destination.into(), &[first, 0, 0, 0, 0, 0, 0, 0]);
    may_answer(&Ipv4Packet::parse(&bytes, Validation::Strict).expect("valid"))
}

#[test]
fn rfc1122_s3_2_2_may_answer_by_source() {
    for (source, expected) in [
        ([172, 16, 17, 1], true),
        ([126, 255, 255, 255], true),
        ([128, 0, 0, 1], true),
        ([223, 255, 255, 254], true),
        ([0, 0, 0, 0], false),
        ([0, 1, 2, 3], false),
        ([127, 0, 0, 1], false),
        ([224, 0, 0, 1], false),
        ([239, 255, 255, 255], false),
        ([240, 0, 0, 1], false),
        ([255, 255, 255, 255], false),
    ] {
        assert_eq!(answered(source, B.octets(), 17, 0), expected, "{source:?}");
    }
}

#[test]
fn rfc1122_s3_2_2_may_answer_by_destination() {
    for (destination, expected) in [
        ([192, 168, 199, 1], true),
        ([127, 0, 0, 1], true),
        ([224, 0, 0, 1], false),
        ([239, 255, 255, 255], false),
        ([255, 255, 255, 255], false),
    ] {
        assert_eq!(answered(A.octets(), destination, 17, 0), expected, "{destination:?}");
    }
}

#[test]
fn rfc1122_s3_2_2_never_about_an_icmp_error_but_about_a_query() {
    for message_type in 0..=255_u8 {
        let query = matches!(message_type, 0 | 8 | 9 | 10 | 13 | 14 | 15 | 16 | 17 | 18 | 42 | 43);
        assert_eq!(answered(A.octets(), B.octets(), 1, message_type), query, "type {message_type}");
    }
    let empty = datagram(1, A, B, &[]);
    assert!(!may_answer(&Ipv4Packet::parse(&empty, Validation::Strict).expect("valid")));
}

#[test]
fn rfc1122_s3_2_2_never_about_a_later_fragment_but_about_the_first() {
    for (flags_and_offset, expected) in [(0x2000, true), (0x2001, false), (0x0001, false), (0x1fff, false)] {
        let mut bytes = datagram(17, A, B, &[7; 16]);
        bytes[6..8].copy_from_slice(&u16::to_be_bytes(flags_and_offset));
        let packet = Ipv4Packet::parse(&bytes, Validation::Lenient).expect("valid");
        assert_eq!(may_answer(&packet), expected, "{flags_and_offset:#06x}");
    }
}

#[test]
fn rfc792_echo_does_not_fit_in_too_little_room() {
    assert_eq!(build_echo(&mut [0; 11], 1, 2, &[0; 4], EchoKind::Request), None);
    assert_eq!(build_echo(&mut [0; 12], 1, 2, &[0; 4], EchoKind::Request), Some(12));
    assert_eq!(build_echo(&mut [], 1, 2, &[], EchoKind::Reply), None);
}

proptest! {
    #[test]
    fn rfc792_echo_is_what_etherparse_reads(
        ids in any::<[u16; 2]>(), payload in prop::collection::vec(any::<u8>(), 0..200), reply in any::<bool>(),
    ) {
        let kind = if reply { EchoKind::Reply } else { EchoKind::Request };
        let mut out = [0xee; 300];
        let len = build_echo(&mut out, ids[0], ids[1], &payload, kind).expect("room");
        let theirs = Icmpv4Slice::from_slice(&out[..len]).expect("a valid message");
        let echo = etherparse::IcmpEchoHeader { id: ids[0], seq: ids[1] };
        let expected = if reply { Icmpv4Type::EchoReply(echo) } else { Icmpv4Type::EchoRequest(echo) };
        prop_assert_eq!(theirs.icmp_type(), expected.clone());
        prop_assert_eq!(theirs.payload(), &payload[..]);
        prop_assert_eq!(theirs.checksum(), expected.calc_checksum(&payload));
        let ours = Icmpv4Message::parse(&out[..len]).expect("a valid message");
        prop_assert_eq!(ours.echo(), Some((ids[0], ids[1])));
        prop_assert!(ours.error().is_none() && ours.quote().is_none());
    }

    #[test]
    fn rfc1812_s4_3_2_errors_about_anything_are_valid_to_etherparse(
        offending in any_datagram(), mtu in any::<u16>(), cut in any::<prop::sample::Index>(),
    ) {
        // The offending datagram may be cut short.
        let offending = &offending[..cut.index(offending.len() + 1)];
        let bytes = built(Icmpv4Error::TooBig { mtu }, offending);
        let header = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header");
        prop_assert_eq!(usize::from(header.total_len()), bytes.len());
        prop_assert_eq!(header.header_checksum(), header.to_header().calc_header_checksum());
        let theirs = Icmpv4Slice::from_slice(&bytes[20..]).expect("a valid message");
        let needed = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
        prop_assert_eq!(theirs.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
        prop_assert_eq!(theirs.checksum(), theirs.icmp_type().calc_checksum(theirs.payload()));
        prop_assert_eq!(theirs.payload(), &offending[..offending.len().min(548)]);
        let ours = Ipv4Packet::parse(&bytes, Validation::Strict).expect("a valid datagram");
        prop_assert!(!may_answer(&ours));
    }
}

#[test]
fn an_error_without_a_source_has_source_0_0_0_0() {
    let mut out = [0; MAX_ERROR_LEN];
    let error = Icmpv4Error::DestinationUnreachable { code: unreachable::NET };
    let len = build_error(&mut out, Ipv4Addr::UNSPECIFIED, A, error, &datagram(17, A, B, &[]));
    let packet = Ipv4Packet::parse(&out[..len], Validation::Strict).expect("valid");
    assert_eq!(packet.source(), Ipv4Addr::UNSPECIFIED);
}
