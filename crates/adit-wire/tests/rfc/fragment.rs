use adit_wire::Validation;
use adit_wire::fragment::{Fragment, FragmentError, fragments};
use adit_wire::ipv4::Ipv4Packet;
use etherparse::Ipv4HeaderSlice;
use etherparse::defrag::{IpDefragBuf, IpFragRange};
use proptest::prelude::*;

use crate::packets::{A, B, any_datagram, datagram, written};

fn parse(bytes: &[u8]) -> Ipv4Packet<'_> {
    Ipv4Packet::parse(bytes, Validation::Strict).expect("a valid datagram")
}

/// Returns the fragments as they are on the wire.
fn split(bytes: &[u8], max_len: usize) -> Result<Vec<Vec<u8>>, FragmentError> {
    let whole = |piece: Fragment| [piece.header(), &bytes[piece.payload()]].concat();
    fragments(&parse(bytes), max_len).map(|pieces| pieces.map(whole).collect())
}

/// Returns a datagram with these options and a payload in which neighbouring bytes differ.
fn with_options(options: &[u8], payload_len: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..payload_len).map(|at| at as u8).collect();
    let mut header =
        Ipv4HeaderSlice::from_slice(&datagram(17, A, B, &payload)).expect("a valid header").to_header();
    header.options = options.try_into().expect("whole words");
    header.total_len += options.len() as u16;
    header.identification = 0xbeef;
    written(header, &payload)
}

#[test]
fn rfc791_s3_2_every_fragment_but_the_last_has_whole_units_of_eight_bytes() {
    let pieces = split(&with_options(&[], 100), 63).expect("may be split");
    let lens: Vec<_> = pieces.iter().map(|piece| piece.len() - 20).collect();
    assert_eq!(lens, [40, 40, 20]);
    for (piece, (offset, more)) in pieces.iter().zip([(0, true), (40, true), (80, false)]) {
        let header = Ipv4HeaderSlice::from_slice(piece).expect("a valid header");
        assert_eq!(header.fragments_offset().byte_offset(), offset);
        assert_eq!(header.more_fragments(), more);
        assert_eq!(header.identification(), 0xbeef);
    }
}

#[test]
fn rfc791_s3_1_options_are_copied_by_their_copy_flag() {
    // Record route (7, only in the first), router alert (148, in all), no operation, stream id
    // (136).
    let options = [7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 1, 136, 4, 0x12, 0x34];
    let pieces = split(&with_options(&options, 100), 80).expect("may be split");
    assert_eq!(pieces.len(), 3);
    assert_eq!(parse(&pieces[0]).options(), options);
    for piece in &pieces[1..] {
        assert_eq!(parse(piece).options(), [148, 4, 0, 0, 136, 4, 0x12, 0x34]);
    }
    // The header of the later fragments is shorter and leaves more room.
    assert_eq!(pieces.iter().map(|piece| parse(piece).payload().len()).collect::<Vec<_>>(), [40, 48, 12]);
}

#[test]
fn rfc791_s3_1_copied_options_are_padded_to_a_word() {
    let pieces = split(&with_options(&[0x82, 3, 9, 0], 64), 60).expect("may be split");
    assert_eq!(parse(&pieces[1]).options(), [0x82, 3, 9, 0]);
    let pieces = split(&with_options(&[7, 3, 4, 0x82, 5, 9, 9, 9], 64), 60).expect("may be split");
    assert_eq!(parse(&pieces[1]).options(), [0x82, 5, 9, 9, 9, 0, 0, 0]);
}

#[test]
fn rfc791_s3_2_a_fragment_is_split_in_its_place() {
    let mut header =
        Ipv4HeaderSlice::from_slice(&datagram(17, A, B, &[7; 64])).expect("a valid header").to_header();
    header.fragment_offset = 100.try_into().expect("13 bits");
    header.more_fragments = true;
    let pieces = split(&written(header, &[7; 64]), 60).expect("may be split");
    let places: Vec<_> =
        pieces.iter().map(|p| (parse(p).fragment_offset(), parse(p).more_fragments())).collect();
    assert_eq!(places, [(800, true), (840, true)]);
}

