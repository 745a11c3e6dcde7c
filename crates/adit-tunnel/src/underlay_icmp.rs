//! ICMP errors from routers inside the tunnel (RFC 2003 section 4).
//!
//! What an error does is in `icmp_effect.rs`.
//!
//! A quote proves nothing: whoever guesses a pair of addresses can write one. A tunnel that probes
//! therefore takes an error about a datagram for doubtful, unless it changes nothing. A
//! [`Prober`](crate::Prober) finds out whether it is true. An error about a probe needs no proof,
//! because only the routers on the path have seen the probe's token.

use std::net::IpAddr;
use std::ops::Range;

use adit_policy::{DropReason, Owner, PeerIndex};
use adit_wire::encapsulation::OVERHEAD_V4;
use adit_wire::icmpv4::{self, Icmpv4Error, Icmpv4Message, Quote};
use adit_wire::icmpv6::Icmpv6Error;
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6::{self, Ipv6Packet, is_ipv6};
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::icmp_reply::Reply;
use crate::last_drop::Dropped;
use crate::time::Instant;
use crate::tunnel::{PeerState, Tunnel};

/// The outcome of an ICMP message from the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayIcmp {
    /// Send the original sender this error: [`Reply::write`] with the bytes of the message at
    /// `offending`. The soft state has learned from it too.
    Relay {
        /// The peer whose path it is about.
        peer: PeerIndex,
        /// The error.
        reply: Reply,
        /// The range of the quoted inner datagram in the message.
        offending: Range<usize>,
    },
    /// The soft state has learned from it; no error is sent yet.
    StateChanged {
        /// The peer whose path it is about.
        peer: PeerIndex,
    },
    /// It is about a probe of ours, so it is genuine. The soft state has learned from it.
    AboutProbe {
        /// The peer whose path was probed.
        peer: PeerIndex,
        /// What the error says.
        claim: Claim,
    },
    /// Nothing proves it yet. Nothing has been done or counted:
    /// [`Prober::handle_icmp`](crate::Prober::handle_icmp) tests it.
    Doubtful {
        /// The peer whose path it is about.
        peer: PeerIndex,
        /// What the error says.
        claim: Claim,
        /// The error is forged if a datagram of so many bytes arrives.
        refuted_by: u16,
    },
    /// Not about the tunnel: a query, an answer to one, or an error about other traffic.
    NotOurs,
    /// Not relayed; counted already. For [`DropReason::IcmpNotAnswerable`] and
    /// [`DropReason::IcmpRateLimited`] the soft state has learned from it all the same.
    Ignored(DropReason),
}

/// What an error says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The peer is unreachable.
    Unreachable,
    /// The path takes less than was sent.
    TooBig,
    /// A router refuses the header.
    ParameterProblem,
}

/// Why an error is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A router has reported the same about a probe, from which the soft state has learned.
    Router,
    /// Probes of the size in question, or all that was sent, stayed unanswered.
    Silence,
}

/// Bytes behind an inner header that a quote must hold, so that its sender knows the flow.
const TRANSPORT_BYTES: usize = 8;

/// How far to trust an error's quote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Not yet, if the tunnel probes.
    Unproven,
    Proven(Proof),
}

/// An error as a router of the underlay sends it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RouterError {
    V4(Icmpv4Error),
    V6(Icmpv6Error),
}

/// An ICMP error whose quote is a datagram of ours.
pub(crate) struct ValidatedError<'t, 'a> {
    pub(crate) peer: PeerIndex,
    pub(crate) state: &'t PeerState,
    pub(crate) error: RouterError,
    /// The address that the error came from.
    pub(crate) router: IpAddr,
    /// The datagram that the tunnel sent, in bytes.
    pub(crate) outer_len: u16,
    pub(crate) outer_df: bool,
    /// The inner datagram, as far as it was quoted.
    pub(crate) inner: Quoted<'a>,
    /// The range of the quoted inner datagram in the message.
    pub(crate) offending: Range<usize>,
}

