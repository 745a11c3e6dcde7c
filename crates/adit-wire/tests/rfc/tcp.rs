use std::net::Ipv6Addr;

use adit_wire::checksum;
use adit_wire::checksum::ChecksumState::{Complete, Partial};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Repr;
use adit_wire::tcp::{
    MAX_HEADER_LEN, MSS_VALUE_OFFSET, MssAnnounced, TcpError, TcpFlags, TcpHeader, TcpOption, clamp_mss,
    mss_announced,
};
use adit_wire::{Protocol, Validation};
use etherparse::{TcpHeader as Theirs, TcpHeaderSlice, TcpOptionElement};
use proptest::prelude::*;

use crate::packets::{A, B, tcp_datagram};

/// A SYN with these options, from A to B.
fn syn(options: &[u8]) -> Vec<u8> {
    let mut header = Theirs::new(0, 0, 0x1234_5678, 64_800);
    header.syn = true;
    header.set_options_raw(options).expect("at most 40 bytes");
    tcp_datagram((A, 39_820), (B, 80), header, &[])
}

/// The segment of a datagram.
fn segment(datagram: &[u8]) -> TcpHeader<'_> {
    let packet = Ipv4Packet::parse(datagram, Validation::Strict).expect("a valid datagram");
    TcpHeader::parse(packet.payload()).expect("a valid segment")
}

fn mss_values(datagram: &[u8]) -> Vec<u16> {
    segment(datagram)
        .options()
        .filter_map(|option| match option {
            TcpOption::MaximumSegmentSize(mss) => Some(mss),
            _ => None,
        })
        .collect()
}

/// Options with the MSS at even and odd offsets, alone and beside others.
const PLACES: [&[u8]; 5] = [
    &[2, 4, 0x05, 0xb4],
    &[1, 2, 4, 0x05, 0xb4, 1, 1, 0],
    &[1, 1, 2, 4, 0x05, 0xb4, 1, 0],
    &[4, 2, 3, 3, 7, 2, 4, 0x05, 0xb4, 1, 1, 0],
    &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 4, 0x05, 0xb4, 0],
];

#[test]
fn rfc9293_s3_7_1_mss_is_lowered_and_the_checksum_follows_at_even_and_odd_places() {
    for options in PLACES {
        let mut packet = syn(options);
        assert_eq!(clamp_mss(&mut packet, 1420, Complete), Some(1460), "{options:?}");
        assert_eq!(mss_values(&packet), [1420]);
        assert!(segment(&packet).checksum_ok(A, B), "{options:?}");
    }
}

#[test]
fn virtio_needs_csum_a_partial_checksum_is_unchanged() {
    for options in PLACES {
        let mut packet = syn(options);
        let before = segment(&packet).checksum();
        assert_eq!(clamp_mss(&mut packet, 1420, Partial), Some(1460));
        assert_eq!(mss_values(&packet), [1420]);
        assert_eq!(segment(&packet).checksum(), before);
    }
}

/// The same segment behind a header of IPv6.
#[test]
fn rfc9293_s3_7_1_mss_is_lowered_behind_a_header_of_ipv6() {
    let (a, b): (Ipv6Addr, Ipv6Addr) = ([0x20; 16].into(), [0x21; 16].into());
    for options in PLACES {
        let mut tcp = syn(options)[20..].to_vec();
        tcp[16..18].fill(0);
        let pseudo = checksum::pseudo_header_v6(a, b, Protocol::TCP, tcp.len() as u32);
        let right = pseudo.add_bytes(&tcp).checksum().to_be_bytes();
        tcp[16..18].copy_from_slice(&right);
        let header = |next_header| Ipv6Repr {
            source: a,
            destination: b,
            next_header,
            hop_limit: 64,
            traffic_class: 0,
            flow_label: 0,
            payload_len: tcp.len() as u16,
        };
        let mut packet = [&header(Protocol::TCP).emit()[..], &tcp].concat();
        assert_eq!(clamp_mss(&mut packet, 1420, Complete), Some(1460), "{options:?}");
        assert_eq!(pseudo.add_bytes(&packet[40..]).checksum(), 0, "{options:?}");
        assert_eq!(clamp_mss(&mut packet, 1420, Complete), None, "it is low enough");
        let mut other = [&header(Protocol::DESTINATION_OPTIONS).emit()[..], &tcp].concat();
        assert_eq!(clamp_mss(&mut other, 1420, Complete), None, "not TCP");
        assert_eq!(clamp_mss(&mut packet[..50], 1420, Complete), None, "cut short");
    }
}

