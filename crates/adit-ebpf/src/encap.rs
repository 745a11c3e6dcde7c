//! Encapsulation: from the hidden end of the tunnel interface to the underlay.

use adit_policy::{GsoShape, Origin};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};

use crate::counters::{self, Amount};
use crate::mss;
use crate::outer;
use crate::probe;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Bytes that the program reads: the link header, the IPv4 header, and the TCP header up to its
/// flags.
const READ_LEN: usize = ETHERNET + HEADER_LEN + 14;

#[inline(always)]
pub fn encap(skb: Skb) -> Verdict {
    if !skb.is_ipv4() || !skb.is_untagged() {
        return Verdict::Decline;
    }
    // A datagram shorter than `READ_LEN` only needs its IPv4 header.
    if !skb.reach(READ_LEN) && !skb.reach(ETHERNET + HEADER_LEN) {
        return Verdict::Decline;
    }
    try_encap(skb).unwrap_or(Verdict::Decline)
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn try_encap(skb: Skb) -> Option<Verdict> {
    let tables = Tables::open()?;
    let inner = skb.header(ETHERNET)?;
    let shape = shape(skb, &inner)?;
    let peer = match adit_policy::check_encap(&tables, &inner, Origin::Unknown) {
        Ok(peer) => peer,
        Err(refusal) => return Some(Verdict::of(refusal, &inner, shape.segments)),
    };
    // Userspace counts answers to probes apart.
    if probe::may_be_probe(skb, &inner, ETHERNET) {
        return None;
    }
    let entry = tables.open_peer(peer)?;
    if shape.largest > u32::from(entry.path_mtu).saturating_sub(OVERHEAD_V4 as u32) {
        return None;
    }
    if tables.settings.mss_clamp() {
        mss::clamp(skb, &inner, ETHERNET, entry.path_mtu, peer)?;
    }
    let outer = outer::outer(&tables, peer, entry.underlay, &inner, shape)?;
    skb.push_outer()?;
    counters::sent(peer, Amount { segments: shape.segments, bytes: shape.len });
    if skb.set_header(ETHERNET, &outer).is_none() {
        return Some(Verdict::lost(peer, &inner, shape.segments));
    }
    skb.send_to(entry, tables.settings.mark);
    Some(Verdict::Redirect)
}

/// The shape of a packet that is exactly one datagram or one GSO packet, with nothing behind it.
#[inline(always)]
fn shape(skb: Skb, inner: &Ipv4Header) -> Option<GsoShape> {
    let available = skb.len().checked_sub(ETHERNET as u32)?;
    let gso = skb.gso(inner, ETHERNET)?;
    adit_policy::gso_shape(inner, available, gso).filter(|shape| shape.len == available)
}
