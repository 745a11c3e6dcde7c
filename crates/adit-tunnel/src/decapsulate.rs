//! The decapsulator: decides about datagrams that leave the tunnel (RFC 2003 sections 3.1 and 6,
//! RFC 6040, RFC 6169, RFC 2827).

use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use adit_policy::{Delivery, DropReason, InnerHeader, Owner, OwnerLookup, PeerIndex, Quoted, Refusal};
use adit_wire::ecn::Ecn;
use adit_wire::icmpv4::{self, EchoKind};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{Ipv6Packet, is_ipv6};
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::last_drop::Dropped;
use crate::outer::OuterDatagram;
use crate::probe::{self, ProbePacket};
use crate::router_error::{quoted, quoted_v6};
use crate::time::Instant;
use crate::tunnel::{PeerState, Tunnel};

/// A datagram from the underlay.
#[derive(Debug, Clone, Copy)]
pub struct Outer<'a> {
    /// From the outer IP header on. What follows the datagram (Ethernet pads) is ignored.
    pub bytes: &'a [u8],
    /// Number of datagrams that the host has merged into it (GRO); 1 if none.
    pub segments: u16,
    /// Whether the host has applied its policies of IPsec to it. A packet socket receives a
    /// datagram before that, a raw socket after.
    pub policy_checked: bool,
}

impl<'a> Outer<'a> {
    /// One ordinary datagram.
    pub fn datagram(bytes: &'a [u8]) -> Outer<'a> {
        Outer { bytes, segments: 1, policy_checked: false }
    }
}

/// What to do with an outer datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decapsulated {
    /// Give the inner datagram to the host.
    Deliver {
        /// The peer that sent it.
        peer: PeerIndex,
        /// The range of the inner datagram in the outer bytes.
        inner: Range<usize>,
        /// The ECN field to write into it first (`ipv4::set_ecn` or `ipv6::set_ecn`), if it has to
        /// change (RFC 6040).
        set_ecn: Option<Ecn>,
        /// For a TCP SYN, the MSS to lower it to: call `tcp::clamp_mss`.
        max_mss: Option<u16>,
    },
    /// The answer to a probe. The tunnel has recorded it; there is nothing to do.
    Answer {
        /// The peer that sent it.
        peer: PeerIndex,
    },
    /// A probe for an address that this gateway does not have, because it is behind NAT. The tunnel
    /// has learned from it; there is nothing to do.
    Unanswerable {
        /// The peer that sent it.
        peer: PeerIndex,
    },
    /// Ignored: the host's policies of IPsec decide about this peer's datagrams. What they let pass
    /// comes again, checked.
    LeftToStack,
    /// Dropped; counted already.
    Drop(DropReason),
    /// Not this tunnel's, and perhaps another overlay's, which judges and counts it. There is
    /// nothing to do.
    NotOurs,
}

/// The peer that sent a datagram, by its outer header.
struct Admitted<'t, 'a> {
    peer: PeerIndex,
    state: &'t PeerState,
    outer: OuterDatagram<'a>,
}

/// What an admitted datagram turned out to be.
enum Taken {
    /// The answer to a probe.
    Answer,
    /// A probe that nothing here answers.
    Unanswerable,
    /// One to deliver.
    Packet {
        /// Bytes of the inner packet.
        len: usize,
        set_ecn: Option<Ecn>,
        max_mss: Option<u16>,
        /// The source of a peer's probe.
        probe_from: Option<IpAddr>,
    },
}

