use std::net::Ipv6Addr;

use adit_wire::ecn::Ecn;
use adit_wire::ipv6::extension::{self, EncapsulationLimit, MAX_HEADERS, MalformedExtension};
use adit_wire::ipv6::{self, Ipv6Error, Ipv6Packet, Ipv6Repr};
use adit_wire::{Protocol, Validation};
use etherparse::{IpNumber, Ipv6ExtensionsSlice, Ipv6FlowLabel, Ipv6Header, Ipv6HeaderSlice};
use proptest::prelude::*;

use Validation::{Datapath, Lenient, Strict};

const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 1);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);

/// A packet that etherparse writes.
fn packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(next_header),
        hop_limit: 64,
        source: A.octets(),
        destination: B.octets(),
        ..Ipv6Header::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

/// A packet with these extension headers, given by their number and their bytes without the first,
/// before a payload of this protocol.
fn with_extensions(headers: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let numbers = headers.iter().map(|(number, _)| *number).chain([protocol]);
    let following: Vec<u8> = numbers.clone().skip(1).collect();
    let mut bytes = Vec::new();
    for ((_, header), next) in headers.iter().zip(following) {
        bytes.push(next);
        bytes.extend_from_slice(header);
    }
    bytes.extend_from_slice(payload);
    packet(numbers.into_iter().next().unwrap_or(protocol), &bytes)
}

const PADDED: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
/// What Linux writes: the limit, and a PadN of three bytes.
const LIMIT: [u8; 7] = [0, 4, 1, 4, 1, 1, 0];
const FIRST_FRAGMENT: [u8; 7] = [0, 0, 1, 0xaa, 0xbb, 0xcc, 0xdd];
const LATER_FRAGMENT: [u8; 7] = [0, 0x05, 0xa8, 0xaa, 0xbb, 0xcc, 0xdd];

fn walked(bytes: &[u8]) -> Result<extension::Upper<'_>, MalformedExtension> {
    extension::walk(bytes, Protocol(bytes[6]))
}

#[test]
fn rfc8200_s3_each_validation_makes_its_checks() {
    let good = packet(17, &[7; 12]);
    let all = |bytes: &[u8]| [Strict, Datapath, Lenient].map(|how| Ipv6Packet::parse(bytes, how).err());
    assert_eq!(all(&good), [None; 3]);

    let short = Some(Ipv6Error::Truncated { expected: 40, found: 39 });
    assert_eq!(all(&good[..39]), [short; 3]);
    assert_eq!(all(&[]), [Some(Ipv6Error::Truncated { expected: 40, found: 0 }); 3]);

    let mut version = good.clone();
    version[0] = 0x45;
    assert_eq!(all(&version), [Some(Ipv6Error::Version { found: 4 }); 3]);

    let cut = Some(Ipv6Error::Truncated { expected: 52, found: 51 });
    assert_eq!(all(&good[..51]), [cut, cut, None]);

    let padded = [&good[..], &[0; 2]].concat();
    let length = Some(Ipv6Error::PayloadLength { expected: 14, found: 12 });
    assert_eq!(all(&padded), [length, None, None]);
    let view = Ipv6Packet::parse(&padded, Datapath).expect("padding is tolerated");
    assert_eq!((view.as_bytes(), view.payload()), (&good[..], &[7; 12][..]));

    // A GSO packet in a capture.
    let mut gso = good;
    gso[5] = 0;
    let view = Ipv6Packet::parse(&gso, Lenient).expect("its length is that of the bytes");
    assert_eq!((view.payload(), view.total_len()), (&[7; 12][..], 40));
    assert_eq!(Ipv6Packet::parse(&gso, Datapath).expect("without payload").payload(), []);
}

#[test]
fn rfc8200_s4_the_payload_is_found_behind_extension_headers() {
    let udp = [9; 8];
    for (bytes, protocol, offset) in [
        (packet(17, &udp), 17, 40),
        (with_extensions(&[(0, &PADDED)], 17, &udp), 17, 48),
        (with_extensions(&[(0, &PADDED), (43, &PADDED), (60, &PADDED)], 4, &udp), 4, 64),
        (with_extensions(&[(44, &FIRST_FRAGMENT), (60, &PADDED)], 41, &udp), 41, 56),
        // Of a later fragment nobody can say more.
        (with_extensions(&[(44, &LATER_FRAGMENT)], 60, &udp), 60, 48),
        // No next header, and one that nobody knows.
        (packet(59, &[]), 59, 40),
        (packet(253, &udp), 253, 40),
    ] {
        let upper = walked(&bytes).expect("well-formed");
        assert_eq!((upper.protocol.0, upper.offset), (protocol, offset), "{bytes:02x?}");
    }
    let bytes = with_extensions(&[(44, &LATER_FRAGMENT)], 17, &udp);
    let fragment = walked(&bytes).expect("well-formed").fragment.expect("a fragment");
    assert_eq!((fragment.offset(), fragment.more_fragments()), (1448, false));
    assert_eq!(fragment.identification(), 0xaabb_ccdd);
    let bytes = with_extensions(&[(44, &FIRST_FRAGMENT)], 17, &udp);
    let fragment = walked(&bytes).expect("well-formed").fragment.expect("a fragment");
    assert_eq!((fragment.offset(), fragment.more_fragments()), (0, true));
}

