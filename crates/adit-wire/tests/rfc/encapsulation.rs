use adit_wire::dscp::{Dscp, DscpPolicy};
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{LIMIT_LEN, OVERHEAD_V4, OVERHEAD_V6, OuterHeader, OuterPolicy, TtlPolicy};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{FRAGMENT_HEADERS_LEN, FragmentsV6, Ipv6Packet};
use adit_wire::{Protocol, Validation};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice};
use proptest::prelude::*;

use crate::packets::{GATEWAY_A, GATEWAY_B, any_datagram};

/// The outer header in front of a datagram.
fn encapsulated(policy: &OuterPolicy, inner: &[u8], identification: u16) -> Vec<u8> {
    let view = Ipv4Packet::parse(inner, Validation::Strict).expect("a valid inner datagram");
    let outer = OuterHeader::v4(
        policy,
        GATEWAY_A,
        GATEWAY_B,
        Protocol::IPIP,
        view.tos(),
        view.ttl(),
        view.dont_fragment(),
        inner.len(),
        identification,
    )
    .expect("short enough");
    [outer.as_bytes(), inner].concat()
}

fn outer_of(policy: OuterPolicy, tos: u8, ttl: u8, df: bool) -> OuterHeader {
    OuterHeader::v4(&policy, GATEWAY_A, GATEWAY_B, Protocol::IPIP, tos, ttl, df, 100, 7)
        .expect("short enough")
}

fn fields(outer: &OuterHeader) -> Ipv4HeaderSlice<'_> {
    Ipv4HeaderSlice::from_slice(outer.as_bytes()).expect("a valid header")
}

#[test]
fn rfc2003_s3_1_inner_df_gives_outer_df() {
    let policy = OuterPolicy { df: false, ..OuterPolicy::default() };
    assert!(fields(&outer_of(policy, 0, 64, true)).dont_fragment());
    assert!(!fields(&outer_of(policy, 0, 64, false)).dont_fragment());
}

#[test]
fn rfc2003_s5_1_df_is_set_by_default() {
    assert!(fields(&outer_of(OuterPolicy::default(), 0, 64, false)).dont_fragment());
}

#[test]
fn rfc2003_s3_1_tos_is_that_of_the_inner_header() {
    for tos in 0..=255 {
        let outer = outer_of(OuterPolicy::default(), tos, 64, false);
        assert_eq!(outer.as_bytes()[1], tos);
    }
}

#[test]
fn rfc6040_s4_1_compatibility_mode_clears_ecn_and_keeps_dscp() {
    let policy = OuterPolicy { ecn: EcnMode::Compatibility, ..OuterPolicy::default() };
    assert_eq!(outer_of(policy, 0xbb, 64, false).as_bytes()[1], 0xb8);
}

#[test]
fn rfc2983_a_fixed_dscp_leaves_ecn_to_the_inner_header() {
    let dscp = DscpPolicy::Fixed(Dscp::new(46).expect("in range"));
    let policy = OuterPolicy { dscp, ..OuterPolicy::default() };
    assert_eq!(outer_of(policy, 0x03, 64, false).as_bytes()[1], 46 << 2 | 3);
}

#[test]
fn rfc2003_s3_1_ttl_is_fixed_or_inherited() {
    let fixed = OuterPolicy { ttl: TtlPolicy::Fixed(33), ..OuterPolicy::default() };
    let inherit = OuterPolicy { ttl: TtlPolicy::Inherit, ..OuterPolicy::default() };
    assert_eq!(fields(&outer_of(fixed, 0, 9, false)).ttl(), 33);
    assert_eq!(fields(&outer_of(inherit, 0, 9, false)).ttl(), 9);
}

