//! The rules about addresses at both ends of the tunnel: RFC 2003 sections 3.1, 3.2 and 6, RFC 2827,
//! RFC 6169 section 2.2, RFC 6040 section 4.2.

use core::net::Ipv4Addr;

use adit_wire::Protocol;
use adit_wire::ecn::{self, Ecn, EcnAnomaly};
use adit_wire::icmpv4::{Icmpv4Error, unreachable};
use adit_wire::ipv4::Ipv4Header;

use crate::drop_reason::DropReason;
use crate::peer::{Owner, PeerIndex};

/// What the rules have to know of a tunnel. A lookup may be slow: each is made only when it is needed.
pub trait PeerLookup {
    /// Our address on the underlay.
    fn underlay(&self) -> Ipv4Addr;
    /// Whose the longest prefix around an inner address is.
    fn owner(&self, inner: Ipv4Addr) -> Option<Owner>;
    /// The peer with this outer address.
    fn peer_by_underlay(&self, underlay: Ipv4Addr) -> Option<PeerIndex>;
    /// The outer address of a peer; `None` where there is no such peer.
    fn underlay_of(&self, peer: PeerIndex) -> Option<Ipv4Addr>;
    /// Whether the gateway itself has this address.
    fn is_local(&self, address: Ipv4Addr) -> bool;
}

/// Whether the gateway itself sent an inner datagram or forwards it for someone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The gateway sent it, and may use its own addresses as the source.
    Local,
    /// It arrived to be forwarded: a source that is one of the gateway's own addresses is a forgery
    /// (RFC 2003 section 3.2).
    Forwarded,
    /// It cannot be told (a TUN device); the host's own forwarding has refused such forgeries already.
    Unknown,
}

/// Why a datagram does not pass, and what its sender hears of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: DropReason,
    /// The peer it was for, or came from, where that is known.
    pub peer: Option<PeerIndex>,
    /// What its sender is owed, if anything.
    pub error: Option<Icmpv4Error>,
}

impl Refusal {
    /// One that nobody hears of.
    #[inline]
    pub const fn silent(reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
        Refusal { reason, peer, error: None }
    }

    /// One that the sender is told of.
    #[inline]
    pub const fn with_icmp(error: Icmpv4Error, reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
        Refusal { reason, peer, error: Some(error) }
    }
}

/// To whom an inner datagram is to go, if its sender may send it there (RFC 2003 sections 3.1 and 3.2,
/// RFC 2827). `header` has been checked.
///
/// # Errors
///
/// Why it may not.
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

/// RFC 2003 section 3.1: a sender whose datagram ran out of hops while being forwarded is told; one that
/// sent a TTL of 0 from here has only itself to ask.
#[inline]
fn ttl_zero(origin: Origin) -> Refusal {
    match origin {
        Origin::Local => Refusal::silent(DropReason::InnerTtlZero, None),
        Origin::Forwarded | Origin::Unknown => {
            Refusal::with_icmp(Icmpv4Error::TimeExceeded { code: 0 }, DropReason::InnerTtlZero, None)
        }
    }
}

/// Whose datagram this is, by its outer header (RFC 2003 sections 3.1 and 6.1). `outer` has been checked.
///
/// # Errors
///
/// It is not for this tunnel, or not one datagram.
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

/// Where a datagram that came out of the tunnel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// To us, or to somebody behind us.
    Here,
    /// The same, and the peer's gateway itself has sent it, by ICMP from its underlay address: the answer to a
    /// probe, or an error about what came out of the tunnel there. What else it may say is not looked at here.
    HereFromGateway,
    /// To another peer: we are a hub.
    To(PeerIndex),
}

/// Whether an inner datagram may come from this peer, and to where it goes (RFC 2003 sections 3.1 and
/// 6.1, RFC 6169 section 2.2, RFC 2827). `inner` has been checked.
///
/// # Errors
///
/// Why it may not. Nobody hears of it: the sender that it names may be forged.
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
    match lookup.owner(destination) {
        Some(Owner::Ours) => Ok(here),
        // The host keeps what is for itself, in whoever's network its address lies.
        _ if lookup.is_local(destination) => Ok(here),
        Some(Owner::Peer(to)) if to != from && here == Delivery::Here => Ok(Delivery::To(to)),
        Some(Owner::Peer(_)) | None => refuse(DropReason::InnerDestinationNotOurs),
    }
}

/// The ECN field that a datagram leaves the tunnel with (RFC 6040 section 4.2), and what was odd about
/// the two it came with, to be counted whether it passes or not.
#[inline(always)]
pub fn decap_ecn(from: PeerIndex, outer: Ecn, inner: Ecn) -> (Result<Ecn, Refusal>, Option<EcnAnomaly>) {
    let exit = ecn::decapsulate(inner, outer);
    let left = exit.ecn.ok_or(Refusal::silent(DropReason::EcnViolation, Some(from)));
    (left, exit.anomaly)
}
