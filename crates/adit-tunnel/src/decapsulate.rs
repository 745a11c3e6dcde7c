//! The way out of the tunnel, RFC 2003 sections 3.1 and 6, RFC 6040, RFC 6169, RFC 2827.

use std::ops::Range;

use adit_wire::ecn::{self, Ecn};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::drop_reason::DropReason;
use crate::peers::{Owner, PeerIndex};
use crate::time::Instant;
use crate::tunnel::{Peer, Tunnel};

/// What came from the underlay.
#[derive(Debug, Clone, Copy)]
pub struct Outer<'a> {
    /// From the outer IPv4 header on. What follows the datagram (Ethernet pads) is ignored.
    pub bytes: &'a [u8],
    /// How many datagrams it stands for, where the host has merged several (GRO); else 1.
    pub segments: u16,
}

impl<'a> Outer<'a> {
    /// One ordinary datagram.
    pub fn datagram(bytes: &'a [u8]) -> Outer<'a> {
        Outer { bytes, segments: 1 }
    }
}

/// What to do with an outer datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decapsulated {
    /// Give the inner datagram to the host.
    Deliver {
        /// From whom.
        peer: PeerIndex,
        /// Where in the outer bytes the inner datagram lies.
        inner: Range<usize>,
        /// The ECN field to write into it first (`ipv4::set_ecn`), where it has to change (RFC 6040).
        set_ecn: Option<Ecn>,
        /// For a TCP SYN, the MSS to lower it to: call `tcp::clamp_mss`.
        max_mss: Option<u16>,
    },
    /// Dropped; counted already.
    Drop(DropReason),
}

/// A drop on its way out of the checks.
struct Refused {
    reason: DropReason,
    peer: Option<PeerIndex>,
}

fn refused(reason: DropReason, peer: Option<PeerIndex>) -> Refused {
    Refused { reason, peer }
}

/// From the outer header: whose datagram it is.
struct Admitted<'t, 'a> {
    peer: PeerIndex,
    state: &'t Peer,
    outer: Ipv4Packet<'a>,
}

impl Tunnel {
    /// Decides what becomes of an outer datagram. Counts it, as received or as dropped.
    ///
    /// Costs two header checksums and three lookups; allocates nothing.
    #[inline]
    pub fn decapsulate(&self, outer: &Outer<'_>, now: Instant, counters: &Counters) -> Decapsulated {
        let segments = u64::from(outer.segments.max(1));
        let delivered = self.admit_outer(outer).and_then(|admitted| {
            let packet = self.admit_inner(&admitted)?;
            let set_ecn = exit_ecn(&admitted, &packet, segments, counters)?;
            Ok((admitted, packet, set_ecn))
        });
        match delivered {
            Ok((Admitted { peer, state, outer }, packet, set_ecn)) => {
                state.soft.heard();
                counters.count_rx(peer, segments, packet.total_len() as u64, now);
                let start = outer.header_len();
                let max_mss = self.max_mss(&packet, state.soft.mtu(now));
                Decapsulated::Deliver { peer, inner: start..start + packet.total_len(), set_ecn, max_mss }
            }
            Err(Refused { reason, peer }) => {
                counters.count_drop(reason, peer, segments);
                Decapsulated::Drop(reason)
            }
        }
    }

    /// Whether the outer header comes from a peer to us (RFC 2003 sections 3.1 and 6.1).
    #[inline]
    fn admit_outer<'a>(&self, outer: &Outer<'a>) -> Result<Admitted<'_, 'a>, Refused> {
        let outer = Ipv4Packet::parse(outer.bytes, Validation::Datapath)
            .map_err(|_| refused(DropReason::OuterMalformed, None))?;
        if outer.protocol() != Protocol::IPIP {
            return Err(refused(DropReason::OuterNotProtocol4, None));
        }
        if outer.destination() != self.underlay {
            return Err(refused(DropReason::OuterDestinationNotOurs, None));
        }
        let found = self.table.lookup_outer(outer.source());
        let Some((peer, state)) = found.and_then(|peer| Some((peer, self.peer_state(peer)?))) else {
            return Err(refused(DropReason::OuterSourceUnknown, None));
        };
        if outer.is_fragment() {
            return Err(refused(DropReason::OuterFragment, Some(peer)));
        }
        Ok(Admitted { peer, state, outer })
    }

    /// Whether the inner datagram may come from that peer, and to where it goes (RFC 2003 sections 3.1
    /// and 6.1, RFC 6169 section 2.2, RFC 2827).
    #[inline]
    fn admit_inner<'a>(&self, admitted: &Admitted<'_, 'a>) -> Result<Ipv4Packet<'a>, Refused> {
        let peer = admitted.peer;
        let refuse = |reason| Err(refused(reason, Some(peer)));
        let bytes = admitted.outer.payload();
        if bytes.first().is_some_and(|first| first >> 4 != 4) {
            return refuse(DropReason::DecapInnerNotIpv4);
        }
        let Ok(inner) = Ipv4Packet::parse(bytes, Validation::Datapath) else {
            return refuse(DropReason::DecapInnerMalformed);
        };
        if inner.ttl() == 0 {
            return refuse(DropReason::DecapInnerTtlZero);
        }
        let (source, destination) = (inner.source(), inner.destination());
        if inner.protocol() == Protocol::IPIP && destination == self.underlay {
            return refuse(DropReason::NestedToOurselves);
        }
        match self.table.owner(source) {
            Some(Owner::Peer(from)) if from == peer => {}
            Some(Owner::Ours) => return refuse(DropReason::InnerSourceIsOwn),
            _ if self.is_local(source) => return refuse(DropReason::InnerSourceIsOwn),
            Some(Owner::Peer(_)) | None => return refuse(DropReason::InnerSourceNotFromPeer),
        }
        match self.table.owner(destination) {
            Some(Owner::Ours) => Ok(inner),
            Some(Owner::Peer(to)) if to != peer => Ok(inner),
            _ if self.is_local(destination) => Ok(inner),
            Some(Owner::Peer(_)) | None => refuse(DropReason::InnerDestinationNotOurs),
        }
    }
}

/// The ECN field that the inner datagram leaves with, if another than it has (RFC 6040 section 4.2).
#[inline]
fn exit_ecn(
    admitted: &Admitted<'_, '_>,
    inner: &Ipv4Packet<'_>,
    segments: u64,
    counters: &Counters,
) -> Result<Option<Ecn>, Refused> {
    let outer = admitted.outer.ecn();
    if outer == Ecn::NotEct {
        return Ok(None);
    }
    if outer == Ecn::Ce {
        counters.count_congestion_experienced(admitted.peer, segments);
    }
    let exit = ecn::decapsulate(inner.ecn(), outer);
    if let Some(anomaly) = exit.anomaly {
        counters.count_ecn(anomaly, segments);
    }
    match exit.ecn {
        Some(ecn) => Ok((ecn != inner.ecn()).then_some(ecn)),
        None => Err(refused(DropReason::EcnViolation, Some(admitted.peer))),
    }
}
