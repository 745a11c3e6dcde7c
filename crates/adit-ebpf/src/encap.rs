//! Encapsulation: from the tunnel interface to the underlay.

use adit_policy::{GsoShape, Origin};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};

use crate::counters::{self, Amount};
use crate::mss;
use crate::outer;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Offset of the datagram in the packet, in bytes: 0 on the tunnel interface, which has no link
/// header. Test runs cannot make such a packet and set it to 14.
#[unsafe(no_mangle)]
static INNER_OFFSET: u32 = 0;

/// Bytes that the program reads: the IPv4 header, and the TCP header up to its flags.
const READ_LEN: usize = HEADER_LEN + 14;

#[inline(always)]
pub fn encap(skb: Skb) -> Verdict {
    // SAFETY: a constant of the program, set before it is loaded. The volatile read keeps the
    // compiler from assuming the value above.
    let offset = unsafe { core::ptr::read_volatile(&raw const INNER_OFFSET) } as usize;
    if !skb.is_ipv4() {
        return Verdict::Decline;
    }
    // A datagram shorter than `READ_LEN` only needs its IPv4 header.
    if !skb.reach(offset + READ_LEN) && !skb.reach(offset + HEADER_LEN) {
        return Verdict::Decline;
    }
    try_encap(skb, offset).unwrap_or(Verdict::Decline)
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn try_encap(skb: Skb, offset: usize) -> Option<Verdict> {
    let tables = Tables::open()?;
    let inner = skb.header(offset)?;
    let shape = shape(skb, &inner, offset)?;
    let peer = match adit_policy::check_encap(&tables, &inner, Origin::Unknown) {
        Ok(peer) => peer,
        Err(refusal) => return Some(Verdict::of(refusal, shape.segments)),
    };
    let entry = tables.open_peer(peer)?;
    if shape.largest > u32::from(entry.path_mtu).saturating_sub(OVERHEAD_V4 as u32) {
        return None;
    }
    if tables.settings.mss_clamp() {
        mss::clamp(skb, &inner, offset, entry.path_mtu, peer)?;
    }
    let outer = outer::outer(&tables, peer, entry.underlay, &inner, shape)?;
    skb.push_outer()?;
    counters::sent(peer, Amount { segments: shape.segments, bytes: shape.len });
    let link = if offset == 0 { skb.push_ethernet() } else { Some(()) };
    if link.and_then(|()| skb.set_header(ETHERNET, &outer)).is_none() {
        return Some(Verdict::lost(peer, shape.segments));
    }
    skb.send_to(entry);
    Some(Verdict::Redirect)
}

/// The shape of a packet that is exactly one datagram or one GSO packet, with nothing behind it.
#[inline(always)]
fn shape(skb: Skb, inner: &Ipv4Header, offset: usize) -> Option<GsoShape> {
    let available = skb.len().checked_sub(offset as u32)?;
    let gso = skb.gso(inner, offset)?;
    adit_policy::gso_shape(inner, available, gso).filter(|shape| shape.len == available)
}