impl Tunnel {
    /// Decides what becomes of an outer datagram. Counts it, as received or as dropped.
    ///
    /// Costs two header checksums and three lookups; allocates nothing.
    #[inline]
    pub fn decapsulate(&self, outer: &Outer<'_>, now: Instant, counters: &Counters) -> Decapsulated {
        let segments = u64::from(outer.segments.max(1));
        let admitted = self.admit_outer(outer);
        if let Ok(Admitted { state, .. }) = &admitted
            && state.left_to_stack.load(Relaxed)
            && !outer.policy_checked
        {
            return Decapsulated::LeftToStack;
        }
        let delivered = admitted.and_then(|admitted| {
            let taken = if admitted.outer.protocol == Protocol::IPV6 {
                self.take_v6(&admitted, segments, now, counters)
            } else {
                self.take_v4(&admitted, segments, now, counters)
            };
            Ok((admitted, taken?))
        });
        match delivered {
            Ok((Admitted { peer, state, outer }, taken)) => {
                state.soft.mark_reachable();
                match taken {
                    Taken::Answer => Decapsulated::Answer { peer },
                    Taken::Unanswerable => Decapsulated::Unanswerable { peer },
                    Taken::Packet { len, set_ecn, max_mss, probe_from } => {
                        if let Some(source) = probe_from {
                            state.probe_address.learn(source);
                            counters.count_probe_received(peer, outer.ttl, now);
                        } else {
                            counters.count_rx(peer, segments, len as u64, outer.ttl, now);
                        }
                        let start = outer.header_len;
                        Decapsulated::Deliver { peer, inner: start..start + len, set_ecn, max_mss }
                    }
                }
            }
            Err(Refusal { reason, .. }) if self.others.may_have(outer.bytes, reason) => Decapsulated::NotOurs,
            // A packet filter cannot tell what follows an extension header.
            Err(Refusal { reason: DropReason::OuterNotProtocol4, .. }) if is_ipv6(outer.bytes) => {
                Decapsulated::NotOurs
            }
            Err(Refusal { reason, peer, .. }) => {
                counters.count_drop(reason, dropped(outer.bytes, peer, now), segments);
                Decapsulated::Drop(reason)
            }
        }
    }

