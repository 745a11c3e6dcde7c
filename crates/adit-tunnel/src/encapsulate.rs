//! The encapsulator: decides about datagrams that enter the tunnel (RFC 2003 sections 3.1, 3.2,
//! 5.1).

use adit_policy::{DropReason, Origin, OwnerLookup, PeerIndex, Refusal, SenderError};
use adit_wire::encapsulation::OuterHeader;
use adit_wire::icmpv4::{self, EchoKind, types};
use adit_wire::ipv4::{Ipv4Packet, MAX_TOTAL_LEN};
use adit_wire::ipv6::is_ipv6;
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::icmp_reply::Reply;
use crate::last_drop::Dropped;
use crate::probe;
use crate::router_error::quoted;
use crate::time::Instant;
use crate::tunnel::{PeerState, Tunnel};

/// A datagram that enters the tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Inner<'a> {
    /// A datagram, or a GSO packet whose total length covers all of it. Nothing may follow it.
    pub bytes: &'a [u8],
    /// Size in bytes of the largest datagram that it becomes on the wire, headers included:
    /// `bytes.len()` if it is not a GSO packet.
    pub largest_datagram: usize,
    /// Number of datagrams that it becomes: 1 if it is not a GSO packet.
    pub segments: u16,
    /// Where it comes from.
    pub origin: Origin,
}

impl<'a> Inner<'a> {
    /// One ordinary datagram.
    pub fn datagram(bytes: &'a [u8], origin: Origin) -> Inner<'a> {
        Inner { bytes, largest_datagram: bytes.len(), segments: 1, origin }
    }

    /// Whether the bytes are one packet with these lengths of its header, and the caller's
    /// description fits it.
    #[inline]
    pub(crate) fn is_one_with(&self, total_len: usize, header_len: usize) -> bool {
        total_len == self.bytes.len()
            && self.segments > 0
            && self.largest_datagram <= self.bytes.len()
            && self.largest_datagram >= header_len
    }
}

/// What to do with an inner datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encapsulated {
    /// Send it to the peer with this outer header.
    Forward {
        /// The peer to send it to.
        peer: PeerIndex,
        /// The outer header for a datagram of `largest_datagram` bytes; for the other segments of a
        /// GSO packet see [`OuterHeader::for_segment`], with identifications that count up from
        /// this one's (which is 0, and may stay 0, if DF is set: RFC 6864 section 4.1).
        outer: OuterHeader,
        /// For a TCP SYN, the MSS to lower it to: call `tcp::clamp_mss` on the inner datagram.
        max_mss: Option<u16>,
    },
    /// It may be fragmented and must be: split the *inner* datagram, then encapsulate each fragment
    /// (RFC 4459 section 3.4), so that the peer has nothing to reassemble.
    Fragment {
        /// The peer to send it to.
        peer: PeerIndex,
        /// Size in bytes of the longest inner fragment, header included.
        max_datagram: usize,
        /// The outer header for a fragment of `max_datagram` bytes: a template for the others. If
        /// its DF is clear, each fragment needs an identification: [`Tunnel::identifications`].
        outer: OuterHeader,
        /// As in `Forward`.
        max_mss: Option<u16>,
    },
    /// It may not be fragmented, and the path must carry it all the same: put `outer` before it,
    /// and split the *outer* datagram (RFC 4213 section 3.2.2).
    ForwardInFragments {
        /// The peer to send it to.
        peer: PeerIndex,
        /// Size in bytes of the longest outer fragment, header included.
        max_datagram: usize,
        /// As in `Forward`. DF is clear, and it has the identification of the first datagram.
        outer: OuterHeader,
    },
    /// Dropped. Answer its sender with this ICMP error: [`Reply::write`] with the inner datagram.
    Reply {
        /// The error.
        reply: Reply,
        /// The reason of the drop; counted already.
        reason: DropReason,
    },
    /// Dropped; counted already.
    Drop(DropReason),
}

