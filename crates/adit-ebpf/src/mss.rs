//! MSS clamping: lowers the maximum segment size that a TCP SYN announces.

use adit_policy::PeerIndex;
use adit_wire::Protocol;
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{self, Ipv4Header};
use adit_wire::tcp::{self, CHECKSUM_OFFSET, MSS_VALUE_OFFSET, MssAnnounced, TcpFlags};

use crate::counters;
use crate::skb::Skb;

/// Lowers the MSS of a SYN to what the path takes. `at` is the offset of its IPv4 header, and
/// `peer` the peer peer path it is. Returns `None` if userspace has to clamp: the MSS option is
/// not the first one.
#[inline(always)]
pub fn clamp(skb: Skb, header: &Ipv4Header, at: usize, path_mtu: u16, peer: PeerIndex) -> Option<()> {
    if header.protocol() != Protocol::TCP || header.fragment_offset() != 0 {
        return Some(());
    }
    let segment = at + ipv4::HEADER_LEN;
    if usize::from(header.total_len()) <= ipv4::HEADER_LEN + tcp::FLAGS_OFFSET {
        // Too short to have flags.
        return Some(());
    }
    if !TcpFlags(skb.byte(segment + tcp::FLAGS_OFFSET)?).contains(TcpFlags::SYN) {
        return Some(());
    }
    let max = path_mtu.saturating_sub((OVERHEAD_V4 + ipv4::HEADER_LEN + tcp::HEADER_LEN) as u16);
    lower(skb, header, segment, max, peer)
}

/// Aligned to 8 bytes, so that the compiler clears it a word at a time.
#[repr(align(8))]
struct Options([u8; 64]);

// Not inlined: SYNs are rare, and this keeps the buffer off the callers' stacks.
#[inline(never)]
fn lower(skb: Skb, header: &Ipv4Header, segment: usize, max: u16, peer: PeerIndex) -> Option<()> {
    let len = tcp::header_len_of(skb.byte(segment + tcp::DATA_OFFSET_OFFSET)?);
    let Options(mut options) = Options([0; 64]);
    if len < tcp::HEADER_LEN || usize::from(header.total_len()) < ipv4::HEADER_LEN + len {
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