#[test]
fn rfc791_s3_1_df_forbids_splitting_but_not_passing() {
    let mut bytes = datagram(17, A, B, &[7; 64]);
    let mut header = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
    header.dont_fragment = true;
    bytes = written(header, &[7; 64]);
    assert_eq!(split(&bytes, 83), Err(FragmentError::DontFragment));
    assert_eq!(split(&bytes, 84), Ok(vec![bytes.clone()]));
}

#[test]
fn rfc791_s3_2_what_cannot_be_split_is_refused() {
    let bytes = datagram(17, A, B, &[7; 64]);
    let small = FragmentError::TooSmall { expected: 28, found: 27 };
    assert_eq!(split(&bytes, 27), Err(small));
    assert_eq!(split(&bytes, 28).map(|pieces| pieces.len()), Ok(8));

    let cut = Ipv4Packet::parse(&bytes[..40], Validation::Lenient).expect("enough to show");
    assert_eq!(fragments(&cut, 30).err(), Some(FragmentError::Truncated));

    // Two options, the first of which claims more than there is.
    let broken = with_options(&[0x82, 9, 0, 0], 64);
    let broken = Ipv4Packet::parse(&broken, Validation::Datapath).expect("not looked at");
    assert_eq!(fragments(&broken, 60).err(), Some(FragmentError::Options));

    let mut header = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
    header.fragment_offset = 0x1fff.try_into().expect("13 bits");
    assert_eq!(split(&written(header, &[7; 64]), 60), Err(FragmentError::Offset));
}

#[test]
fn rfc791_an_empty_payload_is_one_fragment() {
    let bytes = datagram(17, A, B, &[]);
    assert_eq!(split(&bytes, 20), Ok(vec![bytes.clone()]));
}

proptest! {
    #[test]
    fn rfc4459_s3_4_fragments_reassemble_to_the_original(bytes in any_datagram(), max_len in 68_usize..1600) {
        // As if it had been whole and without DF.
        let mut header = Ipv4HeaderSlice::from_slice(&bytes).expect("a valid header").to_header();
        let header_len = header.header_len();
        (header.dont_fragment, header.more_fragments) = (false, false);
        header.fragment_offset = 0.try_into().expect("13 bits");
        let bytes = written(header, &bytes[header_len..]);

        let pieces = split(&bytes, max_len).expect("68 bytes are enough for any header");
        let mut reassembly = IpDefragBuf::new(parse(&bytes).protocol().0.into(), Vec::new(), Vec::<IpFragRange>::new());
        for piece in &pieces {
            prop_assert!(piece.len() <= max_len);
            let theirs = Ipv4HeaderSlice::from_slice(piece).expect("a valid header");
            prop_assert_eq!(theirs.header_checksum(), theirs.to_header().calc_header_checksum());
            prop_assert_eq!(usize::from(theirs.total_len()), piece.len());
            let (ours, original) = (parse(piece), parse(&bytes));
            prop_assert_eq!(ours.identification(), original.identification());
            prop_assert_eq!((ours.tos(), ours.ttl(), ours.protocol()), (original.tos(), original.ttl(), original.protocol()));
            prop_assert_eq!((ours.source(), ours.destination()), (original.source(), original.destination()));
            reassembly
                .add(theirs.fragments_offset(), theirs.more_fragments(), ours.payload())
                .expect("a fragment that fits");
        }
        prop_assert!(reassembly.is_complete());
        let (payload, _) = reassembly.take_bufs();
        prop_assert_eq!(&payload[..], parse(&bytes).payload());
        prop_assert_eq!(parse(&pieces[0]).options(), parse(&bytes).options());
        // None could have been left out.
        prop_assert_eq!(pieces.len() == 1, bytes.len() <= max_len);
    }
}
