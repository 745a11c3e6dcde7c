//! The encapsulator for inner packets of IPv6 (RFC 4213 section 3, RFC 2473).
//!
//! The rules about addresses are those of IPv4. What is different: no router fragments an IPv6
//! packet, and no path may be narrower than 1280 bytes. A longer packet that does not fit is
//! refused. One of at most 1280 bytes is carried whatever the path leaves, in outer fragments.

use adit_policy::{DropReason, OwnerLookup, PeerIndex, Refusal, SenderError};
use adit_wire::encapsulation::{LIMIT_LEN, OuterPolicy};
use adit_wire::icmpv4::EchoKind;
use adit_wire::icmpv6::{self, Icmpv6Error, types};
use adit_wire::ipv6::{self, Ipv6Packet, MIN_MTU, extension};
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::encapsulate::{Encapsulated, Inner, refusal_counted};
use crate::icmp_reply::Reply;
use crate::last_drop::Dropped;
use crate::probe;
use crate::router_error::quoted_v6;
use crate::time::Instant;
use crate::tunnel::{PeerState, Tunnel, mss_of_syn};

impl Tunnel {
    /// As [`Tunnel::encapsulate`].
    pub(crate) fn encapsulate_v6(
        &self,
        inner: &Inner<'_>,
        now: Instant,
        counters: &Counters,
    ) -> Encapsulated {
        let Some(packet) = parse(inner) else {
            let reason = DropReason::InnerMalformed;
            counters.count_drop(reason, Dropped::datagram(inner.bytes, now), 1);
            return Encapsulated::Drop(reason);
        };
        let admitted = self.admit_v6(inner, &packet, now).and_then(|peer| {
            let unknown = Refusal::silent(DropReason::InnerDestinationUnknown, None);
            let state = self.peer_state(peer).ok_or(unknown)?;
            if state.soft.has_pending() {
                report_pending(peer, state, &packet, now)?;
            }
            self.forward_v6(peer, state, inner, &packet, now)
        });
        match admitted {
            Ok((peer, verdict)) => {
                if packet.next_header() == Protocol::ICMPV6 && self.is_answer_to_probe_v6(&packet) {
                    counters.count_probe_replied();
                } else {
                    counters.count_tx(peer, u64::from(inner.segments), inner.bytes.len() as u64);
                }
                verdict
            }
            Err(refused) => {
                let dropped = Dropped::at(now).from(packet.source()).of_peer(refused.peer);
                let answer = |error: SenderError| self.answer_v6(refused.peer, &packet, error.to_v6(), now);
                refusal_counted(&refused, answer, inner, dropped, counters)
            }
        }
    }

    /// Checks who sends what to whom.
    #[inline]
    fn admit_v6(
        &self,
        inner: &Inner<'_>,
        packet: &Ipv6Packet<'_>,
        now: Instant,
    ) -> Result<PeerIndex, Refusal> {
        match adit_policy::check_encap(self, packet.fixed_header(), inner.origin) {
            Err(Refusal { reason: DropReason::InnerSourceDenied, peer: Some(peer), .. })
                if self.is_from_own_stack_v6(packet) =>
            {
                Ok(peer)
            }
            Err(refusal) if refusal.reason == DropReason::InnerSourceDenied => {
                self.router_error_out(packet.fixed_header(), quoted_v6(packet), now).unwrap_or(Err(refusal))
            }
            verdict => verdict,
        }
    }

    /// Returns true if the stack of this gateway answers a peer's probe.
    #[cold]
    fn is_answer_to_probe_v6(&self, packet: &Ipv6Packet<'_>) -> bool {
        probe::has_form(packet, EchoKind::Reply) && self.is_local(packet.source())
    }

    /// As [`Tunnel::is_from_own_stack`].
    #[cold]
    fn is_from_own_stack_v6(&self, packet: &Ipv6Packet<'_>) -> bool {
        let kind = packet.payload().first().copied().filter(|_| packet.next_header() == Protocol::ICMPV6);
        self.config.underlay.contains(packet.source().into())
            && kind.is_some_and(|kind| kind == types::ECHO_REPLY || icmpv6::is_error(kind))
    }