#[test]
fn rfc8200_s4_a_header_that_ends_beyond_the_packet_is_malformed() {
    let long = [[200].as_slice(), &PADDED[1..]].concat();
    for (bytes, at) in [
        (packet(0, &[]), 40),
        (packet(60, &[6]), 40),
        (packet(43, &[6, 0, 0]), 40),
        (packet(44, &[6, 0, 0, 1, 2, 3, 4]), 40),
        (with_extensions(&[(0, &PADDED), (60, &long)], 6, &[]), 48),
    ] {
        assert_eq!(walked(&bytes), Err(MalformedExtension { offset: at }), "{bytes:02x?}");
    }
    let many = |count: usize| with_extensions(&vec![(60, &PADDED[..]); count], 6, &[]);
    assert!(walked(&many(MAX_HEADERS - 1)).is_ok());
    assert!(walked(&many(MAX_HEADERS)).is_err(), "the walk has an end");
}

#[test]
fn rfc2473_s4_1_1_the_encapsulation_limit_is_found() {
    let limit = |headers: &[(u8, &[u8])]| {
        let bytes = with_extensions(headers, 41, &[]);
        walked(&bytes).expect("well-formed").limit
    };
    let at = |limit, offset| Some(EncapsulationLimit { limit, offset });
    assert_eq!(limit(&[]), None);
    assert_eq!(limit(&[(60, &LIMIT)]), at(4, 44));
    assert_eq!(limit(&[(0, &PADDED), (60, &LIMIT)]), at(4, 52), "behind hop-by-hop options");
    assert_eq!(limit(&[(0, &LIMIT)]), None, "no option of a hop-by-hop header");
    let zero = [0, 0, 0, 4, 1, 0, 0];
    assert_eq!(limit(&[(60, &zero)]), at(0, 46), "behind two Pad1");
    let padded = [0, 1, 1, 0, 4, 1, 7];
    assert_eq!(limit(&[(60, &padded)]), at(7, 47), "at the very end");
    assert_eq!(limit(&[(60, &zero), (60, &LIMIT)]), at(0, 46), "the first of two");
    let long = [0, 4, 2, 9, 9, 0, 0];
    assert_eq!(limit(&[(60, &long)]), None, "its length is one byte");
    let beyond = [0, 1, 2, 0, 0, 4, 1];
    assert_eq!(limit(&[(60, &beyond)]), None, "its value is missing");
}

#[test]
fn rfc8200_mutators_leave_short_bytes_alone() {
    let mut short = [0x60; 39];
    assert_eq!(ipv6::set_ecn(&mut short, Ecn::Ce), None);
    assert_eq!(ipv6::set_traffic_class(&mut short, 1), None);
    assert_eq!(ipv6::set_hop_limit(&mut short, 1), None);
    assert_eq!(short, [0x60; 39]);
}

#[test]
fn errors_have_the_expected_and_the_found_value() {
    let message = Ipv6Packet::parse(&[0x60; 3], Strict).expect_err("too short").to_string();
    assert_eq!(message, "IPv6 packet cut short: 40 bytes expected, 3 found");
}

/// Any header, with any payload.
fn any_packet() -> impl Strategy<Value = Vec<u8>> {
    let numbers = (any::<u8>(), 0_u32..1 << 20, any::<u8>(), any::<u8>());
    let rest = (any::<[u8; 16]>(), any::<[u8; 16]>(), prop::collection::vec(any::<u8>(), 0..100));
    (numbers, rest).prop_map(|((class, label, next, hop_limit), (source, destination, payload))| {
        let header = Ipv6Header {
            traffic_class: class,
            flow_label: Ipv6FlowLabel::try_new(label).expect("20 bits"),
            payload_length: payload.len() as u16,
            next_header: IpNumber(next),
            hop_limit,
            source,
            destination,
        };
        [&header.to_bytes()[..], &payload].concat()
    })
}

