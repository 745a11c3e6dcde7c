//! Datagrams for the tests. etherparse writes them, not the code under test.

use std::net::Ipv4Addr;

use etherparse::{IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, TcpHeader};
use proptest::prelude::*;

pub(crate) const A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 1);
pub(crate) const GATEWAY_A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
pub(crate) const GATEWAY_B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);

/// A datagram of any protocol, with DF clear.
pub(crate) fn datagram(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(payload.len() as u16, 64, IpNumber(protocol), source.octets(), destination.octets())
            .expect("a short payload");
    // etherparse sets DF by default.
    header.dont_fragment = false;
    written(header, payload)
}

/// The header with its checksum, and the payload.
pub(crate) fn written(mut header: Ipv4Header, payload: &[u8]) -> Vec<u8> {
    header.header_checksum = header.calc_header_checksum();
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

/// A datagram with a TCP segment whose checksum is right.
pub(crate) fn tcp_datagram(
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
    mut header: TcpHeader,
    payload: &[u8],
) -> Vec<u8> {
    header.source_port = source.1;
    header.destination_port = destination.1;
    header.checksum = header
        .calc_checksum_ipv4_raw(source.0.octets(), destination.0.octets(), payload)
        .expect("a short payload");
    let mut segment = header.to_bytes().to_vec();
    segment.extend_from_slice(payload);
    datagram(6, source.0, destination.0, &segment)
}

/// Any header without options, with any payload.
pub(crate) fn any_header(payload_len: usize) -> impl Strategy<Value = Ipv4Header> {
    let numbers = (any::<u8>(), any::<u16>(), any::<u8>(), any::<u8>(), 0_u16..0x2000);
    let rest = (any::<[bool; 2]>(), any::<[u8; 4]>(), any::<[u8; 4]>());
    (numbers, rest).prop_map(move |((tos, id, ttl, protocol, offset), ([df, mf], source, destination))| {
        let mut header = Ipv4Header::new(payload_len as u16, ttl, IpNumber(protocol), source, destination)
            .expect("a short payload");
        header.dscp = IpDscp::try_new(tos >> 2).expect("six bits");
        header.ecn = IpEcn::try_new(tos & 3).expect("two bits");
        header.identification = id;
        header.dont_fragment = df;
        header.more_fragments = mf;
        header.fragment_offset = IpFragOffset::try_new(offset).expect("13 bits");
        header
    })
}

/// Any datagram: a header as above, options of whole words, a payload.
pub(crate) fn any_datagram() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..1600);
    let words = 0_usize..=10;
    (payload, words, any::<u8>()).prop_flat_map(|(payload, words, kind)| {
        any_header(payload.len()).prop_map(move |mut header| {
            let mut options = vec![0_u8; words * 4];
            if let [first, len, ..] = options.as_mut_slice() {
                // One option over all of the room: well formed whatever its type, unless 0 or 1.
                *first = kind | 2;
                *len = (words * 4) as u8;
            }
            header.options = options.as_slice().try_into().expect("whole words");
            let total = header.header_len() + payload.len();
            header.total_len = total as u16;
            written(header, &payload)
        })
    })
}
