//! The relay of a hub: from one peer to another. It rewrites the outer header in place. Nothing
//! moves, and a GSO packet stays marked as encapsulated, a mark that the kernel does not let a
//! program set a second time.

use adit_policy::{Origin, PeerIndex};
use adit_wire::encapsulation::OVERHEAD_V4;

use crate::counters::{self, Amount};
use crate::inner::Inner;
use crate::mss;
use crate::outer;
use crate::passed::{INNER, Passed};
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Does what the host's forwarding and a new encapsulation would do. Returns `None` to decline.
#[inline(always)]
pub fn relay<I: Inner>(skb: Skb, tables: &Tables, passed: &Passed<I>, to: PeerIndex) -> Option<Verdict> {
    // The host answers a datagram that has reached its last hop (RFC 1812 section 5.3.1).
    if passed.inner.hops_left() <= 1 {
        return None;
    }
    let inner = passed.inner.with_ecn(passed.ecn)?.after_hop()?;
    // A refusal is for userspace, which answers or counts it.
    adit_policy::check_encap(tables, &inner, Origin::Unknown).ok().filter(|peer| *peer == to)?;
    let entry = tables.open_peer(to)?;
    if passed.shape.largest > u32::from(entry.path_mtu).saturating_sub(OVERHEAD_V4 as u32) {
        return None;
    }
    if tables.settings.mss_clamp() {
        // Decapsulation clamps to the path it came by, encapsulation to the path it leaves by.
        mss::clamp(skb, &inner, INNER, tables.peer(passed.from)?.path_mtu, passed.from)?;
        mss::clamp(skb, &inner, INNER, entry.path_mtu, to)?;
    }
    let outer = outer::outer(tables, to, entry.underlay, &inner, passed.shape)?;
    inner.write(skb, INNER)?;
    if skb.set_header(ETHERNET, &outer).is_none() {
        return Some(Verdict::lost(to, &passed.inner, passed.shape.segments));
    }
    counters::sent(to, Amount { segments: passed.shape.segments, bytes: passed.shape.len });
    skb.send_to(entry, tables.settings.mark);
    Some(Verdict::Redirect)
}
