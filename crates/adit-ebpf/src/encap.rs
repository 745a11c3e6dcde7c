//! Into the tunnel.

use adit_policy::{GsoShape, Origin, PeerIndex};
use adit_wire::encapsulation::{OVERHEAD_V4, OuterHeader};
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};

use crate::counters::{self, Amount};
use crate::mss;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Where the datagram begins: 0 on the tunnel's device, which has no link header. Tests that run a
/// program by itself cannot make such a packet, and set it to 14.
#[unsafe(no_mangle)]
static INNER_OFFSET: u32 = 0;

/// Bytes that are looked at: the IPv4 header, and the TCP header up to its flags.
const LOOKED_AT: usize = HEADER_LEN + 14;

#[inline(always)]
pub fn encap(skb: Skb) -> Verdict {
    // SAFETY: a constant of the program, set before it is loaded; the compiler must not know its value.
    let offset = unsafe { core::ptr::read_volatile(&raw const INNER_OFFSET) } as usize;
    if !skb.is_ipv4() {
        return Verdict::Decline;
    }
    // Shorter ones are looked at as far as they go.
    if !skb.reach(offset + LOOKED_AT) && !skb.reach(offset + HEADER_LEN) {
        return Verdict::Decline;
    }
    try_encap(skb, offset).unwrap_or(Verdict::Decline)
}

/// `None`: declined, and the packet is as it came but for a lowered MSS.
#[inline(always)]
fn try_encap(skb: Skb, offset: usize) -> Option<Verdict> {
    let tables = Tables::open()?;
    let inner = skb.header(offset)?;
    let carried = whole(skb, &inner, offset)?;
    let peer = match adit_policy::check_encap(&tables, &inner, Origin::Unknown) {
        Ok(peer) => peer,
        Err(refusal) => return Some(Verdict::of(refusal, carried.segments)),
    };
    let entry = tables.open_peer(peer)?;
    if carried.largest > u32::from(entry.path_mtu).saturating_sub(OVERHEAD_V4 as u32) {
        return None;
    }
    if tables.settings.mss_clamp() {
        mss::clamp(skb, &inner, offset, entry.path_mtu, peer)?;
    }
    let outer = outer(&tables, peer, entry.underlay, &inner, carried)?;
    skb.push_outer()?;
    counters::sent(peer, Amount { segments: carried.segments, bytes: carried.len });
    let link = if offset == 0 { skb.push_ethernet() } else { Some(()) };
    if link.and_then(|()| skb.set_header(ETHERNET, &outer)).is_none() {
        return Some(Verdict::lost(peer, carried.segments));
    }
    skb.send_to(entry);
    Some(Verdict::Redirect)
}

/// One datagram, or a GSO packet, and nothing after it.
#[inline(always)]
fn whole(skb: Skb, inner: &Ipv4Header, offset: usize) -> Option<GsoShape> {
    let available = skb.len().checked_sub(offset as u32)?;
    let gso_packet = skb.gso_packet(inner, offset)?;
    adit_policy::gso_shape(inner, available, gso_packet).filter(|carried| carried.len == available)
}

/// The outer header for a datagram to `peer`, or for all of a GSO packet: the kernel writes the lengths
/// of what it cuts.
#[inline(always)]
pub fn outer(
    tables: &Tables,
    peer: PeerIndex,
    underlay: [u8; 4],
    inner: &Ipv4Header,
    carried: GsoShape,
) -> Option<[u8; HEADER_LEN]> {
    let policy = tables.settings.policy();
    let df = inner.dont_fragment();
    // RFC 6864 section 4.1: with DF set, any identification will do.
    let identification = if policy.df || df { 0 } else { tables.identifications(peer, carried.segments) };
    let header = OuterHeader::v4(
        &policy,
        core::net::Ipv4Addr::from_octets(tables.settings.underlay),
        core::net::Ipv4Addr::from_octets(underlay),
        inner.tos(),
        inner.ttl(),
        df,
        carried.len as usize,
        identification,
    )?;
    header.as_v4()
}