    /// Checks that the outer header is from a peer to us.
    #[inline]
    fn admit_outer<'a>(&self, outer: &Outer<'a>) -> Result<Admitted<'_, 'a>, Refusal> {
        let outer = OuterDatagram::parse(outer.bytes, Validation::Datapath)
            .ok_or(Refusal::silent(DropReason::OuterMalformed, None))?;
        if outer.protocol == Protocol::IPV6 && !self.table.has_v6() {
            return Err(Refusal::silent(DropReason::OuterNotProtocol4, None));
        }
        let OuterDatagram { source, destination, protocol, is_fragment, .. } = outer;
        let peer = adit_policy::check_outer(self, source, destination, protocol, is_fragment)?;
        let state = self.peer_state(peer).ok_or(Refusal::silent(DropReason::OuterSourceUnknown, None))?;
        Ok(Admitted { peer, state, outer })
    }

    /// Checks that an inner packet of IPv6 may come from that peer (RFC 4213 section 3.6).
    fn take_v6(
        &self,
        admitted: &Admitted<'_, '_>,
        segments: u64,
        now: Instant,
        counters: &Counters,
    ) -> Result<Taken, Refusal> {
        let packet = Ipv6Packet::parse(admitted.outer.payload, Validation::Datapath)
            .map_err(|_| Refusal::silent(DropReason::DecapInnerMalformed, Some(admitted.peer)))?;
        let delivery = match self.admit_source(admitted, packet.fixed_header(), || quoted_v6(&packet), now) {
            Err(refusal) if refusal.reason == DropReason::InnerDestinationNotOurs => {
                self.takes_unanswerable(admitted, &packet, now, counters).ok_or(refusal)?;
                return Ok(Taken::Unanswerable);
            }
            other => other?,
        };
        let is_icmp = packet.next_header() == Protocol::ICMPV6;
        if is_icmp && self.takes_probe_answer(admitted, &packet, now, counters) {
            return Ok(Taken::Answer);
        }
        check_gateways_v6(admitted.peer, &packet, delivery)?;
        let set_ecn = decapsulated_ecn(admitted, packet.ecn(), segments, counters)?;
        let max_mss = self.max_mss_v6(admitted.state, &packet, admitted.state.soft.path_mtu.mtu(now));
        let probe_from = self.probe_from(is_icmp, &packet, delivery);
        Ok(Taken::Packet { len: packet.total_len(), set_ecn, max_mss, probe_from })
    }

    /// Checks that an inner datagram of IPv4 may come from that peer.
    #[inline]
    fn take_v4(
        &self,
        admitted: &Admitted<'_, '_>,
        segments: u64,
        now: Instant,
        counters: &Counters,
    ) -> Result<Taken, Refusal> {
        let (packet, delivery) = match self.admit_inner(admitted, now) {
            Err(refusal) if refusal.reason == DropReason::InnerDestinationNotOurs => {
                let packet = Ipv4Packet::parse(admitted.outer.payload, Validation::Datapath);
                let taken =
                    packet.ok().and_then(|packet| self.takes_unanswerable(admitted, &packet, now, counters));
                taken.ok_or(refusal)?;
                return Ok(Taken::Unanswerable);
            }
            other => other?,
        };
        let is_icmp = packet.protocol() == Protocol::ICMP;
        if is_icmp && self.takes_answer(admitted, &packet, delivery, now, counters)? {
            return Ok(Taken::Answer);
        }
        let set_ecn = decapsulated_ecn(admitted, packet.ecn(), segments, counters)?;
        let max_mss = self.max_mss(admitted.state, &packet, admitted.state.soft.path_mtu.mtu(now));
        let probe_from = self.probe_from(is_icmp, &packet, delivery);
        Ok(Taken::Packet { len: packet.total_len(), set_ecn, max_mss, probe_from })
    }

    /// Checks that the inner datagram may come from that peer.
    #[inline]
    fn admit_inner<'a>(
        &self,
        admitted: &Admitted<'_, 'a>,
        now: Instant,
    ) -> Result<(Ipv4Packet<'a>, Delivery), Refusal> {
        let peer = admitted.peer;
        let bytes = admitted.outer.payload;
        if bytes.first().is_some_and(|first| first >> 4 != 4) {
            return Err(Refusal::silent(DropReason::DecapInnerNotIpv4, Some(peer)));
        }
        let inner = Ipv4Packet::parse(bytes, Validation::Datapath)
            .map_err(|_| Refusal::silent(DropReason::DecapInnerMalformed, Some(peer)))?;
        let delivery = self.admit_source(admitted, inner.fixed_header(), || quoted(&inner), now)?;
        Ok((inner, delivery))
    }

    /// Checks the addresses of an inner packet, and what it quotes if it may be a router's error.
    #[inline]
    fn admit_source<H: InnerHeader>(
        &self,
        admitted: &Admitted<'_, '_>,
        header: &H,
        quoted: impl FnOnce() -> Option<Quoted<H::Address>>,
        now: Instant,
    ) -> Result<Delivery, Refusal>
    where
        Tunnel: OwnerLookup<H::Address>,
    {
        let Admitted { peer, state, .. } = *admitted;
        match adit_policy::check_decap(self, peer, header) {
            Err(refusal)
                if matches!(
                    refusal.reason,
                    DropReason::InnerSourceNotFromPeer | DropReason::InnerDestinationNotOurs
                ) =>
            {
                self.router_error_in((peer, state), header, quoted(), now).unwrap_or(Err(refusal))
            }
            verdict => verdict,
        }
    }

    /// The source of a probe of the peer's, at the underlay address or another of this gateway.
    #[inline]
    fn probe_from(&self, is_icmp: bool, packet: &impl ProbePacket, delivery: Delivery) -> Option<IpAddr> {
        if is_icmp && self.is_probe(packet, delivery) { Some(packet.source()) } else { None }
    }

    #[cold]
    fn is_probe(&self, packet: &impl ProbePacket, delivery: Delivery) -> bool {
        matches!(delivery, Delivery::Here | Delivery::HereToGateway)
            && probe::has_form(packet, EchoKind::Request)
            && self.has_address(packet.destination())
    }

    /// Takes a probe for an address that nobody here has: the peer calls us by it, and a NAT stands
    /// between. `None`: the packet is none.
    #[cold]
    fn takes_unanswerable(
        &self,
        admitted: &Admitted<'_, '_>,
        packet: &impl ProbePacket,
        now: Instant,
        counters: &Counters,
    ) -> Option<()> {
        let peer = admitted.peer;
        let (source, destination) = (packet.source(), packet.destination());
        let is_probe = probe::has_form(packet, EchoKind::Request)
            && self.owner_of(source) == Some(Owner::Peer(peer))
            && self.owner_of(destination).is_none()
            && !self.has_address(destination);
        if is_probe {
            admitted.state.probe_address.learn(source);
            admitted.state.probe_address.ask_for_introduction();
            counters.count_probe_received(peer, admitted.outer.ttl, now);
        }
        is_probe.then_some(())
    }

    /// Records the answer to a probe. Returns false if the packet is none.
    #[cold]
    fn takes_probe_answer(
        &self,
        admitted: &Admitted<'_, '_>,
        packet: &impl ProbePacket,
        now: Instant,
        counters: &Counters,
    ) -> bool {
        let options = self.config().probe.as_ref();
        let peer = admitted.state.path.destination;
        let answered = options.and_then(|options| options.answered(peer, packet));
        if let Some(probe) = answered {
            admitted.state.soft.answers.note(probe, now);
            counters.count_probe_answered();
        }
        answered.is_some()
    }

    /// Handles ICMP that may answer a probe. Of what the peer's gateway sends from its underlay
    /// address, answers end here, errors go to hosts behind us, and everything else is refused.
    #[cold]
    fn takes_answer(
        &self,
        admitted: &Admitted<'_, '_>,
        packet: &Ipv4Packet<'_>,
        delivery: Delivery,
        now: Instant,
        counters: &Counters,
    ) -> Result<bool, Refusal> {
        if self.takes_probe_answer(admitted, packet, now, counters) {
            return Ok(true);
        }
        if delivery != Delivery::HereFromGateway {
            return Ok(false);
        }
        // A later fragment of an answer. The first one has the token.
        let options = self.config().probe.as_ref();
        let is_to_source = options.is_some_and(|options| options.is_source(packet.destination().into()));
        if packet.fragment_offset() != 0 && is_to_source {
            return Ok(true);
        }
        let kind = packet.payload().first().copied().filter(|_| packet.is_first_fragment_or_whole());
        if kind.is_some_and(icmpv4::is_error) {
            return Ok(false);
        }
        Err(Refusal::silent(DropReason::InnerSourceNotFromPeer, Some(admitted.peer)))
    }
}