proptest! {
    #[test]
    fn rfc8200_s3_parse_reads_what_etherparse_reads(bytes in any_packet()) {
        let ours = Ipv6Packet::parse(&bytes, Strict).expect("etherparse wrote it");
        let theirs = Ipv6HeaderSlice::from_slice(&bytes).expect("etherparse wrote it");
        prop_assert_eq!(ours.source(), theirs.source_addr());
        prop_assert_eq!(ours.destination(), theirs.destination_addr());
        prop_assert_eq!(ours.hop_limit(), theirs.hop_limit());
        prop_assert_eq!(ours.next_header().0, theirs.next_header().0);
        prop_assert_eq!(ours.traffic_class(), theirs.traffic_class());
        prop_assert_eq!(ours.dscp().value(), theirs.dscp().value());
        prop_assert_eq!(ours.ecn().bits(), theirs.ecn().value());
        prop_assert_eq!(ours.flow_label(), theirs.flow_label().value());
        prop_assert_eq!(ours.total_len(), bytes.len());
        prop_assert_eq!(ours.payload(), &bytes[40..]);
        prop_assert_eq!(&Ipv6Repr::of(&ours).emit()[..], &bytes[..40]);
    }

    #[test]
    fn rfc8200_any_bytes_parse_only_if_etherparse_agrees(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80), mend in any::<bool>(),
    ) {
        if let (true, [first, ..]) = (mend, bytes.as_mut_slice()) {
            *first = 0x60 | (*first & 15);
        }
        let theirs = Ipv6HeaderSlice::from_slice(&bytes);
        // Lenient checks the header only.
        prop_assert_eq!(Ipv6Packet::parse(&bytes, Lenient).is_ok(), theirs.is_ok());
        let is_whole = theirs.is_ok_and(|header| 40 + usize::from(header.payload_length()) <= bytes.len());
        prop_assert_eq!(Ipv6Packet::parse(&bytes, Datapath).is_ok(), is_whole);
    }

    #[test]
    fn rfc8200_in_place_changes_change_their_field_only(
        bytes in any_packet(), class in any::<u8>(), hop_limit in any::<u8>(), ecn in 0_usize..4,
    ) {
        let ecn = Ecn::ALL[ecn];
        let mut changed = bytes.clone();
        prop_assert!(ipv6::set_traffic_class(&mut changed, class).is_some());
        prop_assert!(ipv6::set_hop_limit(&mut changed, hop_limit).is_some());
        prop_assert!(ipv6::set_ecn(&mut changed, ecn).is_some());
        let mut expected = Ipv6HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
        expected.traffic_class = class & !3 | ecn.bits();
        expected.hop_limit = hop_limit;
        prop_assert_eq!(&changed[..40], &expected.to_bytes()[..]);
        prop_assert_eq!(&changed[40..], &bytes[40..]);
    }

    /// Headers in the order that RFC 8200 section 4.1 recommends, the only one that etherparse
    /// reads.
    #[test]
    fn rfc8200_s4_the_walk_ends_where_that_of_etherparse_ends(
        present in any::<[bool; 4]>(), units in 0_u8..4, fragment_offset in 0_u16..3, protocol in 100_u8..=250,
    ) {
        let options = vec![units; 1].into_iter().chain(vec![0; 6 + usize::from(units) * 8]).collect::<Vec<_>>();
        let fragment = [&[0][..], &(fragment_offset << 3).to_be_bytes(), &[1, 2, 3, 4]].concat();
        let headers = [(0, &options), (60, &options), (43, &options), (44, &fragment)];
        let headers: Vec<_> = headers.into_iter().zip(present).filter(|(_, is_present)| *is_present)
            .map(|((number, bytes), _)| (number, bytes.as_slice())).collect();
        let bytes = with_extensions(&headers, protocol, &[5; 9]);
        let ours = walked(&bytes).expect("well-formed");
        let (theirs, next, payload) =
            Ipv6ExtensionsSlice::from_slice(IpNumber(bytes[6]), &bytes[40..]).expect("well-formed");
        prop_assert_eq!(ours.protocol.0, next.0);
        prop_assert_eq!(&bytes[ours.offset..], payload);
        prop_assert_eq!(
            ours.fragment.is_some_and(|fragment| fragment.offset() != 0 || fragment.more_fragments()),
            theirs.is_fragmenting_payload()
        );
    }
}
