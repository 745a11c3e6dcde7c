//! Changes to an IPv6 header in place. No checksum covers these fields.

use super::HEADER_LEN;
use crate::ecn::Ecn;

/// Changes the ECN field of the header at the start of `packet`.
///
/// The header must be valid. Returns `None` if there are fewer than 40 bytes.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) -> Option<()> {
    let [first, second, ..] = *packet.first_chunk::<HEADER_LEN>()?;
    let class = first << 4 | second >> 4;
    set_traffic_class(packet, (class & !0b11) | ecn.bits())
}

/// Changes the traffic class, DSCP and ECN, as [`set_ecn`].
#[inline]
pub fn set_traffic_class(packet: &mut [u8], class: u8) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    header[0] = (header[0] & 0xf0) | class >> 4;
    header[1] = class << 4 | (header[1] & 0x0f);
    Some(())
}

/// Changes the payload length, in bytes, as [`set_ecn`].
#[inline]
pub fn set_payload_len(packet: &mut [u8], len: u16) -> Option<()> {
    let [high, low] = len.to_be_bytes();
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    (header[4], header[5]) = (high, low);
    Some(())
}

/// Changes the hop limit, in hops, as [`set_ecn`].
#[inline]
pub fn set_hop_limit(packet: &mut [u8], hop_limit: u8) -> Option<()> {
    packet.first_chunk_mut::<HEADER_LEN>()?[7] = hop_limit;
    Some(())
}
