//! Encapsulation: from the hidden end of the tunnel interface to the underlay.

use adit_policy::bpf::maps::Form;
use adit_policy::{GsoShape, Origin, PeerIndex};
use adit_wire::ipv4::Ipv4Header;
use adit_wire::ipv6::Ipv6Header;
use adit_wire::tcp;

use crate::counters::{self, Amount};
use crate::inner::Inner;
use crate::mss;
use crate::outer::Outer;
use crate::skb::{ETHERNET, Family, Skb};
use crate::tables::{Path, Tables};
use crate::verdict::Verdict;

#[inline(always)]
pub fn encap(skb: Skb) -> Verdict {
    if !skb.is_untagged() {
        return Verdict::Decline;
    }
    if skb.is_of(Family::V4) {
        return encap_v4(skb);
    }
    if skb.is_of(Family::V6) {
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
        Err(_) if !tables.are_of_one_state() => return None,
        Err(refusal) => return Some(Verdict::of(refusal, &inner, shape.segments)),
    };
    // Userspace counts answers to probes apart.
    if inner.may_be_probe(skb, ETHERNET) {
        return None;
    }
    let path = tables.open_path(peer)?;
    if shape.largest > path.room().into() {
        return None;
    }
    if tables.settings.mss_clamp() {
        mss::clamp(skb, &inner, ETHERNET, || Some(path.room()), peer)?;
    }
    match path.entry.form() {
        Form::InIpv4 => send::<Ipv4Header, I>(skb, &tables, peer, path, &inner, shape),
        Form::InIpv6 => send::<Ipv6Header, I>(skb, &tables, peer, path, &inner, shape),
    }
}

#[inline(always)]
fn send<O: Outer, I: Inner>(
    skb: Skb,
    tables: &Tables,
    peer: PeerIndex,
    path: Path,
    inner: &I,
    shape: GsoShape,
) -> Option<Verdict> {
    let outer = O::encapsulate(skb, tables, peer, path.entry, inner, shape, ETHERNET)?;
    skb.push_outer(O::FAMILY)?;
    counters::sent(peer, Amount { segments: shape.segments, bytes: shape.len });
    if outer.write(skb, ETHERNET).is_none() {
        return Some(Verdict::lost(peer, inner, shape.segments));
    }
    skb.send_to(path.entry.device, O::next_hop(path.entry), tables.settings.mark);
    Some(Verdict::Redirect)
}

/// The shape of a packet that is exactly one datagram or one GSO packet, with nothing behind it.
#[inline(always)]
fn shape<I: Inner>(skb: Skb, inner: &I) -> Option<GsoShape> {
    let available = skb.len().checked_sub(ETHERNET as u32)?;
    let gso = skb.gso(inner.protocol(), ETHERNET + I::LEN)?;
    inner.shape(available, gso).filter(|shape| shape.len == available)
}