/// What a gateway may send from its underlay address, and what may be sent to one: echoes and
/// errors. The messages that hosts of one link exchange (RFC 4861) must not come out of a tunnel.
#[inline]
fn check_gateways_v6(peer: PeerIndex, packet: &Ipv6Packet<'_>, delivery: Delivery) -> Result<(), Refusal> {
    use adit_wire::icmpv6::{is_error, types};
    let kind = packet.payload().first().copied();
    let reason = match delivery {
        Delivery::Here | Delivery::To(_) => return Ok(()),
        Delivery::HereFromGateway => DropReason::InnerSourceNotFromPeer,
        Delivery::HereToGateway => DropReason::InnerDestinationNotOurs,
    };
    let is_echo = |kind| kind == types::ECHO_REPLY || kind == types::ECHO_REQUEST;
    match kind {
        Some(kind) if is_error(kind) => Ok(()),
        Some(kind) if is_echo(kind) && delivery == Delivery::HereToGateway => Ok(()),
        _ => Err(Refusal::silent(reason, Some(peer))),
    }
}

/// The new ECN field of the inner datagram, if it changes.
#[inline]
fn decapsulated_ecn(
    admitted: &Admitted<'_, '_>,
    inner: Ecn,
    segments: u64,
    counters: &Counters,
) -> Result<Option<Ecn>, Refusal> {
    let outer = admitted.outer.ecn;
    if outer == Ecn::NotEct {
        return Ok(None);
    }
    if outer == Ecn::Ce {
        counters.count_congestion_experienced(admitted.peer, segments);
    }
    let (ecn, anomaly) = adit_policy::decap_ecn(admitted.peer, outer, inner);
    if let Some(anomaly) = anomaly {
        counters.count_ecn(anomaly, segments);
    }
    Ok(Some(ecn?).filter(|ecn| *ecn != inner))
}

/// A datagram that is dropped: the source is the inner one if a peer sent it, for the outer one is
/// then the peer's.
#[cold]
fn dropped(outer: &[u8], peer: Option<PeerIndex>, now: Instant) -> Dropped {
    let whole = Dropped::datagram(outer, now);
    let header = OuterDatagram::parse(outer, Validation::Lenient).filter(|_| peer.is_some());
    let inner = header.map(|header| Dropped::datagram(header.payload, now));
    let source = inner.and_then(|inner| inner.source).or(whole.source);
    Dropped { source, peer, at: now }
}
