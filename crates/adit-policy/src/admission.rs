//! The rules about addresses at both ends of the tunnel: RFC 2003 sections 3.1, 3.2 and 6, RFC
//! 2827, RFC 6169 section 2.2, RFC 6040 section 4.2.

use core::net::Ipv4Addr;

use adit_wire::Protocol;
use adit_wire::ecn::{self, Ecn, EcnAnomaly};
use adit_wire::icmpv4::{Icmpv4Error, unreachable};
use adit_wire::ipv4::Ipv4Header;

use crate::drop_reason::DropReason;
use crate::peer::{Owner, PeerIndex};

/// The lookups that the rules need. A lookup may be slow, so the rules make each one only when they
/// need it.
pub trait PeerLookup {
    /// This tunnel's underlay address.
    fn underlay(&self) -> Ipv4Addr;
    /// The owner of the longest prefix that holds an inner address.
    fn owner(&self, inner: Ipv4Addr) -> Option<Owner>;
    /// The peer with this underlay address.
    fn peer_by_underlay(&self, underlay: Ipv4Addr) -> Option<PeerIndex>;
    /// The underlay address of a peer; `None` if there is no such peer.
    fn underlay_of(&self, peer: PeerIndex) -> Option<Ipv4Addr>;
    /// Whether datagrams from one peer may go on to another.
    fn may_relay(&self, from: PeerIndex, to: PeerIndex) -> bool;
    /// Whether the gateway itself has this address.
    fn is_local(&self, address: Ipv4Addr) -> bool;
}

/// Whether the gateway sent an inner datagram itself or forwards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The gateway sent it and may use its own addresses as the source.
    Local,
    /// The gateway forwards it. A source that is one of the gateway's own addresses is then a
    /// forgery (RFC 2003 section 3.2).
    Forwarded,
    /// Unknown, as on a TUN interface. The host's own forwarding has refused such forgeries
    /// already.
    Unknown,
}

/// Why a datagram is refused, and the ICMP error that its sender gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The reason under which it is counted.
    pub reason: DropReason,
    /// The peer it was for or came from, if known.
    pub peer: Option<PeerIndex>,
    /// The ICMP error for its sender, if any.
    pub error: Option<Icmpv4Error>,
}

impl Refusal {
    /// A refusal without an ICMP error.
    #[inline]
    pub const fn silent(reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
        Refusal { reason, peer, error: None }
    }

    /// A refusal that the sender learns of by an ICMP error.
    #[inline]
    pub const fn with_icmp(error: Icmpv4Error, reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
        Refusal { reason, peer, error: Some(error) }
    }
}

/// Decides on encapsulation: returns the peer to send an inner datagram to (RFC 2003 sections 3.1
/// and 3.2, RFC 2827). `header` must be valid.
///
/// # Errors
///
/// Fails if the datagram may not enter the tunnel.
#[inline(always)]
pub fn check_encap<D: PeerLookup>(
    lookup: &D,
    header: &Ipv4Header,
    origin: Origin,
) -> Result<PeerIndex, Refusal> {
    if header.ttl() == 0 {
        return Err(ttl_zero(origin));
    }
    let (source, destination) = (header.source(), header.destination());
    if header.protocol() == Protocol::IPIP
        && (source == lookup.underlay() || lookup.peer_by_underlay(destination).is_some())
    {
        return Err(Refusal::silent(DropReason::NestedEncapsulation, None));
    }
    let Some(Owner::Peer(peer)) = lookup.owner(destination) else {
        let error = Icmpv4Error::DestinationUnreachable { code: unreachable::NET };
        return Err(Refusal::with_icmp(error, DropReason::InnerDestinationUnknown, None));
    };
    if lookup.underlay_of(peer) == Some(source) {
        return Err(Refusal::silent(DropReason::InnerSourceIsTunnelExit, Some(peer)));
    }
    if origin == Origin::Forwarded && lookup.is_local(source) {
        return Err(Refusal::silent(DropReason::InnerSourceIsOwnForwarded, Some(peer)));
    }
    match lookup.owner(source) {
        Some(Owner::Peer(from)) if from == peer => {
            Err(Refusal::silent(DropReason::RelayToSamePeer, Some(peer)))
        }
        Some(_) => Ok(peer),
        None => {
            let error = Icmpv4Error::DestinationUnreachable { code: unreachable::PROHIBITED };
            Err(Refusal::with_icmp(error, DropReason::InnerSourceDenied, Some(peer)))
        }
    }
}

/// RFC 2003 section 3.1: the sender of a forwarded datagram gets Time Exceeded. This host gets
/// nothing for a TTL of 0 that it sent itself.
#[inline]
fn ttl_zero(origin: Origin) -> Refusal {
    match origin {
        Origin::Local => Refusal::silent(DropReason::InnerTtlZero, None),
        Origin::Forwarded | Origin::Unknown => {
            Refusal::with_icmp(Icmpv4Error::TimeExceeded { code: 0 }, DropReason::InnerTtlZero, None)
        }
    }
}

