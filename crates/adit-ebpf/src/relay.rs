//! The relay of a hub: from one peer to another. It rewrites the outer header in place. Nothing
//! moves, and a GSO packet stays marked as encapsulated, a mark that the kernel does not let a
//! program set a second time.

use adit_policy::{Origin, PeerIndex};

use crate::counters::{self, Amount};
use crate::inner::Inner;
use crate::mss;
use crate::outer::Outer;
use crate::passed::Passed;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Does what the host's forwarding and a new encapsulation would do. Returns `None` to decline, as
/// it does for a peer that is reached over the other family: a longer header has no room here.
#[inline(always)]
pub fn relay<O: Outer, I: Inner>(
    skb: Skb,
    tables: &Tables,
    passed: &Passed<I>,
    to: PeerIndex,
) -> Option<Verdict> {
    // The host answers a datagram that has reached its last hop (RFC 1812 section 5.3.1).
    if passed.inner.hops_left() <= 1 {
        return None;
    }
    let inner = passed.inner.with_ecn(passed.ecn)?.after_hop()?;
    // A refusal is for userspace, which answers or counts it.
    adit_policy::check_encap(tables, &inner, Origin::Unknown).ok().filter(|peer| *peer == to)?;
    let path = tables.open_path(to).filter(|path| path.entry.form() == O::FORM)?;
    if passed.shape.largest > path.room().into() {
        return None;
    }
    if tables.settings.mss_clamp() {
        // Decapsulation clamps to the path it came by, encapsulation to the path it leaves by.
        mss::clamp(skb, &inner, O::INNER, || tables.room(passed.from), passed.from)?;
        mss::clamp(skb, &inner, O::INNER, || Some(path.room()), to)?;
    }
    let outer = O::encapsulate(skb, tables, to, path.entry, &inner, passed.shape, O::INNER)?;
    inner.write(skb, O::INNER)?;
    if outer.write(skb, ETHERNET).is_none() {
        return Some(Verdict::lost(to, &passed.inner, passed.shape.segments));
    }
    counters::sent(to, Amount { segments: passed.shape.segments, bytes: passed.shape.len });
    skb.send_to(path.entry.device, O::next_hop(path.entry), tables.settings.mark);
    Some(Verdict::Redirect)
}
