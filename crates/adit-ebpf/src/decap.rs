//! Decapsulation: from the underlay to the host's stack, or on to another peer.

use adit_policy::{Delivery, DropReason, GsoInfo, GsoShape, InnerAddress, PeerIndex, Refusal};
use adit_wire::Protocol;
use adit_wire::ecn::{Ecn, EcnAnomaly};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};
use adit_wire::ipv6::Ipv6Header;
use adit_wire::tcp;

use crate::counters::{self, Amount};
use crate::inner::Inner;
use crate::mss;
use crate::passed::{INNER, Passed};
use crate::relay;
use crate::skb::{ETHERNET, Skb};
use crate::tables::{InnerTables, Tables};
use crate::verdict::Verdict;

/// Offset of the protocol in an IPv4 header, in bytes.
const PROTOCOL_OFFSET: usize = 9;

#[inline(always)]
pub fn decap(skb: Skb) -> Verdict {
    if !skb.is_ipv4() || !skb.is_for_us() || !skb.reach(ETHERNET + HEADER_LEN) {
        return Verdict::Decline;
    }
    // Most packets are not for a tunnel at all.
    match skb.byte(ETHERNET + PROTOCOL_OFFSET).map(Protocol) {
        Some(Protocol::IPIP) => decap_v4(skb),
        Some(Protocol::IPV6) => decap_v6(skb),
        _ => Verdict::Decline,
    }
}

// Neither is inlined: each has a stack of its own, and the compiler shares no registers between
// them. It would copy some that only one of them sets, which the verifier refuses.
#[inline(never)]
fn decap_v4(skb: Skb) -> Verdict {
    from_underlay::<Ipv4Header>(skb).unwrap_or(Verdict::Decline)
}

#[inline(never)]
fn decap_v6(skb: Skb) -> Verdict {
    from_underlay::<Ipv6Header>(skb).unwrap_or(Verdict::Decline)
}

/// Returns `None` to decline.
#[inline(always)]
fn from_underlay<I: Inner>(skb: Skb) -> Option<Verdict> {
    let outer = &skb.header(ETHERNET)?;
    let tables = &Tables::open()?;
    if I::IS_V6 && !tables.settings.carries_ipv6() {
        return None;
    }
    // An unknown source may be a peer of another overlay on this address. If it is nobody's,
    // userspace drops and counts it.
    let from = adit_policy::outer_sender(tables, outer)?;
    if tables.peer(from)?.left_to_stack != 0 {
        return None;
    }
    // Of a fragment the packet socket makes a datagram.
    if !outer.is_fragment()
        && let Some(verdict) = from_peer::<I>(skb, tables, outer, from)
    {
        return Some(verdict);
    }
    skb.leave_to_packet_sockets();
    None
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn from_peer<I: Inner>(skb: Skb, tables: &Tables, outer: &Ipv4Header, from: PeerIndex) -> Option<Verdict> {
    // A datagram that ends before the flags of TCP only needs its header.
    if !skb.reach(INNER + I::LEN + tcp::FLAGS_OFFSET + 1) && !skb.reach(INNER + I::LEN) {
        return None;
    }
    let inner = I::read(skb, INNER)?;
    let shape = shape(skb, outer, &inner)?;
    let delivery = match adit_policy::check_decap(tables, from, &inner) {
        Ok(delivery) => delivery,
        // Another overlay may have the same peer: its program or its userspace comes next, and
        // counts what it refuses.
        Err(_) if inner.source().is_of_another_overlay() => return Some(Verdict::Decline),
        // So is the answer to its probe of that peer.
        Err(_)
            if inner.is_icmp()
                && inner.source().on_underlay() == Some(outer.source())
                && tables.has_other_overlays() =>
        {
            return Some(Verdict::Decline);
        }
        // Userspace reads what it quotes.
        Err(Refusal {
            reason: DropReason::InnerSourceNotFromPeer | DropReason::InnerDestinationNotOurs,
            ..
        }) if inner.may_be_router_error(skb, INNER) => return None,
        // A probe for an address that the peer takes for ours. It shows where the peer is probed.
        Err(Refusal { reason: DropReason::InnerDestinationNotOurs, .. })
            if inner.may_be_probe(skb, INNER) =>
        {
            return None;
        }
        Err(refusal) => return Some(Verdict::of(refusal, &inner, shape.segments)),
    };
    // Its other inner fragments may arrive as outer fragments and so pass through userspace. The
    // destination gives up on a datagram whose fragments are overtaken by too many others (Linux:
    // `ipfrag_max_dist`), so all of them take that path.
    if inner.is_fragment() {
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
        Delivery::Here if inner.may_be_probe(skb, INNER) => return None,
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

/// The shape of the inner packet, if both headers are valid and their lengths agree.
#[inline(always)]
fn shape<I: Inner>(skb: Skb, outer: &Ipv4Header, inner: &I) -> Option<GsoShape> {
    let single = GsoInfo { gso_size: 0, transport_header: 0 };
    let outer = adit_policy::gso_shape(outer, skb.len().checked_sub(ETHERNET as u32)?, single)?;
    let available = outer.len.checked_sub(OVERHEAD_V4 as u32)?;
    inner.shape(available, skb.gso(inner.protocol(), INNER + I::LEN)?)
}

/// Gives the datagram to the host's stack, through the hidden end.
#[inline(always)]
fn deliver<I: Inner>(skb: Skb, tables: &Tables, passed: &Passed<I>) -> Option<Verdict> {
    let interface = &tables.settings.interface;
    // The visible end would drop it: a peer may have a larger MTU. It can be received directly,
    // which the interface does not count, unless it is in another network namespace.
    let is_too_big = passed.shape.segments == 1 && passed.shape.len > interface.max_datagram;
    // Of IPv6 it is dropped there: only its sender may fragment it.
    if is_too_big && (interface.visible == 0 || I::IS_V6) {
        return None;
    }
    if tables.settings.mss_clamp() {
        let path_mtu = tables.peer(passed.from)?.path_mtu;
        mss::clamp(skb, &passed.inner, INNER, path_mtu, passed.from)?;
    }
    if passed.ecn != Ecn::from_tos(passed.inner.tos()) {
        passed.inner.with_ecn(passed.ecn)?.write(skb, INNER)?;
    }
    // If the kernel refuses, userspace repeats all of this: neither the ECN mark nor the MSS
    // changes a second time.
    if !I::pop_outer(skb)? || skb.set_addresses(&interface.addresses).is_none() {
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