#[test]
fn rfc9293_s3_7_1_mss_is_never_raised() {
    for max in [1460, 1461, u16::MAX] {
        let original = syn(PLACES[0]);
        let mut packet = original.clone();
        assert_eq!(clamp_mss(&mut packet, max, Complete), None);
        assert_eq!(packet, original);
    }
}

#[test]
fn every_one_of_several_mss_options_is_lowered() {
    let mut packet = syn(&[2, 4, 0x05, 0xb4, 2, 4, 0x09, 0x09, 2, 4, 0, 99]);
    assert_eq!(clamp_mss(&mut packet, 1000, Complete), Some(1460));
    assert_eq!(mss_values(&packet), [1000, 1000, 99]);
    assert!(segment(&packet).checksum_ok(A, B));
}

#[test]
fn anything_but_a_syn_with_an_mss_option_is_unchanged() {
    let whole = syn(PLACES[0]);
    let change = |at: usize, to: u8| {
        let mut packet = whole.clone();
        packet[at] = to;
        packet
    };
    let cases = [
        ("no SYN", change(33, 0x10)),
        ("UDP", change(9, 17)),
        ("a later fragment", change(7, 1)),
        ("IPv6", change(0, 0x65)),
        ("options cut by the total length", change(3, 42)),
        ("a data offset beyond the segment", change(32, 0xf0)),
        ("a data offset below the header", change(32, 0x40)),
        ("an option of length zero before it", syn(&[99, 0, 2, 4, 0x05, 0xb4, 0, 0])),
        ("after the end of the list", syn(&[0, 0, 0, 0, 2, 4, 0x05, 0xb4])),
        ("a wrong length", syn(&[2, 3, 0x05, 0])),
        ("a value beyond the header", syn(&[1, 1, 2, 4])),
        ("no options", syn(&[])),
        ("nothing", Vec::new()),
    ];
    for (name, original) in cases {
        let mut packet = original.clone();
        assert_eq!(clamp_mss(&mut packet, 500, Complete), None, "{name}");
        assert_eq!(packet, original, "{name}");
    }
}

#[test]
fn rfc9293_a_header_that_does_not_fit_is_refused() {
    let mut bytes = [0_u8; 24];
    bytes[12] = 0x60;
    let error = |bytes: &[u8]| TcpHeader::parse(bytes).err();
    assert_eq!(error(&bytes), None);
    assert_eq!(error(&bytes[..23]), Some(TcpError::Truncated { expected: 24, found: 23 }));
    assert_eq!(error(&bytes[..19]), Some(TcpError::Truncated { expected: 20, found: 19 }));
    bytes[12] = 0x40;
    assert_eq!(error(&bytes), Some(TcpError::DataOffset { found: 16 }));
}

