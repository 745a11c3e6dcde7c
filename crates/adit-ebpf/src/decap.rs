//! Out of the tunnel.

use adit_policy::{GsoShape, Delivery, PeerIndex, Refusal, GsoInfo};
use adit_wire::Protocol;
use adit_wire::ecn::Ecn;
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{self, HEADER_LEN, Ipv4Header};
use zerocopy::IntoBytes;

use crate::counters::{self, Amount};
use crate::mss;
use crate::relay;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Where the inner datagram begins.
pub const INNER: usize = ETHERNET + OVERHEAD_V4;
/// Bytes that are looked at: both IPv4 headers, and the TCP header up to its flags.
const LOOKED_AT: usize = INNER + HEADER_LEN + 14;

/// A datagram that the tunnel lets pass.
pub struct Passed {
    pub from: PeerIndex,
    /// The header that it came with.
    pub inner: Ipv4Header,
    pub carried: GsoShape,
    /// What it leaves with.
    pub ecn: Ecn,
}

#[inline(always)]
pub fn decap(skb: Skb) -> Verdict {
    if !skb.is_ipv4() || !skb.is_for_us() || !skb.reach(ETHERNET + HEADER_LEN) {
        return Verdict::Decline;
    }
    try_decap(skb).unwrap_or(Verdict::Decline)
}

/// `None`: it is no datagram of a peer's.
#[inline(always)]
fn try_decap(skb: Skb) -> Option<Verdict> {
    let outer = skb.header(ETHERNET)?;
    // Most of what comes is not for a tunnel at all.
    if outer.protocol() != Protocol::IPIP {
        return None;
    }
    let tables = Tables::open()?;
    let carried = match adit_policy::check_outer(&tables, &outer) {
        Ok(from) => carry(skb, &tables, &outer, from),
        // A peer's, and for packet sockets to put together.
        Err(Refusal { peer: Some(_), .. }) => None,
        // A stranger's may be another overlay's; if it is nobody's, userspace drops and counts it.
        Err(_) => return None,
    };
    if carried.is_none() {
        skb.leave_to_packet_sockets();
    }
    carried
}

/// `None`: declined, and the packet is as it came but for a lowered MSS.
#[inline(always)]
fn carry(skb: Skb, tables: &Tables, outer: &Ipv4Header, from: PeerIndex) -> Option<Verdict> {
    if !skb.reach(LOOKED_AT) && !skb.reach(INNER + HEADER_LEN) {
        return None;
    }
    let inner = skb.header(INNER)?;
    let carried = carried(skb, outer, &inner)?;
    let delivery = match adit_policy::check_decap(tables, from, &inner) {
        Ok(delivery) => delivery,
        Err(refusal) => return Some(Verdict::of(refusal, carried.segments)),
    };
    // The rest of its datagram may come in outer fragments, through userspace. What overtakes it by too much
    // is not put together any more at its destination (Linux: `ipfrag_max_dist`).
    if inner.more_fragments() || inner.fragment_offset() != 0 {
        return None;
    }
    let (ecn, anomaly) = adit_policy::decap_ecn(from, Ecn::from_tos(outer.tos()), Ecn::from_tos(inner.tos()));
    let ecn = match ecn {
        Ok(ecn) => ecn,
        Err(refusal) => {
            count_marks(from, outer, anomaly, carried);
            return Some(Verdict::of(refusal, carried.segments));
        }
    };
    let passed = Passed { from, inner, carried, ecn };
    let verdict = match delivery {
        Delivery::Here => deliver(skb, tables, &passed)?,
        Delivery::To(to) => relay::relay(skb, tables, &passed, to)?,
        // The answer to a probe, most likely.
        Delivery::HereFromGateway => return None,
    };
    tables.heard(from);
    counters::received(from, Amount { segments: carried.segments, bytes: carried.len }, outer.ttl());
    count_marks(from, outer, anomaly, carried);
    Some(verdict)
}

/// Both headers checked, and lengths that fit into each other.
#[inline(always)]
fn gso_shape(skb: Skb, outer: &Ipv4Header, inner: &Ipv4Header) -> Option<GsoShape> {
    let one = GsoInfo { gso_size: 0, transport_header: 0 };
    let outer = adit_policy::gso_shape(outer, skb.len().checked_sub(ETHERNET as u32)?, one)?;
    let available = outer.len.checked_sub(OVERHEAD_V4 as u32)?;
    adit_policy::gso_shape(inner, available, skb.gso_packet(inner, INNER)?)
}

/// To the host's own stack.
#[inline(always)]
fn deliver(skb: Skb, tables: &Tables, passed: &Passed) -> Option<Verdict> {
    if tables.settings.mss_clamp() {
        let path_mtu = tables.peer(passed.from)?.path_mtu;
        mss::clamp(skb, &passed.inner, INNER, path_mtu, passed.from)?;
    }
    if passed.ecn != Ecn::from_tos(passed.inner.tos()) {
        let mut header = header_bytes(&passed.inner)?;
        let _ = ipv4::set_ecn(&mut header, passed.ecn);
        skb.set_header(INNER, &header)?;
    }
    // Where the kernel refuses, userspace does the same once more, mark and MSS unchanged by it.
    skb.pop_outer()?;
    skb.receive_on(tables.settings.device);
    Some(Verdict::Redirect)
}

#[inline(always)]
pub fn header_bytes(header: &Ipv4Header) -> Option<[u8; HEADER_LEN]> {
    header.as_bytes().first_chunk().copied()
}

#[inline(always)]
fn count_marks(
    from: PeerIndex,
    outer: &Ipv4Header,
    anomaly: Option<adit_wire::ecn::EcnAnomaly>,
    carried: GsoShape,
) {
    if Ecn::from_tos(outer.tos()) == Ecn::Ce {
        counters::congestion_experienced(from, carried.segments);
    }
    if let Some(anomaly) = anomaly {
        counters::anomaly(anomaly, carried.segments);
    }
}