/// The part of the inner datagram that a quote holds.
#[derive(Clone, Copy)]
pub(crate) enum Quoted<'a> {
    /// Enough to answer its sender.
    Enough(Ipv4Packet<'a>),
    /// The same of IPv6.
    EnoughV6(Ipv6Packet<'a>),
    /// Less than that.
    Partial,
    /// It is a probe of ours.
    Probe,
}

impl Tunnel {
    /// Handles an ICMP message. `packet` is the whole IP datagram, as a raw ICMP socket returns it.
    ///
    /// Costs two lookups and a checksum; allocates nothing. Every message ends in exactly one
    /// count, except [`UnderlayIcmp::Doubtful`].
    pub fn on_underlay_icmp(&self, packet: &[u8], now: Instant, counters: &Counters) -> UnderlayIcmp {
        self.take_icmp(packet, Trust::Unproven, now, counters)
    }

    /// The same for a doubtful message that has been proven.
    pub fn on_confirmed_icmp(
        &self,
        packet: &[u8],
        proof: Proof,
        now: Instant,
        counters: &Counters,
    ) -> UnderlayIcmp {
        self.take_icmp(packet, Trust::Proven(proof), now, counters)
    }

    fn take_icmp(&self, packet: &[u8], trust: Trust, now: Instant, counters: &Counters) -> UnderlayIcmp {
        let mut peer = None;
        let validated = if is_ipv6(packet) { self.validate_v6(packet) } else { self.validate_v4(packet) };
        let outcome = validated.and_then(|validated| match validated {
            Some(validated) => {
                peer = Some(validated.peer);
                if trust == Trust::Unproven
                    && let Some((claim, refuted_by)) = self.doubt(&validated, now)
                {
                    return Ok(UnderlayIcmp::Doubtful { peer: validated.peer, claim, refuted_by });
                }
                self.act(&validated, trust, now)
            }
            None => Ok(UnderlayIcmp::NotOurs),
        });
        match outcome {
            Ok(outcome) => {
                match outcome {
                    UnderlayIcmp::Doubtful { .. } => {}
                    UnderlayIcmp::Relay { .. } => counters.count_icmp_relayed(),
                    UnderlayIcmp::StateChanged { .. } | UnderlayIcmp::AboutProbe { .. } => {
                        counters.count_icmp_state_changed();
                    }
                    UnderlayIcmp::NotOurs | UnderlayIcmp::Ignored(_) => counters.count_icmp_not_ours(),
                }
                outcome
            }
            Err(reason) => {
                counters.count_drop(reason, Dropped::datagram(packet, now).of_peer(peer), 1);
                UnderlayIcmp::Ignored(reason)
            }
        }
    }

    /// Reads the message and checks its quote against what this tunnel could have sent (RFC 5927
    /// section 4). `Ok(None)`: none of ours.
    fn validate_v4<'a>(&self, bytes: &'a [u8]) -> Result<Option<ValidatedError<'_, 'a>>, DropReason> {
        let packet = Ipv4Packet::parse(bytes, Validation::Datapath).map_err(|_| DropReason::IcmpMalformed)?;
        if packet.protocol() != Protocol::ICMP {
            return Ok(None);
        }
        if packet.is_fragment() {
            return Err(DropReason::IcmpMalformed);
        }
        let message = Icmpv4Message::parse(packet.payload()).map_err(|_| DropReason::IcmpMalformed)?;
        let Some(error) = message.error() else {
            return Ok(None);
        };
        let quote = message.quote().ok_or(DropReason::IcmpMalformed)?;
        let outer = quote.packet();
        let carries_v6 = outer.protocol() == Protocol::IPV6 && self.table.has_v6();
        if outer.protocol() != Protocol::IPIP && !carries_v6 {
            return Ok(None);
        }
        let found = self.table.lookup_outer(outer.destination().into());
        let Some((peer, state)) = found.and_then(|peer| Some((peer, self.peer_state(peer)?))) else {
            return Err(DropReason::IcmpUnbelievable);
        };
        let sent_by_us = state.path.source == outer.source()
            && state.path.source == packet.destination()
            && state.path.destination == outer.destination()
            && outer.header_len() == OVERHEAD_V4
            && outer.fragment_offset() == 0;
        if !sent_by_us {
            return Err(DropReason::IcmpUnbelievable);
        }
        let inner = if carries_v6 {
            self.quoted_inner_v6(peer, state.path.destination, quote.payload())?
        } else {
            self.quoted_inner(peer, state.path.destination, quote.payload())?
        };
        let start = packet.header_len() + icmpv4::HEADER_LEN + outer.header_len();
        Ok(Some(ValidatedError {
            peer,
            state,
            error: RouterError::V4(error),
            router: packet.source().into(),
            outer_len: sent_len(&quote),
            outer_df: outer.dont_fragment(),
            inner,
            offending: start..start + quote.payload().len(),
        }))
    }

    /// What the quote holds of the inner datagram; its header and 8 bytes more (or all of it) are
    /// enough. As far as it reaches, it must be one that the tunnel would have sent to that peer.
    pub(crate) fn quoted_inner<'a>(
        &self,
        peer: PeerIndex,
        underlay: IpAddr,
        bytes: &'a [u8],
    ) -> Result<Quoted<'a>, DropReason> {
        if bytes.first().is_some_and(|first| first >> 4 != 4) {
            return Err(DropReason::IcmpUnbelievable);
        }
        if bytes.len() < ipv4::HEADER_LEN {
            return Ok(Quoted::Partial);
        }
        let inner =
            Ipv4Packet::parse(bytes, Validation::Lenient).map_err(|_| DropReason::IcmpUnbelievable)?;
        let probe = self.config().probe.as_ref();
        if probe.is_some_and(|options| options.quoted(underlay, &inner).is_some()) {
            return Ok(Quoted::Probe);
        }
        let from = match self.table.owner(inner.source()) {
            Some(Owner::Ours) => true,
            Some(Owner::Peer(from)) => from != peer,
            None => false,
        };
        if !from || self.table.lookup_inner(inner.destination()) != Some(peer) {
            return Err(DropReason::IcmpUnbelievable);
        }
        if inner.total_len() < inner.header_len() {
            return Err(DropReason::IcmpUnbelievable);
        }
        let enough = (inner.header_len() + TRANSPORT_BYTES).min(inner.total_len());
        Ok(if bytes.len() >= enough { Quoted::Enough(inner) } else { Quoted::Partial })
    }

    /// The same for a packet of IPv6.
    pub(crate) fn quoted_inner_v6<'a>(
        &self,
        peer: PeerIndex,
        underlay: IpAddr,
        bytes: &'a [u8],
    ) -> Result<Quoted<'a>, DropReason> {
        if bytes.first().is_some_and(|first| first >> 4 != 6) {
            return Err(DropReason::IcmpUnbelievable);
        }
        // Too short to say more.
        let Ok(inner) = Ipv6Packet::parse(bytes, Validation::Lenient) else { return Ok(Quoted::Partial) };
        let probe = self.config().probe.as_ref();
        if probe.is_some_and(|options| options.quoted(underlay, &inner).is_some()) {
            return Ok(Quoted::Probe);
        }
        let from = self.table.owner_v6(inner.source());
        let is_from_us = from.is_some_and(|from| from != Owner::Peer(peer));
        let is_ours = is_from_us && self.table.owner_v6(inner.destination()) == Some(Owner::Peer(peer));
        if !is_ours {
            return Err(DropReason::IcmpUnbelievable);
        }
        let enough = (ipv6::HEADER_LEN + TRANSPORT_BYTES).min(inner.total_len());
        Ok(if bytes.len() >= enough { Quoted::EnoughV6(inner) } else { Quoted::Partial })
    }
}

/// Size in bytes of the datagram that the tunnel sent: by the inner header if the quote holds it,
/// because some routers change the outer length before they quote it.
fn sent_len(quote: &Quote<'_>) -> u16 {
    let header = (OVERHEAD_V4 + ipv6::HEADER_LEN) as u16;
    match quote.payload() {
        [0x60..=0x6f, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]).saturating_add(header),
        [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]).saturating_add(OVERHEAD_V4 as u16),
        _ => u16::try_from(quote.packet().total_len()).unwrap_or(u16::MAX),
    }
}