#[test]
fn rfc791_the_longest_inner_datagram_has_65515_bytes() {
    let v4 = |len| {
        OuterHeader::v4(&OuterPolicy::default(), GATEWAY_A, GATEWAY_B, Protocol::IPIP, 0, 1, false, len, 0)
    };
    let longest = v4(65_515).expect("just fits");
    assert_eq!(fields(&longest).total_len(), 65_535);
    assert_eq!(v4(65_516), None);
    assert_eq!(v4(usize::MAX), None);
}

proptest! {
    #[test]
    fn rfc2003_s3_1_outer_header_is_what_etherparse_reads(
        inner in any_datagram(),
        identification in any::<u16>(),
    ) {
        let whole = encapsulated(&OuterPolicy::default(), &inner, identification);
        let outer = Ipv4HeaderSlice::from_slice(&whole).expect("a valid header");
        prop_assert_eq!(outer.version(), 4);
        prop_assert_eq!(outer.ihl(), 5);
        prop_assert_eq!(outer.protocol().0, 4);
        prop_assert_eq!(usize::from(outer.total_len()), OVERHEAD_V4 + inner.len());
        prop_assert_eq!(outer.identification(), identification);
        prop_assert_eq!(outer.source_addr(), GATEWAY_A);
        prop_assert_eq!(outer.destination_addr(), GATEWAY_B);
        prop_assert!(!outer.more_fragments());
        prop_assert_eq!(outer.fragments_offset().value(), 0);
        prop_assert_eq!(outer.header_checksum(), outer.to_header().calc_header_checksum());
        // The inner datagram, its options too, is unchanged and is all of the payload.
        let view = Ipv4Packet::parse(&whole, Validation::Strict).expect("a valid datagram");
        prop_assert_eq!(view.protocol(), Protocol::IPIP);
        prop_assert_eq!(view.payload(), &inner[..]);
    }

    #[test]
    fn rfc6864_the_header_tells_its_df_and_identification(
        df in any::<bool>(), inner_df in any::<bool>(), id in any::<u16>(),
    ) {
        let policy = OuterPolicy { df, ..OuterPolicy::default() };
        let outer = OuterHeader::v4(&policy, GATEWAY_A, GATEWAY_B, Protocol::IPIP, 0, 1, inner_df, 100, id);
        let outer = outer.expect("short enough");
        let theirs = fields(&outer);
        prop_assert_eq!(outer.dont_fragment(), theirs.dont_fragment());
        prop_assert_eq!(outer.identification(), theirs.identification());
    }

    #[test]
    fn rfc1624_a_segment_header_is_that_of_a_full_computation(
        tos in any::<u8>(), first in 20_usize..65_516, len in 20_u16..65_516, ids in any::<[u16; 2]>(),
    ) {
        let v4 = |len, id| {
            OuterHeader::v4(&OuterPolicy::default(), GATEWAY_A, GATEWAY_B, Protocol::IPIP, tos, 9, true, len, id)
                .expect("short enough")
        };
        prop_assert_eq!(v4(first, ids[0]).for_segment(len, ids[1]), v4(usize::from(len), ids[1]));
    }
}

