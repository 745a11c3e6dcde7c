//! From one peer to another, on a hub. The outer header is written anew in its place: nothing moves, and
//! a GSO packet stays marked as encapsulated, which the kernel would not let us do a second time.

use adit_policy::{Origin, PeerIndex};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{self, Ipv4Header};

use crate::counters::{self, Amount};
use crate::decap::{INNER, Passed, header_bytes};
use crate::encap;
use crate::mss;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// What the host's forwarding and the tunnel's entrance would do. `None`: declined.
#[inline(always)]
pub fn relay(skb: Skb, tables: &Tables, passed: &Passed, to: PeerIndex) -> Option<Verdict> {
    // A last hop is answered by the host (RFC 1812 section 5.3.1).
    if !tables.settings.relay() || passed.inner.ttl() <= 1 {
        return None;
    }
    let inner = forwarded(passed)?;
    // Whatever is refused at the entrance is answered or counted there.
    adit_policy::check_encap(tables, &inner, Origin::Unknown).ok().filter(|peer| *peer == to)?;
    let entry = tables.open_peer(to)?;
    if passed.carried.largest > u32::from(entry.path_mtu).saturating_sub(OVERHEAD_V4 as u32) {
        return None;
    }
    if tables.settings.mss_clamp() {
        // At the exit for the path it came by, at the entrance for the one that it goes by.
        mss::clamp(skb, &inner, INNER, tables.peer(passed.from)?.path_mtu, passed.from)?;
        mss::clamp(skb, &inner, INNER, entry.path_mtu, to)?;
    }
    let outer = encap::outer(tables, to, entry.underlay, &inner, passed.carried)?;
    let inner = header_bytes(&inner)?;
    skb.set_header(INNER, &inner)?;
    if skb.set_header(ETHERNET, &outer).is_none() {
        return Some(Verdict::lost(to, passed.carried.segments));
    }
    counters::sent(to, Amount { segments: passed.carried.segments, bytes: passed.carried.len });
    skb.send_to(entry);
    Some(Verdict::Redirect)
}

/// The inner header, one hop further.
#[inline(always)]
fn forwarded(passed: &Passed) -> Option<Ipv4Header> {
    let mut header = header_bytes(&passed.inner)?;
    let _ = ipv4::set_ecn(&mut header, passed.ecn);
    let _ = ipv4::set_ttl(&mut header, passed.inner.ttl() - 1);
    Some(zerocopy::transmute!(header))
}
