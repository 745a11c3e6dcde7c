use adit_wire::ecn::Ecn;
use adit_wire::ipv4::{self, Ipv4Error, Ipv4Packet, Ipv4Repr};
use adit_wire::{Protocol, Validation};
use etherparse::Ipv4HeaderSlice;
use proptest::prelude::*;

use crate::packets::{A, B, any_datagram, datagram};

use Validation::{Datapath, Lenient, Strict};

/// Changes bytes and makes the checksum right again.
fn with(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut bytes);
    let header_len = usize::from(bytes[0] & 15) * 4;
    bytes[10..12].fill(0);
    let sum = adit_wire::checksum::checksum(&bytes[..header_len.min(bytes.len())]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn error(bytes: &[u8], validation: Validation) -> Option<Ipv4Error> {
    Ipv4Packet::parse(bytes, validation).err()
}

#[test]
fn rfc791_s3_1_each_validation_makes_its_checks() {
    let good = datagram(17, A, B, &[7; 12]);
    let all = |bytes: &[u8]| [Strict, Datapath, Lenient].map(|validation| error(bytes, validation));
    assert_eq!(all(&good), [None; 3]);

    let short = Some(Ipv4Error::Truncated { expected: 20, found: 19 });
    assert_eq!(all(&good[..19]), [short; 3]);
    assert_eq!(all(&[]), [Some(Ipv4Error::Truncated { expected: 20, found: 0 }); 3]);

    let version = with(good.clone(), |bytes| bytes[0] = 0x65);
    assert_eq!(all(&version), [Some(Ipv4Error::Version { found: 6 }); 3]);

    let ihl = with(good.clone(), |bytes| bytes[0] = 0x44);
    assert_eq!(all(&ihl), [Some(Ipv4Error::HeaderLength { found: 16 }); 3]);

    let total = with(good.clone(), |bytes| bytes[3] = 19);
    assert_eq!(all(&total), [Some(Ipv4Error::TotalLength { expected: 20, found: 19 }); 3]);

    let cut = Some(Ipv4Error::Truncated { expected: 32, found: 31 });
    assert_eq!(all(&good[..31]), [cut, cut, None]);

    let padded = [&good[..], &[0; 14]].concat();
    let length = Some(Ipv4Error::TotalLength { expected: 46, found: 32 });
    assert_eq!(all(&padded), [length, None, None]);

    let mut broken = good.clone();
    let right = u16::from_be_bytes([good[10], good[11]]);
    broken[10] ^= 0x40;
    let sum = Some(Ipv4Error::Checksum { expected: right, found: right ^ 0x4000 });
    assert_eq!(all(&broken), [sum, sum, None]);

    let reserved = with(good.clone(), |bytes| bytes[6] |= 0x80);
    assert_eq!(all(&reserved), [Some(Ipv4Error::ReservedFlag), None, None]);

    // A record route option that ends beyond the header.
    let options = with(good, |bytes| {
        bytes[0] = 0x46;
        bytes[20..24].copy_from_slice(&[7, 5, 4, 0]);
    });
    assert_eq!(all(&options), [Some(Ipv4Error::Options), None, None]);
}

#[test]
fn rfc791_bytes_after_the_total_length_are_cut_off() {
    let good = datagram(17, A, B, &[7; 12]);
    let padded = [&good[..], &[0; 14]].concat();
    let packet = Ipv4Packet::parse(&padded, Datapath).expect("padding is tolerated");
    assert_eq!(packet.as_bytes(), good);
    assert_eq!(packet.payload(), [7; 12]);
}

#[test]
fn a_lenient_view_of_a_short_capture_has_the_captured_bytes() {
    let good = datagram(17, A, B, &[7; 12]);
    let packet = Ipv4Packet::parse(&good[..25], Lenient).expect("enough to show");
    assert_eq!((packet.total_len(), packet.as_bytes().len()), (32, 25));
    assert_eq!(packet.payload(), [7; 5]);
    // The header itself is cut short: options and payload do not reach beyond the bytes.
    let options = with(good, |bytes| bytes[0] = 0x4f);
    let packet = Ipv4Packet::parse(&options[..22], Lenient);
    assert_eq!(packet.err(), Some(Ipv4Error::TotalLength { expected: 60, found: 32 }));
    let long = with(options, |bytes| bytes[3] = 100);
    let packet = Ipv4Packet::parse(&long[..22], Lenient).expect("enough to show");
    assert_eq!((packet.header().len(), packet.options().len(), packet.payload().len()), (22, 2, 0));
}

#[test]
fn rfc791_mutators_leave_short_bytes_alone() {
    let mut short = [0x45; 19];
    assert_eq!(ipv4::set_ecn(&mut short, Ecn::Ce), None);
    assert_eq!(ipv4::set_tos(&mut short, 1), None);
    assert_eq!(ipv4::set_ttl(&mut short, 1), None);
    assert_eq!(ipv4::allow_fragments(&mut short, 1), None);
    assert_eq!(short, [0x45; 19]);
}

#[test]
fn errors_have_the_expected_and_the_found_value() {
    let message = error(&[0x45; 3], Strict).expect("too short").to_string();
    assert_eq!(message, "IPv4 datagram cut short: 20 bytes expected, 3 found");
    assert_eq!(Protocol::TCP.to_string(), "TCP");
    assert_eq!(Protocol(132).to_string(), "protocol 132");
}

proptest! {
    #[test]
    fn rfc791_s3_1_parse_reads_what_etherparse_reads(bytes in any_datagram()) {
        let ours = Ipv4Packet::parse(&bytes, Strict).expect("etherparse wrote it");
        let theirs = Ipv4HeaderSlice::from_slice(&bytes).expect("etherparse wrote it");
        prop_assert_eq!(ours.source(), theirs.source_addr());
        prop_assert_eq!(ours.destination(), theirs.destination_addr());
        prop_assert_eq!(ours.ttl(), theirs.ttl());
        prop_assert_eq!(ours.protocol().0, theirs.protocol().0);
        prop_assert_eq!(ours.dscp().value(), theirs.dcp().value());
        prop_assert_eq!(ours.ecn().bits(), theirs.ecn().value());
        prop_assert_eq!(ours.identification(), theirs.identification());
        prop_assert_eq!(ours.dont_fragment(), theirs.dont_fragment());
        prop_assert_eq!(ours.more_fragments(), theirs.more_fragments());
        prop_assert_eq!(ours.fragment_offset(), theirs.fragments_offset().byte_offset());
        prop_assert_eq!(ours.is_fragment(), theirs.is_fragmenting_payload());
        prop_assert_eq!(ours.header_len(), usize::from(theirs.ihl()) * 4);
        prop_assert_eq!(ours.total_len(), usize::from(theirs.total_len()));
        prop_assert_eq!(ours.options(), theirs.options());
        prop_assert_eq!(ours.header(), theirs.slice());
        prop_assert_eq!(ours.payload(), &bytes[ours.header_len()..]);
        prop_assert_eq!(ours.fixed_header().checksum(), theirs.header_checksum());
    }

    #[test]
    fn rfc791_any_bytes_parse_only_if_etherparse_agrees(
        mut bytes in prop::collection::vec(any::<u8>(), 0..80), mend in any::<bool>(),
    ) {
        if let (true, [first, _, high, ..]) = (mend, bytes.as_mut_slice()) {
            *first = 0x45 | (*first & 3);
            *high = 0;
        }
        let theirs = Ipv4HeaderSlice::from_slice(&bytes);
        if Ipv4Packet::parse(&bytes, Datapath).is_ok() {
            prop_assert!(theirs.is_ok());
        }
        // Lenient checks the header only.
        if let Ok(header) = theirs {
            let total = usize::from(header.total_len());
            let accepted = total == 0 || total >= header.slice().len();
            prop_assert_eq!(Ipv4Packet::parse(&bytes, Lenient).is_ok(), accepted);
        }
    }

    #[test]
    fn rfc791_emit_writes_what_etherparse_writes(
        tos in any::<u8>(), ttl in any::<u8>(), protocol in any::<u8>(), identification in any::<u16>(),
        dont_fragment in any::<bool>(), payload_len in 0_u16..=65_515,
        source in any::<[u8; 4]>(), destination in any::<[u8; 4]>(),
    ) {
        let repr = Ipv4Repr {
            source: source.into(), destination: destination.into(), protocol: Protocol(protocol),
            ttl, tos, identification, dont_fragment, payload_len,
        };
        let bytes = repr.emit();
        let theirs = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
        prop_assert_eq!(theirs.header_checksum, theirs.calc_header_checksum());
        prop_assert_eq!(&theirs.to_bytes()[..], &bytes[..]);
        let view = Ipv4Packet::parse(&bytes, Lenient).expect("a valid header");
        prop_assert_eq!(Ipv4Repr::of(&view), repr);
    }

    #[test]
    fn rfc1624_in_place_changes_keep_the_checksum_right(
        bytes in any_datagram(), tos in any::<u8>(), ttl in any::<u8>(), ecn in 0_usize..4,
    ) {
        let ecn = Ecn::ALL[ecn];
        let mut changed = bytes.clone();
        prop_assert!(ipv4::set_tos(&mut changed, tos).is_some());
        prop_assert!(ipv4::set_ttl(&mut changed, ttl).is_some());
        prop_assert!(ipv4::set_ecn(&mut changed, ecn).is_some());
        let mut expected = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
        expected.dscp = etherparse::IpDscp::try_new(tos >> 2).expect("six bits");
        expected.ecn = etherparse::IpEcn::try_new(ecn.bits()).expect("two bits");
        expected.time_to_live = ttl;
        let header_len = expected.header_len();
        prop_assert_eq!(changed, crate::packets::written(expected, &bytes[header_len..]));
    }

    /// An atomic datagram's identification says nothing (RFC 6864, section 4.1), so it gets another
    /// one before it may be fragmented. Any other keeps its own.
    #[test]
    fn rfc6864_a_datagram_without_df_gets_an_identification_of_its_own(
        bytes in any_datagram(), identification in any::<u16>(),
    ) {
        let mut changed = bytes.clone();
        prop_assert!(ipv4::allow_fragments(&mut changed, identification).is_some());
        let mut expected = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
        if expected.dont_fragment {
            expected.dont_fragment = false;
            expected.identification = identification;
        }
        let header_len = expected.header_len();
        prop_assert_eq!(changed, crate::packets::written(expected, &bytes[header_len..]));
    }
}
