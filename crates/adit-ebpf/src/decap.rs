//! Decapsulation: from the underlay to the host's stack, or on to another peer.

use adit_policy::{Delivery, DropReason, GsoInfo, GsoShape, PeerIndex, Refusal};
use adit_wire::Protocol;
use adit_wire::ecn::{Ecn, EcnAnomaly};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{self, HEADER_LEN, Ipv4Header};

use crate::counters::{self, Amount};
use crate::mss;
use crate::passed::{INNER, Passed, header_bytes};
use crate::probe;
use crate::relay;
use crate::skb::{ETHERNET, Skb};
use crate::tables::Tables;
use crate::verdict::Verdict;

/// Bytes that the program reads: both IPv4 headers, and the TCP header up to its flags.
const READ_LEN: usize = INNER + HEADER_LEN + 14;

#[inline(always)]
pub fn decap(skb: Skb) -> Verdict {
    if !skb.is_ipv4() || !skb.is_for_us() || !skb.reach(ETHERNET + HEADER_LEN) {
        return Verdict::Decline;
    }
    try_decap(skb).unwrap_or(Verdict::Decline)
}

/// Returns `None` to decline.
#[inline(always)]
fn try_decap(skb: Skb) -> Option<Verdict> {
    let outer = skb.header(ETHERNET)?;
    // Most packets are not for a tunnel at all.
    let is_v6 = match outer.protocol() {
        Protocol::IPIP => false,
        Protocol::IPV6 => true,
        _ => return None,
    };
    let tables = Tables::open()?;
    if is_v6 && !tables.settings.carries_ipv6() {
        return None;
    }
    // Each arm decides by itself: for a value joined of several arms the compiler copies a register
    // that some of them do not set, which the verifier refuses.
    let is_left = |from| tables.peer(from).is_none_or(|entry| entry.left_to_stack != 0);
    let verdict = match adit_policy::check_outer(&tables, &outer) {
        Ok(from) if is_left(from) => return None,
        Ok(_) if is_v6 => None,
        Ok(from) => from_peer(skb, &tables, &outer, from),
        Err(Refusal { peer: Some(from), .. }) if is_left(from) => return None,
        // A fragment from a peer: the packet socket reassembles.
        Err(Refusal { peer: Some(_), .. }) => None,
        // An unknown source may be a peer of another overlay on this address. If it is nobody's,
        // userspace drops and counts it.
        Err(_) => return None,
    };
    if verdict.is_none() {
        skb.leave_to_packet_sockets();
    }
    verdict
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn from_peer(skb: Skb, tables: &Tables, outer: &Ipv4Header, from: PeerIndex) -> Option<Verdict> {
    if !skb.reach(READ_LEN) && !skb.reach(INNER + HEADER_LEN) {
        return None;
    }
    let inner = skb.header(INNER)?;
    let shape = shape(skb, outer, &inner)?;
    let delivery = match adit_policy::check_decap(tables, from, &inner) {
        Ok(delivery) => delivery,
        // Another overlay may have the same peer: its program or its userspace comes next, and
        // counts what it refuses.
        Err(_) if tables.is_of_another_overlay(inner.source()) => return Some(Verdict::Decline),
        // So is the answer to its probe of that peer.
        Err(_)
            if inner.protocol() == Protocol::ICMP
                && inner.source() == outer.source()
                && tables.has_other_overlays() =>
        {
            return Some(Verdict::Decline);
        }
        // Userspace reads what it quotes.
        Err(Refusal {
            reason: DropReason::InnerSourceNotFromPeer | DropReason::InnerDestinationNotOurs, ..
        }) if is_router_error(skb, &inner) => return None,
        // A probe for an address that the peer takes for ours. It shows where the peer is probed.
        Err(Refusal { reason: DropReason::InnerDestinationNotOurs, .. })
            if probe::may_be_probe(skb, &inner, INNER) =>
        {
            return None;
        }
        Err(refusal) => return Some(Verdict::of(refusal, &inner, shape.segments)),
    };
    // Its other inner fragments may arrive as outer fragments and so pass through userspace. The
    // destination gives up on a datagram whose fragments are overtaken by too many others (Linux:
    // `ipfrag_max_dist`), so all of them take that path.
    if inner.more_fragments() || inner.fragment_offset() != 0 {
        return None;
    }
    let (ecn, anomaly) = adit_policy::decap_ecn(from, Ecn::from_tos(outer.tos()), Ecn::from_tos(inner.tos()));
    let ecn = match ecn {
        Ok(ecn) => ecn,
        Err(refusal) => {
            count_marks(from, outer, anomaly, shape);
            return Some(Verdict::of(refusal, &inner, shape.segments));
        }
    };
    let passed = Passed { from, inner, shape, ecn };
    let verdict = match delivery {
        Delivery::Here if probe::may_be_probe(skb, &inner, INNER) => return None,
        Delivery::Here => deliver(skb, tables, &passed)?,
        Delivery::To(to) if tables.settings.relay() => relay::relay(skb, tables, &passed, to)?,
        // The host forwards it back into the tunnel, if its rules let it pass.
        Delivery::To(_) => deliver(skb, tables, &passed)?,
        // Most likely a probe or the answer to one, which userspace counts apart.
        Delivery::HereFromGateway | Delivery::HereToGateway => return None,
    };
    tables.mark_reachable(from);
    counters::received(from, Amount { segments: shape.segments, bytes: shape.len }, outer.ttl());
    count_marks(from, outer, anomaly, shape);
    Some(verdict)
}

/// Whether the inner datagram may be an error from a router with an unlisted address.
#[inline(always)]
fn is_router_error(skb: Skb, header: &Ipv4Header) -> bool {
    skb.byte(INNER + HEADER_LEN).is_some_and(|kind| adit_policy::may_be_router_error(header, kind))
}

/// The shape of the inner packet, if both headers are valid and their lengths agree.
#[inline(always)]
fn shape(skb: Skb, outer: &Ipv4Header, inner: &Ipv4Header) -> Option<GsoShape> {
    let single = GsoInfo { gso_size: 0, transport_header: 0 };
    let outer = adit_policy::gso_shape(outer, skb.len().checked_sub(ETHERNET as u32)?, single)?;
    let available = outer.len.checked_sub(OVERHEAD_V4 as u32)?;
    adit_policy::gso_shape(inner, available, skb.gso(inner, INNER)?)
}

/// Gives the datagram to the host's stack, through the hidden end.
#[inline(always)]
fn deliver(skb: Skb, tables: &Tables, passed: &Passed) -> Option<Verdict> {
    let interface = &tables.settings.interface;
    // The visible end would drop it: a peer may have a larger MTU. It can be received directly,
    // which the interface does not count, unless it is in another network namespace.
    let is_too_big = passed.shape.segments == 1 && passed.shape.len > interface.max_datagram;
    if is_too_big && interface.visible == 0 {
        return None;
    }
    if tables.settings.mss_clamp() {
        let path_mtu = tables.peer(passed.from)?.path_mtu;
        mss::clamp(skb, &passed.inner, INNER, path_mtu, passed.from)?;
    }
    if passed.ecn != Ecn::from_tos(passed.inner.tos()) {
        let mut header = header_bytes(&passed.inner)?;
        let _ = ipv4::set_ecn(&mut header, passed.ecn);
        skb.set_header(INNER, &header)?;
    }
    // If the kernel refuses, userspace repeats all of this: neither the ECN mark nor the MSS
    // changes a second time.
    skb.pop_outer()?;
    if skb.set_addresses(&interface.addresses).is_none() {
        return Some(Verdict::lost(passed.from, &passed.inner, passed.shape.segments));
    }
    if is_too_big {
        skb.receive_on(interface.visible);
    } else {
        skb.transmit_on(interface.hidden);
    }
    Some(Verdict::Redirect)
}

#[inline(always)]
fn count_marks(from: PeerIndex, outer: &Ipv4Header, anomaly: Option<EcnAnomaly>, shape: GsoShape) {
    if Ecn::from_tos(outer.tos()) == Ecn::Ce {
        counters::congestion_experienced(from, shape.segments);
    }
    if let Some(anomaly) = anomaly {
        counters::anomaly(anomaly, shape.segments);
    }
}