#[test]
fn rfc9293_s3_2_options_end_at_the_end_and_at_what_is_malformed() {
    use TcpOption::{End, Malformed, NoOperation, Other};
    let packet = |options: &[u8]| syn(options);
    let read = |bytes: &[u8]| format!("{:?}", segment(bytes).options().collect::<Vec<_>>());
    let expect = |options: &[TcpOption<'_>]| format!("{options:?}");
    assert_eq!(read(&packet(&[1, 0, 5, 5])), expect(&[NoOperation, End]));
    assert_eq!(read(&packet(&[1, 5, 0, 1])), expect(&[NoOperation, Malformed]));
    assert_eq!(read(&packet(&[1, 1, 1, 8])), expect(&[NoOperation, NoOperation, NoOperation, Malformed]));
    assert_eq!(read(&packet(&[1, 1, 8, 3])), expect(&[NoOperation, NoOperation, Malformed]));
    let other = Other { kind: 2, data: &[9] };
    assert_eq!(read(&packet(&[2, 3, 9, 1])), expect(&[other, NoOperation]));
}

fn any_option() -> impl Strategy<Value = TcpOptionElement> {
    prop_oneof![
        Just(TcpOptionElement::Noop),
        any::<u16>().prop_map(TcpOptionElement::MaximumSegmentSize),
        any::<u8>().prop_map(TcpOptionElement::WindowScale),
        Just(TcpOptionElement::SelectiveAcknowledgementPermitted),
        (any::<u32>(), any::<u32>()).prop_map(|(value, echo)| TcpOptionElement::Timestamp(value, echo)),
        any::<(u32, u32)>().prop_map(|edges| TcpOptionElement::SelectiveAcknowledgement(edges, [None; 3])),
    ]
}

/// Returns the text of our form of an option, for comparison.
fn ours(option: &TcpOptionElement) -> String {
    match option {
        TcpOptionElement::Noop => format!("{:?}", TcpOption::NoOperation),
        TcpOptionElement::MaximumSegmentSize(mss) => format!("{:?}", TcpOption::MaximumSegmentSize(*mss)),
        TcpOptionElement::WindowScale(shift) => format!("{:?}", TcpOption::WindowScale(*shift)),
        TcpOptionElement::SelectiveAcknowledgementPermitted => format!("{:?}", TcpOption::SackPermitted),
        TcpOptionElement::Timestamp(value, echo) => {
            format!("{:?}", TcpOption::Timestamps { value: *value, echo: *echo })
        }
        TcpOptionElement::SelectiveAcknowledgement((left, right), _) => {
            let edges = [left.to_be_bytes(), right.to_be_bytes()].concat();
            format!("{:?}", TcpOption::Sack(&edges))
        }
    }
}

proptest! {
    #[test]
    fn rfc9293_s3_1_parse_reads_what_etherparse_reads(
        ports in any::<[u16; 2]>(), numbers in any::<[u32; 2]>(), window in any::<u16>(),
        urgent in any::<u16>(), flags in any::<[bool; 8]>(),
        options in prop::collection::vec(any_option(), 0..4),
        payload in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut header = Theirs::new(0, 0, numbers[0], window);
        header.acknowledgment_number = numbers[1];
        header.urgent_pointer = urgent;
        [header.fin, header.syn, header.rst, header.psh, header.ack, header.urg, header.ece, header.cwr] =
            flags;
        prop_assume!(header.set_options(&options).is_ok());
        let datagram = tcp_datagram((A, ports[0]), (B, ports[1]), header, &payload);
        let segment = segment(&datagram);
        let theirs = TcpHeaderSlice::from_slice(&datagram[20..]).expect("etherparse wrote it");
        prop_assert_eq!(segment.source_port(), theirs.source_port());
        prop_assert_eq!(segment.destination_port(), theirs.destination_port());
        prop_assert_eq!(segment.sequence(), theirs.sequence_number());
        prop_assert_eq!(segment.acknowledgment(), theirs.acknowledgment_number());
        prop_assert_eq!(segment.window(), theirs.window_size());
        prop_assert_eq!(segment.urgent_pointer(), theirs.urgent_pointer());
        prop_assert_eq!(segment.checksum(), theirs.checksum());
        prop_assert_eq!(segment.header_len(), theirs.slice().len());
        prop_assert_eq!(segment.payload(), &payload[..]);
        prop_assert!(segment.checksum_ok(A, B));
        let bits = [
            TcpFlags::FIN, TcpFlags::SYN, TcpFlags::RST, TcpFlags::PSH,
            TcpFlags::ACK, TcpFlags::URG, TcpFlags::ECE, TcpFlags::CWR,
        ];
        for (bit, set) in bits.into_iter().zip(flags) {
            prop_assert_eq!(segment.flags().contains(bit), set);
        }
        let read: Vec<_> = segment
            .options()
            .filter(|option| *option != TcpOption::End)
            .map(|option| format!("{option:?}"))
            .collect();
        prop_assert_eq!(read, options.iter().map(ours).collect::<Vec<_>>());
    }

    #[test]
    fn rfc1624_clamping_any_syn_keeps_its_checksum_right(
        options in prop::collection::vec(any_option(), 0..4), max in any::<u16>(), ack in any::<bool>(),
    ) {
        let mut header = Theirs::new(0, 0, 1, 1);
        (header.syn, header.ack) = (true, ack);
        prop_assume!(header.set_options(&options).is_ok());
        let mut packet = tcp_datagram((A, 1), (B, 2), header, &[]);
        let before = mss_values(&packet);
        let old = clamp_mss(&mut packet, max, Complete);
        prop_assert_eq!(old, before.iter().copied().find(|&mss| mss > max));
        let expected: Vec<_> = before.iter().map(|&mss| mss.min(max)).collect();
        prop_assert_eq!(mss_values(&packet), expected);
        prop_assert!(segment(&packet).checksum_ok(A, B));
    }

    /// What the eBPF programs see without following options one by one agrees with the options. It
    /// may be `Elsewhere` for any options.
    #[test]
    fn an_mss_announced_first_or_nowhere_is_what_the_options_say(
        pieces in prop::collection::vec(option_bytes(), 0..8), cut in 0..=40_usize,
    ) {
        let mut options = pieces.concat();
        options.truncate(cut);
        options.resize(options.len().next_multiple_of(4), 0);
        let datagram = syn(&options);
        let segment = segment(&datagram);
        let mut header = [0; MAX_HEADER_LEN];
        header[..segment.header_len()].copy_from_slice(&datagram[20..20 + segment.header_len()]);
        let values = mss_values(&datagram);
        match mss_announced(&header) {
            MssAnnounced::Nowhere => prop_assert_eq!(values, []),
            MssAnnounced::First(value) => {
                prop_assert_eq!(values, [value]);
                prop_assert_eq!(&header[MSS_VALUE_OFFSET..MSS_VALUE_OFFSET + 2], value.to_be_bytes());
            }
            MssAnnounced::Elsewhere => {}
        }
    }

    /// It is not `Elsewhere` for options as every stack writes them: the MSS first, and nothing
    /// after it that looks like another.
    #[test]
    fn an_mss_announced_first_is_seen(mss in any::<u16>(), rest in prop::collection::vec(usual_option(), 0..4)) {
        let [high, low] = mss.to_be_bytes();
        let mut options = vec![2, 4, high, low];
        options.extend(rest.concat());
        options.resize(options.len().next_multiple_of(4), 0);
        prop_assume!(options.len() <= 40 && options[4..].windows(2).all(|pair| pair != [2, 4]));
        let mut header = [0; MAX_HEADER_LEN];
        header[20..20 + options.len()].copy_from_slice(&options);
        prop_assert_eq!(mss_announced(&header), MssAnnounced::First(mss));
    }
}

/// Whole options, malformed ones, and bytes that look like options.
fn option_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<u16>().prop_map(|mss| [&[2, 4], &mss.to_be_bytes()[..]].concat()),
        prop::collection::vec(prop_oneof![0..6_u8, any::<u8>()], 1..5),
        usual_option(),
    ]
}

/// Options as stacks write them, with timestamps that do not look like an MSS option.
fn usual_option() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(vec![1]),
        Just(vec![4, 2]),
        (5..=14_u8).prop_map(|shift| vec![3, 3, shift]),
        prop::array::uniform8(5..=255_u8).prop_map(|value| [&[8, 10], &value[..]].concat()),
    ]
}
