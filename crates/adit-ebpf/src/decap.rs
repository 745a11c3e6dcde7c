//! Decapsulation: from the underlay to the host's stack, or on to another peer.

use adit_policy::{Delivery, DropReason, GsoInfo, GsoShape, InnerAddress, PeerIndex, Refusal};
use adit_wire::Protocol;
use adit_wire::ecn::{Ecn, EcnAnomaly};
use adit_wire::ipv4::Ipv4Header;
use adit_wire::ipv6::Ipv6Header;
use adit_wire::tcp;

use crate::counters::{self, Amount};
use crate::header::Header;
use crate::inner::Inner;
use crate::mss;
use crate::outer::Outer;
use crate::passed::Passed;
use crate::relay;
use crate::skb::{ETHERNET, Family, Skb};
use crate::tables::{InnerTables, Tables};
use crate::verdict::Verdict;

/// Offset of the protocol in an IPv4 header, in bytes.
const PROTOCOL_OFFSET: usize = 9;
/// Offset of the next header in an IPv6 header, in bytes.
const NEXT_HEADER_OFFSET: usize = 6;

#[inline(always)]
pub fn decap(skb: Skb) -> Verdict {
    if !skb.is_for_us() {
        return Verdict::Decline;
    }
    // Most packets are not for a tunnel at all.
    if skb.is_of(Family::V4) && skb.reach(ETHERNET + Ipv4Header::LEN) {
        return match skb.byte(ETHERNET + PROTOCOL_OFFSET).map(Protocol) {
            Some(Protocol::IPIP) => decap_v4_in_v4(skb),
            Some(Protocol::IPV6) => decap_v6_in_v4(skb),
            _ => Verdict::Decline,
        };
    }
    if skb.is_of(Family::V6) && skb.reach(ETHERNET + Ipv6Header::LEN) {
        return match skb.byte(ETHERNET + NEXT_HEADER_OFFSET).map(Protocol) {
            Some(Protocol::IPIP) => decap_v4_in_v6(skb),
            Some(Protocol::IPV6) => decap_v6_in_v6(skb),
            Some(Protocol::DESTINATION_OPTIONS | Protocol::FRAGMENT) => decline_extended(skb),
            _ => Verdict::Decline,
        };
    }
    Verdict::Decline
}

// None is inlined: each has a stack of its own, and the compiler shares no registers between them.
// It would copy some that only one of them sets, which the verifier refuses.
#[inline(never)]
fn decap_v4_in_v4(skb: Skb) -> Verdict {
    from_underlay::<Ipv4Header, Ipv4Header>(skb).unwrap_or(Verdict::Decline)
}

#[inline(never)]
fn decap_v6_in_v4(skb: Skb) -> Verdict {
    from_underlay::<Ipv4Header, Ipv6Header>(skb).unwrap_or(Verdict::Decline)
}

#[inline(never)]
fn decap_v4_in_v6(skb: Skb) -> Verdict {
    from_underlay::<Ipv6Header, Ipv4Header>(skb).unwrap_or(Verdict::Decline)
}

#[inline(never)]
fn decap_v6_in_v6(skb: Skb) -> Verdict {
    from_underlay::<Ipv6Header, Ipv6Header>(skb).unwrap_or(Verdict::Decline)
}

/// Declines a packet of IPv6 with an extension header. One of a peer's tunnel is for userspace
/// alone: where the kernel's own driver is loaded, the host's IP input would answer it.
#[inline(never)]
fn decline_extended(skb: Skb) -> Verdict {
    if is_extended_tunnel(skb).unwrap_or(false) {
        skb.leave_to_packet_sockets();
    }
    Verdict::Decline
}

/// Whether a tunnel of a peer begins behind the first extension header, or behind the options that
/// follow a fragment header.
#[inline(always)]
fn is_extended_tunnel(skb: Skb) -> Option<bool> {
    if !skb.reach(<Ipv6Header as Outer>::INNER + 1) {
        return None;
    }
    let outer = Ipv6Header::read(skb, ETHERNET)?;
    let tables = &Tables::open()?;
    let is_tunnel = match Protocol(skb.byte(<Ipv6Header as Outer>::INNER)?) {
        Protocol::IPIP => true,
        Protocol::IPV6 => tables.settings.carries_ipv6(),
        Protocol::DESTINATION_OPTIONS => outer.next_header() == Protocol::FRAGMENT,
        _ => false,
    };
    let from = adit_policy::outer_sender(tables, Outer::source(&outer), Outer::destination(&outer))?;
    Some(is_tunnel && tables.peer(from)?.left_to_stack == 0)
}

