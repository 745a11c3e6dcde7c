//! Encapsulation: from the hidden end of the tunnel interface to the underlay.

use adit_policy::{GsoShape, Origin};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::Ipv4Header;
use adit_wire::ipv6::Ipv6Header;
use adit_wire::tcp;

use crate::counters::{self, Amount};
use crate::inner::Inner;
use crate::mss;
use crate::outer;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

#[inline(always)]
pub fn encap(skb: Skb) -> Verdict {
    if !skb.is_untagged() {
        return Verdict::Decline;
    }
    if skb.is_ipv4() {
        return encap_v4(skb);
    }
    if skb.is_ipv6() {
        return encap_v6(skb);
    }
    Verdict::Decline
}

// Neither is inlined, as in `decap`.
#[inline(never)]
fn encap_v4(skb: Skb) -> Verdict {
    encap_inner::<Ipv4Header>(skb)
}

#[inline(never)]
fn encap_v6(skb: Skb) -> Verdict {
    encap_inner::<Ipv6Header>(skb)
}

#[inline(always)]
fn encap_inner<I: Inner>(skb: Skb) -> Verdict {
    // A datagram that ends before the flags of TCP only needs its header.
    if !skb.reach(ETHERNET + I::LEN + tcp::FLAGS_OFFSET + 1) && !skb.reach(ETHERNET + I::LEN) {
        return Verdict::Decline;
    }
    try_encap::<I>(skb).unwrap_or(Verdict::Decline)
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn try_encap<I: Inner>(skb: Skb) -> Option<Verdict> {
    let tables = Tables::open()?;
    let inner = I::read(skb, ETHERNET)?;
    let shape = shape(skb, &inner)?;
    let peer = match adit_policy::check_encap(&tables, &inner, Origin::Unknown) {
        Ok(peer) => peer,
        Err(refusal) => return Some(Verdict::of(refusal, &inner, shape.segments)),
    };
    // Userspace counts answers to probes apart.
    if inner.may_be_probe(skb, ETHERNET) {
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
fn shape<I: Inner>(skb: Skb, inner: &I) -> Option<GsoShape> {
    let available = skb.len().checked_sub(ETHERNET as u32)?;
    let gso = skb.gso(inner.protocol(), ETHERNET + I::LEN)?;
    inner.shape(available, gso).filter(|shape| shape.len == available)
}
