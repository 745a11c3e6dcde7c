//! The rules about addresses at both ends of the tunnel: RFC 2003 sections 3.1, 3.2 and 6, RFC
//! 2827, RFC 6169 section 2.2, RFC 6040 section 4.2.

use adit_wire::Protocol;
use adit_wire::ecn::{self, Ecn, EcnAnomaly};
use adit_wire::icmpv4::{Icmpv4Error, unreachable};
use adit_wire::icmpv6::{self, Icmpv6Error};

use crate::drop_reason::DropReason;
use crate::inner::{InnerAddress, InnerHeader};
use crate::outer::OuterAddress;
use crate::peer::{Owner, PeerIndex};

/// The lookups that the rules need. A lookup may be slow, so the rules make each one only when they
/// need it.
pub trait PeerLookup {
    /// The addresses of the underlay.
    type Underlay: OuterAddress;
    /// Whether it is an underlay address of this tunnel's.
    fn is_our_underlay(&self, address: Self::Underlay) -> bool;
    /// The peer that has this underlay address, among others perhaps.
    fn peer_by_underlay(&self, address: Self::Underlay) -> Option<PeerIndex>;
    /// Whether datagrams from one peer may go on to another.
    fn may_relay(&self, from: PeerIndex, to: PeerIndex) -> bool;
}

/// The lookups of inner addresses of one family.
pub trait OwnerLookup<A>: PeerLookup {
    /// The owner of the longest prefix that holds an inner address.
    fn owner(&self, inner: A) -> Option<Owner>;
    /// Whether the gateway itself has this address.
    fn is_local(&self, address: A) -> bool;
}

/// Whether an IP packet follows.
#[inline(always)]
fn is_tunnel(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::IPIP | Protocol::IPV6)
}

/// Whether it is an underlay address of ours, which an inner address can be.
#[inline(always)]
pub(crate) fn is_our_end<D: PeerLookup>(lookup: &D, address: impl InnerAddress) -> bool {
    address.on_underlay().is_some_and(|address| lookup.is_our_underlay(address))
}

#[inline(always)]
fn is_end_of_peer<D: PeerLookup>(lookup: &D, peer: PeerIndex, address: impl InnerAddress) -> bool {
    address.on_underlay().is_some_and(|address| lookup.peer_by_underlay(address) == Some(peer))
}

#[inline(always)]
fn is_end_of_any_peer<D: PeerLookup>(lookup: &D, address: impl InnerAddress) -> bool {
    address.on_underlay().is_some_and(|address| lookup.peer_by_underlay(address).is_some())
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

/// Why a datagram is refused, and the error that its sender gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The reason under which it is counted.
    pub reason: DropReason,
    /// The peer it was for or came from, if known.
    pub peer: Option<PeerIndex>,
    /// The error that its sender gets, if any.
    pub error: Option<SenderError>,
}

/// An error for the sender of a refused datagram. Each family has an ICMP error for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SenderError {
    /// No peer has the destination.
    NoRoute,
    /// The rules forbid it.
    Prohibited,
    /// No hop is left.
    HopLimitExceeded,
    /// It is too big for the path.
    TooBig {
        /// Bytes of the longest datagram that fits.
        mtu: u16,
    },
    /// It may not be encapsulated once more. Only IPv6 has such a limit.
    EncapsulationLimit {
        /// Where the limit is, in bytes from the start of the packet.
        pointer: u32,
    },
    /// The gateway that it has to go to cannot be reached.
    GatewayUnreachable {
        /// The code in ICMP for IPv4, which has more of them than ICMP for IPv6.
        code_v4: u8,
    },
}

impl SenderError {
    /// The error for a sender of IPv4.
    #[must_use]
    pub const fn to_v4(self) -> Icmpv4Error {
        match self {
            SenderError::NoRoute => Icmpv4Error::DestinationUnreachable { code: unreachable::NET },
            SenderError::Prohibited | SenderError::EncapsulationLimit { .. } => {
                Icmpv4Error::DestinationUnreachable { code: unreachable::PROHIBITED }
            }
            SenderError::HopLimitExceeded => Icmpv4Error::TimeExceeded { code: 0 },
            SenderError::TooBig { mtu } => Icmpv4Error::TooBig { mtu },
            SenderError::GatewayUnreachable { code_v4: code } => Icmpv4Error::DestinationUnreachable { code },
        }
    }

    /// The error for a sender of IPv6 (RFC 4443 section 3; RFC 2473 section 8 for the gateway).
    #[must_use]
    pub const fn to_v6(self) -> Icmpv6Error {
        match self {
            SenderError::NoRoute => {
                Icmpv6Error::DestinationUnreachable { code: icmpv6::unreachable::NO_ROUTE }
            }
            SenderError::Prohibited => {
                Icmpv6Error::DestinationUnreachable { code: icmpv6::unreachable::PROHIBITED }
            }
            SenderError::HopLimitExceeded => Icmpv6Error::TimeExceeded { code: 0 },
            SenderError::TooBig { mtu } => Icmpv6Error::TooBig { mtu: mtu as u32 },
            SenderError::EncapsulationLimit { pointer } => {
                Icmpv6Error::ParameterProblem { code: icmpv6::parameter::HEADER_FIELD, pointer }
            }
            SenderError::GatewayUnreachable { .. } => {
                Icmpv6Error::DestinationUnreachable { code: icmpv6::unreachable::ADDRESS }
            }
        }
    }
}

impl Refusal {
    /// A refusal without an ICMP error.
    #[inline]
    pub const fn silent(reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
        Refusal { reason, peer, error: None }
    }