proptest! {
    /// The independent reader finds what the policy asks for.
    #[test]
    fn rfc2473_s3_an_outer_header_of_ipv6_says_what_is_asked(
        (source, destination) in (any::<[u8; 16]>(), any::<[u8; 16]>()),
        (tos, hop_limit, label) in (any::<u8>(), any::<u8>(), any::<u32>()),
        len in 0..65_600_usize,
        (fixed, segment) in (any::<Option<u8>>(), any::<u16>()),
    ) {
        let ttl = fixed.map_or(TtlPolicy::Inherit, TtlPolicy::Fixed);
        let policy = OuterPolicy { ttl, ..OuterPolicy::default() };
        let [from, to] = [source, destination].map(std::net::Ipv6Addr::from);
        let outer = OuterHeader::v6(&policy, from, to, Protocol::IPV6, tos, hop_limit, label, len);
        prop_assert_eq!(outer.is_some(), len <= 65_535);
        let Some(outer) = outer else { return Ok(()) };
        let read = |bytes: &[u8]| Ipv6HeaderSlice::from_slice(bytes).map(|header| header.to_header());
        let header = read(outer.as_bytes()).expect("a valid header");
        prop_assert_eq!((header.source, header.destination), (source, destination));
        prop_assert_eq!((header.traffic_class, header.flow_label.value()), (tos, label & 0xf_ffff));
        prop_assert_eq!(header.hop_limit, fixed.unwrap_or(hop_limit));
        prop_assert_eq!((header.next_header, usize::from(header.payload_length)), (IpNumber::IPV6, len));
        prop_assert!(outer.dont_fragment() && outer.as_v4().is_none() && outer.len() == OVERHEAD_V6);
        let next = read(outer.for_segment(segment, 9).as_bytes()).expect("a valid header");
        prop_assert_eq!((next.payload_length, next.hop_limit), (segment, header.hop_limit));
        // With a limit, 8 bytes more.
        let limited = outer.with_limit(3);
        prop_assert_eq!(limited.is_some(), len + LIMIT_LEN <= 65_535);
        let Some(limited) = limited else { return Ok(()) };
        let header = read(limited.as_bytes()).expect("a valid header");
        prop_assert_eq!(header.next_header, IpNumber::IPV6_DESTINATION_OPTIONS);
        prop_assert_eq!(usize::from(header.payload_length), len + LIMIT_LEN);
        prop_assert_eq!(&limited.as_bytes()[OVERHEAD_V6..], &[41, 0, 4, 1, 3, 1, 1, 0]);
        prop_assert!(limited.with_limit(2).is_none(), "there is one limit");
    }

    /// The pieces follow each other, fit, and are the packet.
    #[test]
    fn rfc8200_s4_5_fragments_are_the_packet_in_pieces(
        payload in proptest::collection::vec(any::<u8>(), 1..4000),
        max_len in 40..2000_usize,
        identification in any::<u32>(),
    ) {
        let policy = OuterPolicy::default();
        let ends = [std::net::Ipv6Addr::LOCALHOST; 2];
        let outer =
            OuterHeader::v6(&policy, ends[0], ends[1], Protocol::IPV6, 3, 9, 7, payload.len()).expect("short");
        let packet = [outer.as_bytes(), &payload].concat();
        let view = Ipv6Packet::parse(&packet, Validation::Strict).expect("a valid packet");
        let fragments = FragmentsV6::new(&view, max_len, identification);
        prop_assert_eq!(fragments.is_some(), max_len >= FRAGMENT_HEADERS_LEN + 8);
        let mut rebuilt: Vec<u8> = Vec::new();
        let mut is_last = false;
        for piece in fragments.into_iter().flatten() {
            prop_assert!(!is_last, "none follows the last");
            prop_assert!(piece.header.len() + piece.payload.len() <= max_len);
            let header = Ipv6HeaderSlice::from_slice(&piece.header).expect("a valid header").to_header();
            prop_assert_eq!((header.traffic_class, header.hop_limit), (3, 64));
            prop_assert_eq!(header.next_header, IpNumber::IPV6_FRAGMENTATION_HEADER);
            prop_assert_eq!(usize::from(header.payload_length), 8 + piece.payload.len());
            let fragment = Ipv6FragmentHeaderSlice::from_slice(&piece.header[40..]).expect("a header");
            prop_assert_eq!((fragment.next_header(), fragment.identification()), (IpNumber::IPV6, identification));
            prop_assert_eq!(usize::from(fragment.fragment_offset().value()) * 8, rebuilt.len());
            is_last = !fragment.more_fragments();
            prop_assert!(is_last || piece.payload.len() % 8 == 0);
            rebuilt.extend(&packet[piece.payload]);
        }
        if max_len >= FRAGMENT_HEADERS_LEN + 8 {
            prop_assert!(is_last && rebuilt == payload);
        }
    }
}