/// Checks the outer header: returns the peer that a datagram comes from (RFC 2003 sections 3.1 and
/// 6.1). `outer` must be valid.
///
/// # Errors
///
/// Fails if the datagram is not for this tunnel, or is a fragment.
#[inline(always)]
pub fn check_outer<D: PeerLookup>(lookup: &D, outer: &Ipv4Header) -> Result<PeerIndex, Refusal> {
    if outer.protocol() != Protocol::IPIP {
        return Err(Refusal::silent(DropReason::OuterNotProtocol4, None));
    }
    if outer.destination() != lookup.underlay() {
        return Err(Refusal::silent(DropReason::OuterDestinationNotOurs, None));
    }
    let Some(peer) = lookup.peer_by_underlay(outer.source()) else {
        return Err(Refusal::silent(DropReason::OuterSourceUnknown, None));
    };
    if outer.more_fragments() || outer.fragment_offset() != 0 {
        return Err(Refusal::silent(DropReason::OuterFragment, Some(peer)));
    }
    Ok(peer)
}

/// Where a decapsulated datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To this gateway or a host behind it.
    Here,
    /// The same, for ICMP that the peer's gateway sent from its underlay address: the answer to a
    /// probe, or an error about what came out of the tunnel there. The rules do not check further
    /// what it may say.
    HereFromGateway,
    /// The same, for ICMP to the underlay address of this gateway: a peer's probe, or somebody's
    /// ping. Only userspace tells them apart.
    HereToGateway,
    /// To another peer: this gateway is a hub.
    To(PeerIndex),
}

/// Decides on decapsulation: returns where an inner datagram from this peer goes (RFC 2003 sections
/// 3.1 and 6.1, RFC 6169 section 2.2, RFC 2827). `inner` must be valid.
///
/// # Errors
///
/// Fails if the datagram may not leave the tunnel. No refusal here has an ICMP error: the source
/// may be forged.
#[inline(always)]
pub fn check_decap<D: PeerLookup>(
    lookup: &D,
    from: PeerIndex,
    inner: &Ipv4Header,
) -> Result<Delivery, Refusal> {
    let refuse = |reason| Err(Refusal::silent(reason, Some(from)));
    if inner.ttl() == 0 {
        return refuse(DropReason::DecapInnerTtlZero);
    }
    let (source, destination) = (inner.source(), inner.destination());
    if inner.protocol() == Protocol::IPIP && destination == lookup.underlay() {
        return refuse(DropReason::NestedToOurselves);
    }
    let here = match lookup.owner(source) {
        Some(Owner::Peer(owner)) if owner == from => Delivery::Here,
        Some(Owner::Ours) => return refuse(DropReason::InnerSourceIsOwn),
        _ if lookup.is_local(source) => return refuse(DropReason::InnerSourceIsOwn),
        _ if inner.protocol() == Protocol::ICMP && lookup.underlay_of(from) == Some(source) => {
            Delivery::HereFromGateway
        }
        Some(Owner::Peer(_)) | None => return refuse(DropReason::InnerSourceNotFromPeer),
    };
    // This gateway's other addresses are not for peers: the management's, say, or its services on
    // the underlay.
    let is_to_gateway = inner.protocol() == Protocol::ICMP && destination == lookup.underlay();
    let here = if here == Delivery::Here && is_to_gateway { Delivery::HereToGateway } else { here };
    match lookup.owner(destination) {
        Some(Owner::Ours) => Ok(here),
        _ if is_to_gateway => Ok(here),
        // The kernel would deliver a datagram to an address of its own instead of relaying it.
        Some(Owner::Peer(to)) if to != from && here == Delivery::Here && !lookup.is_local(destination) => {
            if lookup.may_relay(from, to) {
                Ok(Delivery::To(to))
            } else {
                refuse(DropReason::RelayRefused)
            }
        }
        Some(Owner::Peer(_)) | None => refuse(DropReason::InnerDestinationNotOurs),
    }
}

/// The ECN field of a datagram after decapsulation (RFC 6040 section 4.2), and any anomaly in the
/// two fields it arrived with. Count the anomaly whether the datagram passes or not.
#[inline(always)]
pub fn decap_ecn(from: PeerIndex, outer: Ecn, inner: Ecn) -> (Result<Ecn, Refusal>, Option<EcnAnomaly>) {
    let exit = ecn::decapsulate(inner, outer);
    let left = exit.ecn.ok_or(Refusal::silent(DropReason::EcnViolation, Some(from)));
    (left, exit.anomaly)
}
