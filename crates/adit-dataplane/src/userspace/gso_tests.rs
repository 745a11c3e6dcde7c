//! Segmentation and coalescing, against each other and against a slow model of what they mean.

use adit_linux::sockets::virtio_net::{Checksum, Gso, VirtioNetHeader};
use adit_wire::checksum;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::validation::Validation;
use proptest::prelude::*;

use super::coalesce::{Coalescer, MAX_SEGMENTS};
use super::segment::{GsoPacket, complete_checksum};

/// The extension header of IPv6 in these tests.
const DESTINATION_OPTIONS: u8 = 60;
/// One with nothing but padding. The first byte says what follows.
const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
const ADDRESSES: [u8; 8] = [172, 16, 17, 1, 192, 168, 199, 1];

/// A TCP datagram with timestamps, its checksums complete.
#[derive(Clone, Debug)]
struct Tcp {
    port: u16,
    sequence: u32,
    flags: u8,
    window: u16,
    id: u16,
    df: bool,
    tos: u8,
    payload: Vec<u8>,
}

impl Tcp {
    fn plain(sequence: u32, payload: Vec<u8>) -> Self {
        Self { port: 80, sequence, flags: 0x10, window: 500, id: 7, df: true, tos: 0, payload }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(4000u16.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(1u32.to_be_bytes());
        tcp.extend([8 << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        tcp.extend(&self.payload);
        datagram(6, self.tos, self.id, self.df, &tcp, 16)
    }
}

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = Vec::new();
    udp.extend(port.to_be_bytes());
    udp.extend(4000u16.to_be_bytes());
    udp.extend((payload.len() as u16 + 8).to_be_bytes());
    udp.extend([0; 2]);
    udp.extend(payload);
    datagram(17, 0, 0, true, &udp, 6)
}

fn datagram(protocol: u8, tos: u8, id: u16, df: bool, transport: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = vec![0x45, tos];
    bytes.extend((transport.len() as u16 + 20).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend([if df { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
    bytes.extend(ADDRESSES);
    let header = checksum::checksum(&bytes);
    bytes[10..12].copy_from_slice(&header.to_be_bytes());
    bytes.extend(transport);
    let mut pseudo = Vec::from(ADDRESSES);
    pseudo.extend([0, protocol]);
    pseudo.extend((transport.len() as u16).to_be_bytes());
    pseudo.extend(transport);
    let mut sum = checksum::checksum(&pseudo);
    if sum == 0 && protocol == 17 {
        sum = 0xffff;
    }
    bytes[20 + at..22 + at].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// Coalesces datagrams as one batch. Returns each packet with its virtio-net header.
fn join(datagrams: &[Vec<u8>], known: Checksum) -> Vec<(VirtioNetHeader, Vec<u8>)> {
    let mut arena = Vec::new();
    let mut coalescer = Coalescer::new(MAX_SEGMENTS * 4, true);
    let mut ranges = Vec::new();
    for datagram in datagrams {
        // Datagrams do not lie end to end.
        arena.extend([0xee; 13]);
        ranges.push(arena.len()..arena.len() + datagram.len());
        arena.extend(datagram);
    }
    for range in ranges {
        coalescer.push(&arena[..], range, VirtioNetHeader { checksum: known, ..VirtioNetHeader::PLAIN });
    }
    (0..coalescer.packets())
        .map(|index| {
            let packet = coalescer.finish(&mut arena[..], index);
            (packet.header, coalescer.pieces(&arena[..], &packet).flatten().copied().collect())
        })
        .collect()
}

/// Segments packets and completes their checksums, as they would appear on a wire.
fn cut(packets: &[(VirtioNetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    for (header, bytes) in packets {
        let gso_packet = GsoPacket::new(bytes, header).expect("a coalesced packet can be segmented");
        for index in 0..gso_packet.count() {
            let mut out = vec![0; gso_packet.datagram_len(index)];
            assert!(out.len() <= gso_packet.largest());
            if let Some(partial) = gso_packet.write(index, &mut out) {
                complete_checksum(&mut out, partial);
            }
            datagrams.push(out);
        }
    }
    datagrams
}

/// The same datagrams without the identifications of atomic ones, which have no meaning (RFC 6864).
fn comparable(datagrams: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let blank = |datagram: &Vec<u8>| {
        let mut bytes = datagram.clone();
        if bytes[0] >> 4 == 4 && bytes[6] & 0x40 != 0 {
            bytes[4..6].fill(0);
            bytes[10..12].fill(0);
        }
        bytes
    };
    datagrams.iter().map(blank).collect()
}

/// The IP version and the source port.
fn flow_of(datagram: &[u8]) -> (u8, u16) {
    let version = datagram[0] >> 4;
    let ports = match (version, datagram[6]) {
        (4, _) => 20,
        (_, DESTINATION_OPTIONS) => 48,
        _ => 40,
    };
    (version, u16::from_be_bytes([datagram[ports], datagram[ports + 1]]))
}

#[test]
fn a_tcp_stream_becomes_one_gso_packet_and_back() {
    let datagrams: Vec<_> = (0..10u32)
        .map(|n| {
            Tcp { id: n as u16, ..Tcp::plain(1000 + n * 100, vec![n as u8; if n == 9 { 37 } else { 100 }]) }
                .bytes()
        })
        .collect();
    let joined = join(&datagrams, Checksum::Unknown);
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].0.gso, Gso::TcpV4 { cwr: false });
    assert_eq!(joined[0].0.gso_size, 100);
    assert_eq!(cut(&joined), datagrams);
}

#[test]
fn small_udp_datagrams_become_one_gso_packet_and_back() {
    let datagrams: Vec<_> = (0..MAX_SEGMENTS).map(|n| udp(53, &[n as u8; 64])).collect();
    let joined = join(&datagrams, Checksum::Unknown);
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].0.gso, Gso::UdpL4);
    assert_eq!(comparable(&cut(&joined)), comparable(&datagrams));
}

#[test]
fn datagrams_that_segmentation_would_change_are_not_coalesced() {
    let first = Tcp::plain(0, vec![1; 100]);
    let second = Tcp::plain(100, vec![2; 100]);
    let cases: Vec<(&str, Tcp, Tcp)> = vec![
        ("a gap", first.clone(), Tcp { sequence: 101, ..second.clone() }),
        ("a repetition", first.clone(), Tcp { sequence: 0, ..second.clone() }),
        ("another window", first.clone(), Tcp { window: 501, ..second.clone() }),
        ("another TOS", first.clone(), Tcp { tos: 3, ..second.clone() }),
        ("a FIN", first.clone(), Tcp { flags: 0x11, ..second.clone() }),
        ("a SYN first", Tcp { flags: 0x12, ..first.clone() }, second.clone()),
        ("a push in the middle", Tcp { flags: 0x18, ..first.clone() }, second.clone()),
        ("a larger one", first.clone(), Tcp { payload: vec![2; 101], ..second.clone() }),
        ("an empty one", first.clone(), Tcp { payload: vec![], ..second.clone() }),
        ("another DF", first.clone(), Tcp { df: false, ..second.clone() }),
        (
            "identifications that do not count up",
            Tcp { df: false, ..first.clone() },
            Tcp { df: false, id: 9, ..second.clone() },
        ),
        ("another port", first.clone(), Tcp { port: 81, ..second.clone() }),
    ];
    for (what, first, second) in cases {
        let datagrams = [first.bytes(), second.bytes()];
        let joined = join(&datagrams, Checksum::Unknown);
        assert_eq!(joined.len(), 2, "{what}");
        assert_eq!(cut(&joined), datagrams, "{what}");
    }
    assert_eq!(join(&[first.bytes(), second.bytes()], Checksum::Unknown).len(), 1);
}

#[test]
fn a_segment_with_a_data_offset_below_the_header_is_delivered_unchanged() {
    // As long as they are in sequence, by the length that a header of less than 20 bytes leaves.
    for offset in 0..5 {
        let segment = |index: u32| {
            let payload = 100 + 32 - u32::from(offset) * 4;
            let mut bytes = Tcp::plain(1 + index * payload, vec![7; 100]).bytes();
            bytes[32] = offset << 4;
            bytes[36..38].fill(0);
            let transport = bytes.split_off(20);
            datagram(6, 0, 7, true, &transport, 16)
        };
        let datagrams = [segment(0), segment(1)];
        let joined = join(&datagrams, Checksum::Unknown);
        assert_eq!(joined.iter().map(|packet| packet.1.clone()).collect::<Vec<_>>(), datagrams);
    }
}

#[test]
fn a_datagram_with_a_wrong_checksum_is_delivered_unchanged() {
    for broken in 0..2 {
        let mut datagrams = [Tcp::plain(0, vec![1; 100]).bytes(), Tcp::plain(100, vec![2; 100]).bytes()];
        datagrams[broken][70] ^= 1;
        let joined = join(&datagrams, Checksum::Unknown);
        assert_eq!(joined.len(), 2);
        assert_eq!(cut(&joined), datagrams);
    }
}

#[test]
fn a_pushed_datagram_closes_its_gso_packet_and_stays_pushed() {
    let datagrams = [
        Tcp { id: 1, ..Tcp::plain(0, vec![1; 100]) }.bytes(),
        Tcp { id: 2, flags: 0x18, ..Tcp::plain(100, vec![2; 100]) }.bytes(),
        Tcp { id: 3, ..Tcp::plain(200, vec![3; 100]) }.bytes(),
    ];
    let joined = join(&datagrams, Checksum::Unknown);
    assert_eq!(joined.len(), 2);
    assert_eq!(cut(&joined), datagrams);
}

#[test]
fn a_packet_that_does_not_match_its_header_is_refused() {
    let tcp = Tcp::plain(0, vec![1; 300]).bytes();
    let lies = [
        VirtioNetHeader { gso: Gso::TcpV4 { cwr: false }, gso_size: 0, ..VirtioNetHeader::PLAIN },
        VirtioNetHeader { gso: Gso::UdpL4, gso_size: 100, ..VirtioNetHeader::PLAIN },
        VirtioNetHeader { gso: Gso::UdpFragmentation, gso_size: 100, ..VirtioNetHeader::PLAIN },
        VirtioNetHeader { gso: Gso::Unknown(9), gso_size: 100, ..VirtioNetHeader::PLAIN },
    ];
    for lie in lies {
        assert!(GsoPacket::new(&tcp, &lie).is_err(), "{lie:?}");
    }
    let honest = VirtioNetHeader { gso: Gso::TcpV4 { cwr: false }, gso_size: 100, ..VirtioNetHeader::PLAIN };
    for len in 0..tcp.len() {
        // Truncated anywhere: refused or segmented, never a panic.
        let _ = GsoPacket::new(&tcp[..len], &honest).map(|cut| cut.count());
    }
}

#[test]
fn rfc3168_only_the_first_segment_carries_cwr_and_only_the_last_fin_and_psh() {
    let bytes = Tcp { flags: 0x80 | 0x10 | 0x08 | 0x01, ..Tcp::plain(0, vec![1; 250]) }.bytes();
    let header = VirtioNetHeader { gso: Gso::TcpV4 { cwr: true }, gso_size: 100, ..VirtioNetHeader::PLAIN };
    let flags: Vec<u8> = cut(&[(header, bytes)]).iter().map(|datagram| datagram[33]).collect();
    assert_eq!(flags, [0x90, 0x10, 0x19]);
}

/// The same segment as a packet of IPv6, behind this extension header.
fn over_ipv6(v4: &[u8], extension: &[u8]) -> Vec<u8> {
    let mut transport = v4[20..].to_vec();
    let protocol = v4[9];
    let at = if protocol == 6 { 16 } else { 6 };
    transport[at..at + 2].fill(0);
    let addresses: Vec<u8> = (1..=32).collect();
    let [first, next] = if extension.is_empty() { [protocol; 2] } else { [DESTINATION_OPTIONS, protocol] };
    let mut extension = extension.to_vec();
    if let Some(header) = extension.first_mut() {
        *header = next;
    }
    let mut pseudo = addresses.clone();
    pseudo.extend((transport.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    pseudo.extend(&transport);
    let mut sum = checksum::checksum(&pseudo);
    if sum == 0 && protocol == 17 {
        sum = 0xffff;
    }
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = vec![0x62, 0x34, 0x56, 0x78];
    bytes.extend(((extension.len() + transport.len()) as u16).to_be_bytes());
    bytes.extend([first, 64]);
    bytes.extend(addresses);
    bytes.extend(extension);
    bytes.extend(transport);
    bytes
}

#[test]
fn a_gso_packet_of_ipv6_becomes_what_its_sender_would_have_sent_in_pieces() {
    let payload: Vec<u8> = (0..250).collect();
    for extension in [&[][..], &PADDING] {
        let whole = over_ipv6(&Tcp::plain(1000, payload.clone()).bytes(), extension);
        let header =
            VirtioNetHeader { gso: Gso::TcpV6 { cwr: false }, gso_size: 100, ..VirtioNetHeader::PLAIN };
        let expected: Vec<Vec<u8>> = payload
            .chunks(100)
            .enumerate()
            .map(|(n, chunk)| {
                over_ipv6(&Tcp::plain(1000 + n as u32 * 100, chunk.to_vec()).bytes(), extension)
            })
            .collect();
        assert_eq!(cut(&[(header, whole.clone())]), expected);
        for len in 0..whole.len() {
            let _ = GsoPacket::new(&whole[..len], &header).map(|cut| cut.count());
        }
        let of_ipv4 = VirtioNetHeader { gso: Gso::TcpV4 { cwr: false }, ..header };
        assert!(GsoPacket::new(&whole, &of_ipv4).is_err(), "the family is another");
    }
}

#[test]
fn packets_of_ipv6_become_one_gso_packet_and_back() {
    let segment = |n: u32| Tcp::plain(n * 100, vec![n as u8; if n == 9 { 37 } else { 100 }]).bytes();
    let streams: [Vec<Vec<u8>>; 2] = [
        (0..10).map(|n| over_ipv6(&segment(n), &[])).collect(),
        (0..10).map(|n| over_ipv6(&udp(53, &[n; 64]), &[])).collect(),
    ];
    for (datagrams, gso) in streams.iter().zip([Gso::TcpV6 { cwr: false }, Gso::UdpL4]) {
        let joined = join(datagrams, Checksum::Unknown);
        assert_eq!((joined.len(), joined[0].0.gso), (1, gso));
        assert_eq!(cut(&joined), *datagrams);
    }
}

#[test]
fn packets_of_ipv6_that_segmentation_would_change_are_not_coalesced() {
    let segment = |n: u32| Tcp::plain(n * 100, vec![n as u8; 100]).bytes();
    let second = over_ipv6(&segment(1), &[]);
    let with = |at: usize, bits: u8| {
        let mut bytes = second.clone();
        bytes[at] ^= bits;
        bytes
    };
    for (what, first, second) in [
        ("another traffic class", over_ipv6(&segment(0), &[]), with(1, 0x10)),
        ("another flow label", over_ipv6(&segment(0), &[]), with(3, 1)),
        ("another hop limit", over_ipv6(&segment(0), &[]), with(7, 1)),
        ("an extension header", over_ipv6(&segment(0), &PADDING), over_ipv6(&segment(1), &PADDING)),
        ("another family", segment(0), second.clone()),
    ] {
        let datagrams = [first, second];
        let joined = join(&datagrams, Checksum::Unknown);
        assert_eq!(joined.len(), 2, "{what}");
        assert_eq!(cut(&joined), datagrams, "{what}");
    }
}

fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    // Few values of each, so that flows meet, continue and collide.
    let tcp = (
        80u16..83,
        0u32..6,
        prop_oneof![5 => Just(0x10u8), 1 => Just(0x18), 1 => Just(0x11)],
        any::<bool>(),
        0usize..3,
    )
        .prop_map(|(port, step, flags, df, size)| {
            let size = [100, 100, 40][size];
            Tcp { port, flags, df, id: step as u16, ..Tcp::plain(step * 100, vec![step as u8; size]) }.bytes()
        });
    let udp = (53u16..55, any::<u8>(), 0usize..3)
        .prop_map(|(port, fill, size)| udp(port, &vec![fill; [64, 64, 20][size]]));
    let family = prop_oneof![3 => Just(None), 2 => Just(Some(&[][..])), 1 => Just(Some(&PADDING[..]))];
    (prop_oneof![3 => tcp, 2 => udp], family).prop_map(|(datagram, extension)| match extension {
        None => datagram,
        Some(extension) => over_ipv6(&datagram, extension),
    })
}

proptest! {
    #[test]
    fn coalescing_then_segmenting_changes_only_the_order_between_flows(
        datagrams in prop::collection::vec(any_datagram(), 0..100)
    ) {
        let after = cut(&join(&datagrams, Checksum::Unknown));
        for flow in [80, 81, 82, 53, 54].into_iter().flat_map(|port| [(4, port), (6, port)]) {
            let of_flow = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
                comparable(&all.iter().filter(|bytes| flow_of(bytes) == flow).cloned().collect::<Vec<_>>())
            };
            prop_assert_eq!(of_flow(&after), of_flow(&datagrams));
        }
        prop_assert_eq!(after.len(), datagrams.len());
    }

    #[test]
    fn every_segment_is_a_valid_datagram_with_its_part_of_the_payload(
        payload in prop::collection::vec(any::<u8>(), 1..4000),
        size in 1u16..1500,
        sequence in any::<u32>(),
        id in any::<u16>(),
    ) {
        let whole = Tcp { id, ..Tcp::plain(sequence, payload.clone()) }.bytes();
        let header = VirtioNetHeader { gso: Gso::TcpV4 { cwr: false }, gso_size: size, ..VirtioNetHeader::PLAIN };
        let segments = cut(&[(header, whole)]);
        let mut collected = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            let packet = Ipv4Packet::parse(segment, Validation::Strict).expect("a strict IPv4 header");
            prop_assert_eq!(packet.identification(), id.wrapping_add(index as u16));
            let tcp = adit_wire::tcp::TcpHeader::parse(packet.payload()).expect("a TCP header");
            prop_assert_eq!(tcp.sequence(), sequence.wrapping_add(collected.len() as u32));
            prop_assert!(tcp.checksum_ok(packet.source(), packet.destination()));
            collected.extend_from_slice(tcp.payload());
        }
        prop_assert_eq!(collected, payload);
    }

    #[test]
    fn any_parseable_bytes_can_be_coalesced(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 20..80), 0..20)
    ) {
        let valid: Vec<Vec<u8>> = datagrams
            .into_iter()
            .map(|mut bytes| {
                if bytes[0] & 1 == 0 || bytes.len() < 40 {
                    bytes[0] = 0x45;
                    let len = (bytes.len() as u16).to_be_bytes();
                    bytes[2..4].copy_from_slice(&len);
                } else {
                    bytes[0] = 0x60;
                    let len = (bytes.len() as u16 - 40).to_be_bytes();
                    bytes[4..6].copy_from_slice(&len);
                }
                bytes
            })
            .collect();
        let out = join(&valid, Checksum::Unknown);
        let total: usize = out.iter().map(|(_, bytes)| bytes.len()).sum();
        prop_assert!(total <= valid.iter().map(Vec::len).sum());
    }
}