impl Tunnel {
    /// Decides what becomes of an inner datagram. Counts it, as sent or as dropped.
    ///
    /// Costs a header checksum and two lookups in the networks; allocates nothing.
    #[inline]
    pub fn encapsulate(&self, inner: &Inner<'_>, now: Instant, counters: &Counters) -> Encapsulated {
        if self.table.has_v6() && is_ipv6(inner.bytes) {
            return self.encapsulate_v6(inner, now, counters);
        }
        let packet = match parse(inner) {
            Ok(packet) => packet,
            Err(reason) => {
                counters.count_drop(reason, Dropped::datagram(inner.bytes, now), 1);
                return Encapsulated::Drop(reason);
            }
        };
        let admitted = self.admit(inner, &packet, now).and_then(|(peer, state)| {
            if state.soft.has_pending() {
                self.report_pending(peer, state, &packet, now)?;
            }
            self.forward(peer, state, inner, &packet, now)
        });
        match admitted {
            Ok((peer, verdict)) => {
                if packet.protocol() == Protocol::ICMP && self.is_answer_to_probe(&packet) {
                    counters.count_probe_replied();
                } else {
                    counters.count_tx(peer, u64::from(inner.segments), inner.bytes.len() as u64);
                }
                verdict
            }
            Err(refused) => self.refuse(refused, inner, &packet, now, counters),
        }
    }

    /// Reserves `count` consecutive identifications for outer datagrams to a peer that may be
    /// fragmented on their way, and returns the first.
    pub fn identifications(&self, peer: PeerIndex, count: u16) -> u16 {
        self.peer_state(peer).map_or(0, |peer| peer.soft.identifications(count, self.half()))
    }

    /// Checks who sends what to whom.
    #[inline]
    fn admit(
        &self,
        inner: &Inner<'_>,
        packet: &Ipv4Packet<'_>,
        now: Instant,
    ) -> Result<(PeerIndex, &PeerState), Refusal> {
        let peer = match adit_policy::check_encap(self, packet.fixed_header(), inner.origin) {
            Err(Refusal { reason: DropReason::InnerSourceDenied, peer: Some(peer), .. })
                if self.is_from_own_stack(packet) =>
            {
                peer
            }
            Err(refusal) if refusal.reason == DropReason::InnerSourceDenied => {
                self.router_error_out(packet.fixed_header(), quoted(packet), now).unwrap_or(Err(refusal))?
            }
            verdict => verdict?,
        };
        let state =
            self.peer_state(peer).ok_or(Refusal::silent(DropReason::InnerDestinationUnknown, None))?;
        Ok((peer, state))
    }

    /// Returns true if the stack of this gateway sends the packet from an underlay address: the
    /// answer to a peer's probe, or an error about a packet that left the tunnel.
    #[cold]
    fn is_from_own_stack(&self, packet: &Ipv4Packet<'_>) -> bool {
        if !self.config.underlay.contains(packet.source().into()) || packet.protocol() != Protocol::ICMP {
            return false;
        }
        let is_answer = |kind: u8| kind == types::ECHO_REPLY || icmpv4::is_error(kind);
        packet.fragment_offset() != 0 || packet.payload().first().copied().is_some_and(is_answer)
    }

    /// Returns true if the stack of this gateway answers a peer's probe. The later fragments of an
    /// answer do not show it; nothing else that the stack may send from there is fragmented, but
    /// for the answers to very long pings.
    #[cold]
    fn is_answer_to_probe(&self, packet: &Ipv4Packet<'_>) -> bool {
        let source = packet.source();
        let is_later_fragment = packet.fragment_offset() != 0 && self.config.underlay.contains(source.into());
        is_later_fragment || probe::has_form(packet, EchoKind::Reply) && self.is_local(source)
    }