    /// A refusal that the sender learns of.
    #[inline]
    pub const fn with_error(error: SenderError, reason: DropReason, peer: Option<PeerIndex>) -> Refusal {
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
pub fn check_encap<H: InnerHeader, D: OwnerLookup<H::Address>>(
    lookup: &D,
    header: &H,
    origin: Origin,
) -> Result<PeerIndex, Refusal> {
    if header.hops_left() == 0 {
        return Err(no_hops_left(origin));
    }
    let (source, destination) = (header.source(), header.destination());
    if is_tunnel(header.protocol()) && (is_our_end(lookup, source) || is_end_of_any_peer(lookup, destination))
    {
        return Err(Refusal::silent(DropReason::NestedEncapsulation, None));
    }
    let Some(Owner::Peer(peer)) = lookup.owner(destination) else {
        return Err(Refusal::with_error(SenderError::NoRoute, DropReason::InnerDestinationUnknown, None));
    };
    if origin == Origin::Forwarded && lookup.is_local(source) {
        return Err(Refusal::silent(DropReason::InnerSourceIsOwnForwarded, Some(peer)));
    }
    match lookup.owner(source) {
        Some(Owner::Peer(from)) if from == peer => {
            Err(Refusal::silent(DropReason::RelayToSamePeer, Some(peer)))
        }
        Some(_) => Ok(peer),
        // No network has a peer's underlay address in it, so this is asked only here.
        None if is_end_of_peer(lookup, peer, source) => {
            Err(Refusal::silent(DropReason::InnerSourceIsTunnelExit, Some(peer)))
        }
        None => Err(Refusal::with_error(SenderError::Prohibited, DropReason::InnerSourceDenied, Some(peer))),
    }
}

/// RFC 2003 section 3.1: the sender of a forwarded datagram gets Time Exceeded. This host gets
/// nothing for a TTL of 0 that it sent itself.
#[inline]
fn no_hops_left(origin: Origin) -> Refusal {
    match origin {
        Origin::Local => Refusal::silent(DropReason::InnerTtlZero, None),
        Origin::Forwarded | Origin::Unknown => {
            Refusal::with_error(SenderError::HopLimitExceeded, DropReason::InnerTtlZero, None)
        }
    }
}

/// Checks the fields of an outer header: returns the peer that a datagram comes from (RFC 2003
/// sections 3.1 and 6.1). The header must be valid. `protocol` is what follows it, and in IPv6 the
/// extension headers that a tunnel writes.
///
/// # Errors
///
/// Fails if the datagram is not for this tunnel, or is a fragment.
#[inline(always)]
pub fn check_outer<D: PeerLookup>(
    lookup: &D,
    source: D::Underlay,
    destination: D::Underlay,
    protocol: Protocol,
    is_fragment: bool,
) -> Result<PeerIndex, Refusal> {
    if !is_tunnel(protocol) {
        return Err(Refusal::silent(DropReason::OuterNotProtocol4, None));
    }
    let Some(peer) = outer_sender(lookup, source, destination) else {
        let is_ours = lookup.is_our_underlay(destination);
        let reason =
            if is_ours { DropReason::OuterSourceUnknown } else { DropReason::OuterDestinationNotOurs };
        return Err(Refusal::silent(reason, None));
    };
    if is_fragment {
        return Err(Refusal::silent(DropReason::OuterFragment, Some(peer)));
    }
    Ok(peer)
}

/// The peer that a datagram to us comes from, by its outer addresses; `None` if it is not for us or
/// from nobody we know. What else must hold is for [`check_outer`].
#[inline(always)]
pub fn outer_sender<D: PeerLookup>(
    lookup: &D,
    source: D::Underlay,
    destination: D::Underlay,
) -> Option<PeerIndex> {
    if !lookup.is_our_underlay(destination) {
        return None;
    }
    lookup.peer_by_underlay(source)
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
pub fn check_decap<H: InnerHeader, D: OwnerLookup<H::Address>>(
    lookup: &D,
    from: PeerIndex,
    inner: &H,
) -> Result<Delivery, Refusal> {
    let refuse = |reason| Err(Refusal::silent(reason, Some(from)));
    if inner.hops_left() == 0 {
        return refuse(DropReason::DecapInnerTtlZero);
    }
    let (source, destination) = (inner.source(), inner.destination());
    if is_tunnel(inner.protocol()) && is_our_end(lookup, destination) {
        return refuse(DropReason::NestedToOurselves);
    }
    if source.is_never_a_source() {
        return refuse(DropReason::InnerSourceNotFromPeer);
    }
    let here = match lookup.owner(source) {
        Some(Owner::Peer(owner)) if owner == from => Delivery::Here,
        Some(Owner::Ours) => return refuse(DropReason::InnerSourceIsOwn),
        _ if lookup.is_local(source) => return refuse(DropReason::InnerSourceIsOwn),
        _ if inner.is_icmp() && is_end_of_peer(lookup, from, source) => Delivery::HereFromGateway,
        Some(Owner::Peer(_)) | None => return refuse(DropReason::InnerSourceNotFromPeer),
    };
    // This gateway's other addresses are not for peers: the management's, say, or its services on
    // the underlay.
    let is_to_gateway = inner.is_icmp() && is_our_end(lookup, destination);
    let here = if here == Delivery::Here && is_to_gateway { Delivery::HereToGateway } else { here };
    if is_to_gateway {
        return Ok(here);
    }
    match lookup.owner(destination) {
        Some(Owner::Ours) => Ok(here),
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