    /// The outer header, unless the packet is too big for the path (RFC 4213 section 3.2.2).
    fn forward_v6(
        &self,
        peer: PeerIndex,
        state: &PeerState,
        inner: &Inner<'_>,
        packet: &Ipv6Packet<'_>,
        now: Instant,
    ) -> Result<(PeerIndex, Encapsulated), Refusal> {
        let mtu = state.soft.path_mtu.mtu(now);
        let limit_left = limit_left(peer, state, packet)?;
        let overhead = state.overhead() + limit_left.map_or(0, |_| LIMIT_LEN);
        let left = mtu.saturating_sub(overhead as u16);
        let limit = left.max(MIN_MTU);
        let too_big =
            Refusal::with_error(SenderError::TooBig { mtu: limit }, DropReason::InnerTooBig, Some(peer));
        if inner.largest_datagram > usize::from(limit) {
            return Err(too_big);
        }
        let fits = inner.largest_datagram <= usize::from(left);
        let policy = OuterPolicy { df: fits, ..*self.outer_policy() };
        let identification = if fits || state.path.destination.is_ipv6() {
            0
        } else {
            self.identifications(peer, inner.segments)
        };
        let outer = self.outer_header(&policy, state, packet, fits, inner.largest_datagram, identification);
        let outer = match limit_left {
            None => outer,
            Some(left) => outer.and_then(|outer| outer.with_limit(left)),
        };
        let outer = outer.ok_or(too_big)?;
        let verdict = if fits {
            Encapsulated::Forward { peer, outer, max_mss: self.max_mss_v6(state, packet, mtu) }
        } else {
            Encapsulated::ForwardInFragments { peer, max_datagram: usize::from(mtu), outer }
        };
        Ok((peer, verdict))
    }

    /// As [`Tunnel::answer`].
    pub(crate) fn answer_v6(
        &self,
        peer: Option<PeerIndex>,
        packet: &Ipv6Packet<'_>,
        error: Icmpv6Error,
        now: Instant,
    ) -> Result<Reply, DropReason> {
        if !icmpv6::may_answer(packet, error) {
            return Err(DropReason::IcmpNotAnswerable);
        }
        self.take_icmp_token(peer, now)?;
        Ok(Reply::V6 { destination: packet.source(), error })
    }

    /// As [`Tunnel::max_mss`]. The header of IPv6 is longer, and TCP behind extension headers is
    /// left alone.
    pub(crate) fn max_mss_v6(&self, state: &PeerState, packet: &Ipv6Packet<'_>, mtu: u16) -> Option<u16> {
        if !self.config.mss_clamp || packet.next_header() != Protocol::TCP {
            return None;
        }
        mss_of_syn(packet.payload(), state.overhead() + ipv6::HEADER_LEN, mtu)
    }
}

/// How often the packet may still be encapsulated behind this tunnel, if it says so. An
/// entrance of a tunnel over IPv6 looks for a limit in every packet (RFC 2473 section 4.1.1).
/// Costs a comparison for a packet without extension headers.
fn limit_left(peer: PeerIndex, state: &PeerState, packet: &Ipv6Packet<'_>) -> Result<Option<u8>, Refusal> {
    let has_options = matches!(
        packet.next_header(),
        Protocol::HOP_BY_HOP | Protocol::ROUTING | Protocol::DESTINATION_OPTIONS
    );
    if !has_options || state.path.destination.is_ipv4() {
        return Ok(None);
    }
    let upper = extension::walk(packet.as_bytes(), packet.next_header()).ok();
    let Some(found) = upper.and_then(|upper| upper.limit) else { return Ok(None) };
    let error = SenderError::EncapsulationLimit { pointer: found.offset as u32 };
    let none_left = Refusal::with_error(error, DropReason::EncapsulationLimit, Some(peer));
    found.limit.checked_sub(1).map(Some).ok_or(none_left)
}

/// Reports a pending error to the sender of this packet (RFC 2473 section 8).
#[cold]
fn report_pending(
    peer: PeerIndex,
    state: &PeerState,
    packet: &Ipv6Packet<'_>,
    now: Instant,
) -> Result<(), Refusal> {
    let error = SenderError::GatewayUnreachable { code_v4: adit_wire::icmpv4::unreachable::HOST };
    if state.soft.pending(now).is_none() || !icmpv6::may_answer(packet, error.to_v6()) {
        return Ok(());
    }
    state.soft.clear_pending();
    Err(Refusal::with_error(error, DropReason::PeerUnreachable, Some(peer)))
}

/// The inner header, checked: version, lengths, and that the caller's description fits it.
fn parse<'a>(inner: &Inner<'a>) -> Option<Ipv6Packet<'a>> {
    let packet = Ipv6Packet::parse(inner.bytes, Validation::Datapath).ok()?;
    inner.is_one_with(packet.total_len(), ipv6::HEADER_LEN).then_some(packet)
}
