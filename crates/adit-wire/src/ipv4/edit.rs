//! Changes to an IPv4 header in place. The checksum follows by increments (RFC 1624).

use super::{DONT_FRAGMENT, HEADER_LEN, MORE_FRAGMENTS, OFFSET_MASK};
use crate::checksum;
use crate::ecn::Ecn;

/// Changes the ECN field of the header at the start of `packet`, and adjusts its checksum.
///
/// The header must be valid. Returns `None` if there are fewer than 20 bytes.
#[inline]
pub fn set_ecn(packet: &mut [u8], ecn: Ecn) -> Option<()> {
    let tos = *packet.get(1)?;
    set_tos(packet, (tos & !0b11) | ecn.bits())
}

/// Changes the TOS octet, DSCP and ECN, as [`set_ecn`].
#[inline]
pub fn set_tos(packet: &mut [u8], tos: u8) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    let old = u16::from_be_bytes([header[0], header[1]]);
    header[1] = tos;
    let new = u16::from_be_bytes([header[0], header[1]]);
    adjust_checksum(header, old, new);
    Some(())
}

/// Changes the time to live, in hops, as [`set_ecn`].
#[inline]
pub fn set_ttl(packet: &mut [u8], ttl: u8) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    let old = u16::from_be_bytes([header[8], header[9]]);
    header[8] = ttl;
    let new = u16::from_be_bytes([header[8], header[9]]);
    adjust_checksum(header, old, new);
    Some(())
}

/// Clears DF in the header at the start of `packet`, and adjusts its checksum as [`set_ecn`] does.
/// A datagram that had DF gets `identification`, because its own need not be unique (RFC 6864).
#[inline]
pub fn allow_fragments(packet: &mut [u8], identification: u16) -> Option<()> {
    let header = packet.first_chunk_mut::<HEADER_LEN>()?;
    let old = u16::from_be_bytes([header[6], header[7]]);
    if old & DONT_FRAGMENT == 0 {
        return Some(());
    }
    [header[6], header[7]] = (old & !DONT_FRAGMENT).to_be_bytes();
    adjust_checksum(header, old, old & !DONT_FRAGMENT);
    let old = u16::from_be_bytes([header[4], header[5]]);
    [header[4], header[5]] = identification.to_be_bytes();
    adjust_checksum(header, old, identification);
    Some(())
}

/// Changes the total length and the identification of a header with a valid checksum.
#[inline]
pub(crate) fn set_length_and_id(header: &mut [u8; HEADER_LEN], total_len: u16, identification: u16) {
    let old = u16::from_be_bytes([header[2], header[3]]);
    [header[2], header[3]] = total_len.to_be_bytes();
    adjust_checksum(header, old, total_len);
    let old = u16::from_be_bytes([header[4], header[5]]);
    [header[4], header[5]] = identification.to_be_bytes();
    adjust_checksum(header, old, identification);
}

#[inline]
fn adjust_checksum(header: &mut [u8; HEADER_LEN], old: u16, new: u16) {
    let before = u16::from_be_bytes([header[10], header[11]]);
    [header[10], header[11]] = checksum::update(before, old, new).to_be_bytes();
}

/// Writes the fields in which fragments differ into a header of 20 to 60 bytes, and computes its
/// checksum anew. `offset` is in bytes. Returns `None` if there are fewer than 20 bytes.
pub(crate) fn write_fragment_fields(
    header: &mut [u8],
    total_len: u16,
    offset: u16,
    more_fragments: bool,
) -> Option<()> {
    let header_len = header.len();
    let fixed = header.first_chunk_mut::<HEADER_LEN>()?;
    fixed[0] = 0x40 | (header_len / 4) as u8;
    [fixed[2], fixed[3]] = total_len.to_be_bytes();
    let kept = u16::from_be_bytes([fixed[6], fixed[7]]) & !(OFFSET_MASK | MORE_FRAGMENTS);
    let flag = if more_fragments { MORE_FRAGMENTS } else { 0 };
    [fixed[6], fixed[7]] = (kept | flag | (offset >> 3)).to_be_bytes();
    [fixed[10], fixed[11]] = [0, 0];
    let sum = checksum::checksum(header);
    let fixed = header.first_chunk_mut::<HEADER_LEN>()?;
    [fixed[10], fixed[11]] = sum.to_be_bytes();
    Some(())
}
