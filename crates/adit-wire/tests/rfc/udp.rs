use adit_wire::udp::{UdpError, UdpHeader};
use etherparse::{UdpHeader as Theirs, UdpHeaderSlice};
use proptest::prelude::*;

use crate::packets::{A, B};

const OTHER: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 199, 2);

#[test]
fn rfc768_a_length_that_does_not_fit_is_refused() {
    let bytes = [0, 1, 0, 2, 0, 9, 0, 0, 7];
    assert!(UdpHeader::parse(&bytes).is_ok());
    let error = |bytes: &[u8]| UdpHeader::parse(bytes).err();
    assert_eq!(error(&bytes[..8]), Some(UdpError::Truncated { expected: 9, found: 8 }));
    assert_eq!(error(&bytes[..7]), Some(UdpError::Truncated { expected: 8, found: 7 }));
    assert_eq!(error(&[0, 1, 0, 2, 0, 7, 0, 0]), Some(UdpError::Length { found: 7 }));
}

#[test]
fn rfc768_a_checksum_of_zero_is_none() {
    let datagram = [0, 1, 0, 2, 0, 9, 0, 0, 7];
    assert!(UdpHeader::parse(&datagram).expect("valid").checksum_ok(A, B));
}

proptest! {
    #[test]
    fn rfc768_parse_reads_what_etherparse_reads(
        ports in any::<[u16; 2]>(), payload in prop::collection::vec(any::<u8>(), 0..200), pad in 0_usize..4,
    ) {
        let mut header = Theirs::without_ipv4_checksum(ports[0], ports[1], payload.len()).expect("a short payload");
        header.checksum = header
            .calc_checksum_ipv4_raw(A.octets(), B.octets(), &payload)
            .expect("a short payload");
        let mut bytes = [&header.to_bytes()[..], &payload].concat();
        bytes.resize(bytes.len() + pad, 0xee);
        let ours = UdpHeader::parse(&bytes).expect("etherparse wrote it");
        let theirs = UdpHeaderSlice::from_slice(&bytes).expect("etherparse wrote it");
        prop_assert_eq!(ours.source_port(), theirs.source_port());
        prop_assert_eq!(ours.destination_port(), theirs.destination_port());
        prop_assert_eq!(ours.length(), theirs.length());
        prop_assert_eq!(ours.checksum(), theirs.checksum());
        prop_assert_eq!(ours.payload(), &payload[..]);
        prop_assert!(ours.checksum_ok(A, B));
        // Swapped addresses have the same sum; another address has not.
        prop_assert!(!ours.checksum_ok(A, OTHER));
    }
}
