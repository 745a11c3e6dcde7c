//! Errors from routers whose own address is in nobody's networks: [`adit_policy`] judges them by
//! their quote, and each peer's are limited in rate, in both directions.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::{Delivery, DropReason, InnerHeader, OwnerLookup, PeerIndex, Quoted, Refusal};
use adit_wire::icmpv4::Icmpv4Message;
use adit_wire::icmpv6::Icmpv6Message;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;

use crate::time::Instant;
use crate::tunnel::{PeerState, Tunnel};

impl Tunnel {
    /// The peer that a router's error from our site goes to, or on a hub from another peer's;
    /// `None`: it is no such error.
    #[cold]
    pub(crate) fn router_error_out<H: InnerHeader>(
        &self,
        header: &H,
        quoted: Option<Quoted<H::Address>>,
        now: Instant,
    ) -> Option<Result<PeerIndex, Refusal>>
    where
        Tunnel: OwnerLookup<H::Address>,
    {
        let peer = adit_policy::router_error_encap(self, header, quoted?)?;
        let is_allowed = self.peer_state(peer)?.router_errors_out.take(now);
        Some(if is_allowed {
            Ok(peer)
        } else {
            Err(Refusal::silent(DropReason::RouterErrorLimited, Some(peer)))
        })
    }

    /// Where a router's error from a peer's site goes; `None`: it is no such error.
    #[cold]
    pub(crate) fn router_error_in<H: InnerHeader>(
        &self,
        (peer, state): (PeerIndex, &PeerState),
        header: &H,
        quoted: Option<Quoted<H::Address>>,
        now: Instant,
    ) -> Option<Result<Delivery, Refusal>>
    where
        Tunnel: OwnerLookup<H::Address>,
    {
        let delivery = adit_policy::router_error_decap(self, peer, header, quoted?)?;
        Some(if state.router_errors_in.take(now) {
            Ok(delivery)
        } else {
            Err(Refusal::silent(DropReason::DecapRouterErrorLimited, Some(peer)))
        })
    }
}

/// What a whole, valid error of the admitted types quotes.
#[cold]
pub(crate) fn quoted(packet: &Ipv4Packet<'_>) -> Option<Quoted<Ipv4Addr>> {
    let kind = packet.payload().first().copied()?;
    if !adit_policy::may_be_router_error(packet.fixed_header(), kind) {
        return None;
    }
    let message = Icmpv4Message::parse(packet.payload()).ok()?;
    let quote = message.quote()?;
    let quoted = quote.packet();
    Some(Quoted { source: quoted.source(), destination: quoted.destination() })
}

/// The same of IPv6. An error behind extension headers is none of a router's.
#[cold]
pub(crate) fn quoted_v6(packet: &Ipv6Packet<'_>) -> Option<Quoted<Ipv6Addr>> {
    let kind = packet.payload().first().copied()?;
    if !adit_policy::may_be_router_error(packet.fixed_header(), kind) {
        return None;
    }
    let message = Icmpv6Message::parse(packet.payload())?;
    if !message.checksum_ok(packet.source(), packet.destination()) {
        return None;
    }
    let quoted = message.quote()?;
    Some(Quoted { source: quoted.source(), destination: quoted.destination() })
}