    /// The outer header, unless the datagram is too big for the path (RFC 2003 section 5.1).
    #[inline]
    fn forward(
        &self,
        peer: PeerIndex,
        state: &PeerState,
        inner: &Inner<'_>,
        packet: &Ipv4Packet<'_>,
        now: Instant,
    ) -> Result<(PeerIndex, Encapsulated), Refusal> {
        let mtu = state.soft.path_mtu.mtu(now);
        let max_datagram = usize::from(mtu).saturating_sub(state.overhead());
        let inner_df = packet.dont_fragment();
        let too_big = inner.largest_datagram > max_datagram;
        let error = SenderError::TooBig { mtu: max_datagram as u16 };
        if too_big && inner_df {
            return Err(Refusal::with_error(error, DropReason::InnerTooBig, Some(peer)));
        }
        // A header of IPv6 has no identification. RFC 6864 section 4.1: an atomic outer datagram
        // may carry any identification. In a fragment train the caller takes as many as it makes.
        let atomic = self.outer_policy().df || inner_df || state.path.destination.is_ipv6();
        let identification =
            if atomic || too_big { 0 } else { state.soft.identifications(inner.segments, self.half()) };
        let length = if too_big { max_datagram } else { inner.largest_datagram };
        let outer = self.outer_header(self.outer_policy(), state, packet, inner_df, length, identification);
        // `length` is below a 16-bit MTU, so there is always a header.
        let Some(outer) = outer else {
            return Err(Refusal::with_error(error, DropReason::InnerTooBig, Some(peer)));
        };
        let max_mss = self.max_mss(state, packet, mtu);
        let verdict = if too_big {
            Encapsulated::Fragment { peer, max_datagram, outer, max_mss }
        } else {
            Encapsulated::Forward { peer, outer, max_mss }
        };
        Ok((peer, verdict))
    }

    /// Reports a pending error to the sender of this datagram (RFC 2003 sections 4 and 5): a router
    /// inside the tunnel has just reported that the decapsulator is unreachable, or has reported it
    /// with too short a quote to tell the original sender. A datagram that may not be answered
    /// passes.
    #[cold]
    fn report_pending(
        &self,
        peer: PeerIndex,
        state: &PeerState,
        packet: &Ipv4Packet<'_>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(error) = state.soft.pending(now) else { return Ok(()) };
        if !icmpv4::may_answer(packet) {
            return Ok(());
        }
        state.soft.clear_pending();
        let code_v4 = self.unreachable_code(error, packet.source());
        Err(Refusal::with_error(
            SenderError::GatewayUnreachable { code_v4 },
            DropReason::PeerUnreachable,
            Some(peer),
        ))
    }

    /// Counts a drop and makes the answer if its sender may get one.
    #[cold]
    fn refuse(
        &self,
        refused: Refusal,
        inner: &Inner<'_>,
        packet: &Ipv4Packet<'_>,
        now: Instant,
        counters: &Counters,
    ) -> Encapsulated {
        let dropped = Dropped::at(now).from(packet.source()).of_peer(refused.peer);
        let answer = |error: SenderError| self.answer(refused.peer, packet, error.to_v4(), now);
        refusal_counted(&refused, answer, inner, dropped, counters)
    }
}

/// Counts a refusal. Its sender gets what `answer` makes of its error.
pub(crate) fn refusal_counted(
    refused: &Refusal,
    answer: impl FnOnce(SenderError) -> Result<Reply, DropReason>,
    inner: &Inner<'_>,
    dropped: Dropped,
    counters: &Counters,
) -> Encapsulated {
    let reason = refused.reason;
    counters.count_drop(reason, dropped, u64::from(inner.segments));
    match refused.error.map(answer) {
        None => Encapsulated::Drop(reason),
        Some(Ok(reply)) => {
            counters.count_icmp_sent();
            Encapsulated::Reply { reply, reason }
        }
        Some(Err(_)) => {
            counters.count_icmp_suppressed();
            Encapsulated::Drop(reason)
        }
    }
}

/// The inner header, checked: version, lengths, checksum, and that the caller's description fits
/// it.
#[inline]
fn parse<'a>(inner: &Inner<'a>) -> Result<Ipv4Packet<'a>, DropReason> {
    if inner.bytes.first().is_some_and(|first| first >> 4 != 4) {
        return Err(DropReason::InnerNotIpv4);
    }
    let packet =
        Ipv4Packet::parse(inner.bytes, Validation::Datapath).map_err(|_| DropReason::InnerMalformed)?;
    let is_whole = inner.is_one_with(packet.total_len(), packet.header_len());
    if is_whole && inner.bytes.len() <= MAX_TOTAL_LEN { Ok(packet) } else { Err(DropReason::InnerMalformed) }
}