/// Returns `None` to decline.
#[inline(always)]
fn from_underlay<O: Outer, I: Inner>(skb: Skb) -> Option<Verdict> {
    let outer = &O::read(skb, ETHERNET)?;
    let tables = &Tables::open()?;
    if I::FAMILY == Family::V6 && !tables.settings.carries_ipv6() {
        return None;
    }
    // An unknown source may be a peer of another overlay on this address. If it is nobody's,
    // userspace drops and counts it.
    let from = adit_policy::outer_sender(tables, outer.source(), outer.destination())?;
    if tables.peer(from)?.left_to_stack != 0 {
        return None;
    }
    // Of a fragment the packet socket makes a datagram.
    if !outer.is_fragment()
        && let Some(verdict) = from_peer::<O, I>(skb, tables, outer, from)
    {
        return Some(verdict);
    }
    skb.leave_to_packet_sockets();
    None
}

/// Returns `None` to decline: the packet is as it came, except that its MSS may be lower.
#[inline(always)]
fn from_peer<O: Outer, I: Inner>(skb: Skb, tables: &Tables, outer: &O, from: PeerIndex) -> Option<Verdict> {
    // A datagram that ends before the flags of TCP only needs its header.
    if !skb.reach(O::INNER + I::LEN + tcp::FLAGS_OFFSET + 1) && !skb.reach(O::INNER + I::LEN) {
        return None;
    }
    let inner = I::read(skb, O::INNER)?;
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
        Err(_) if !tables.are_of_one_state() => return None,
        // Userspace reads what it quotes.
        Err(Refusal {
            reason: DropReason::InnerSourceNotFromPeer | DropReason::InnerDestinationNotOurs,
            ..
        }) if inner.may_be_router_error(skb, O::INNER) => return None,
        // A probe for an address that the peer takes for ours. It shows where the peer is probed.
        Err(Refusal { reason: DropReason::InnerDestinationNotOurs, .. })
            if inner.may_be_probe(skb, O::INNER) =>
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
        Delivery::Here if inner.may_be_probe(skb, O::INNER) => return None,
        Delivery::Here => deliver::<O, I>(skb, tables, &passed)?,
        Delivery::To(to) if tables.settings.relay() => relay::relay::<O, I>(skb, tables, &passed, to)?,
        // The host forwards it back into the tunnel, if its rules let it pass.
        Delivery::To(_) => deliver::<O, I>(skb, tables, &passed)?,
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
fn shape<O: Outer, I: Inner>(skb: Skb, outer: &O, inner: &I) -> Option<GsoShape> {
    let single = GsoInfo { gso_size: 0, transport_header: 0 };
    let outer = outer.shape(skb.len().checked_sub(ETHERNET as u32)?, single)?;
    let available = outer.len.checked_sub(O::LEN as u32)?;
    inner.shape(available, skb.gso(inner.protocol(), O::INNER + I::LEN)?)
}

/// Gives the datagram to the host's stack, through the hidden end.
#[inline(always)]
fn deliver<O: Outer, I: Inner>(skb: Skb, tables: &Tables, passed: &Passed<I>) -> Option<Verdict> {
    let interface = &tables.settings.interface;
    // The visible end would drop it: a peer may have a larger MTU. It can be received directly,
    // which the interface does not count, unless it is in another network namespace.
    let is_too_big = passed.shape.segments == 1 && passed.shape.len > interface.max_datagram;
    // Of IPv6 it is dropped there: only its sender may fragment it.
    if is_too_big && (interface.visible == 0 || I::FAMILY == Family::V6) {
        return None;
    }
    if tables.settings.mss_clamp() {
        // Of the path that our packets take, which may be of the other family.
        mss::clamp(skb, &passed.inner, O::INNER, || tables.room(passed.from), passed.from)?;
    }
    if passed.ecn != Ecn::from_tos(passed.inner.tos()) {
        passed.inner.with_ecn(passed.ecn)?.write(skb, O::INNER)?;
    }
    // If the kernel refuses, userspace repeats all of this: neither the ECN mark nor the MSS
    // changes a second time.
    if !skb.pop_outer(O::FAMILY, I::FAMILY)? || skb.set_addresses(&interface.addresses).is_none() {
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
fn count_marks(from: PeerIndex, outer: &impl Outer, anomaly: Option<EcnAnomaly>, shape: GsoShape) {
    if Ecn::from_tos(outer.tos()) == Ecn::Ce {
        counters::congestion_experienced(from, shape.segments);
    }
    if let Some(anomaly) = anomaly {
        counters::anomaly(anomaly, shape.segments);
    }
}
