//! MSS clamping: lowers the maximum segment size that a TCP SYN announces.

use adit_policy::PeerIndex;
use adit_wire::Protocol;
use adit_wire::tcp::{self, CHECKSUM_OFFSET, MSS_VALUE_OFFSET, MssAnnounced, TcpFlags};

use crate::counters;
use crate::inner::Inner;
use crate::skb::Skb;

/// Lowers the MSS of a SYN to what a path takes: `room` are the bytes of its largest inner packet.
/// `at` is the offset of the IP header, and `peer` the peer whose path it is. Returns `None` if
/// userspace has to clamp: the MSS option is not the first one.
#[inline(always)]
pub fn clamp<I: Inner>(
    skb: Skb,
    header: &I,
    at: usize,
    room: impl FnOnce() -> Option<u16>,
    peer: PeerIndex,
) -> Option<()> {
    if header.protocol() != Protocol::TCP || !header.has_transport_header() {
        return Some(());
    }
    let segment = at + I::LEN;
    let len = header.len().saturating_sub(I::LEN as u32);
    if len <= tcp::FLAGS_OFFSET as u32 {
        // Too short to have flags.
        return Some(());
    }
    if !TcpFlags(skb.byte(segment + tcp::FLAGS_OFFSET)?).contains(TcpFlags::SYN) {
        return Some(());
    }
    let max = room()?.saturating_sub((I::LEN + tcp::HEADER_LEN) as u16);
    lower(skb, len, segment, max, peer)
}

/// Aligned to 8 bytes, so that the compiler clears it a word at a time.
#[repr(align(8))]
struct Options([u8; 64]);

// Not inlined: SYNs are rare, and this keeps the buffer off the callers' stacks.
#[inline(never)]
fn lower(skb: Skb, segment_len: u32, segment: usize, max: u16, peer: PeerIndex) -> Option<()> {
    let len = tcp::header_len_of(skb.byte(segment + tcp::DATA_OFFSET_OFFSET)?);
    let Options(mut options) = Options([0; 64]);
    if len < tcp::HEADER_LEN || (segment_len as usize) < len {
        // Malformed: there is no option to lower.
        return Some(());
    }
    skb.load(segment, &mut options, len)?;
    match tcp::mss_announced(options.first_chunk()?) {
        MssAnnounced::First(value) if value > max => {
            skb.set_word(segment + MSS_VALUE_OFFSET, segment + CHECKSUM_OFFSET, value, max)?;
            counters::mss_clamped(peer);
            Some(())
        }
        MssAnnounced::First(_) | MssAnnounced::Nowhere => Some(()),
        MssAnnounced::Elsewhere => None,
    }
}
