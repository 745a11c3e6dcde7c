//! ICMP errors from routers inside the tunnel (RFC 2003 section 4).
//!
//! | error from inside the tunnel | effect | section |
//! |---|---|---|
//! | Network Unreachable and its kin (3/0, 6, 9, 11) | Unreachable, code 1 to our own networks, else 0 | 4.1 |
//! | Host Unreachable and its kin (3/1, 7, 8, 10, 12 to 15) | Host Unreachable | 4.1 |
//! | Protocol Unreachable (3/2) | Unreachable, code 1 to our own networks, else 0 | 4.1 |
//! | Port Unreachable (3/3), Source Route Failed (3/5) | not relayed | 4.1 |
//! | Datagram Too Big (3/4) | Too Big with the MTU less the outer header; path MTU learned | 4.1, 5.1 |
//! | Source Quench (4), Redirect (5) | not relayed, not acted upon | 4.2, 4.3, RFC 6633 |
//! | Time Exceeded (11) | Host Unreachable | 4.4 |
//! | Parameter Problem (12) | relayed if about a field copied from the inner header, else not | 4.5 |
//!
//! An error is relayed at once if the quote holds the inner header and 8 bytes more. If it holds
//! less, Too Big takes effect by the path MTU, and an unreachable decapsulator is reported to the
//! sender of the peer's next datagram.

use std::net::Ipv4Addr;
use std::ops::Range;

use adit_policy::{DropReason, Owner, PeerIndex, PeerLookup};
use adit_wire::dscp::DscpPolicy;
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OVERHEAD_V4, OuterPolicy, TtlPolicy};
use adit_wire::icmpv4::{self, Icmpv4Error, Icmpv4Message, Quote, unreachable};
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::{Protocol, Validation};

use crate::counters::Counters;
use crate::icmp_reply::Reply;
use crate::path_mtu::plateau_below;
use crate::soft_state::{SoftState, UnreachableCause};
use crate::time::Instant;
use crate::tunnel::Tunnel;

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
    },
    /// The peer has just answered a probe that contradicts the error, unless the error is very new.
    /// Nothing has been done or counted: [`Prober::handle_icmp`](crate::Prober::handle_icmp) tests
    /// it.
    Doubtful {
        /// The peer whose path it is about.
        peer: PeerIndex,
        /// The error is forged if a datagram of so many bytes arrives.
        refuted_by: u16,
    },
    /// Not about the tunnel: a query, an answer to one, or an error about other traffic.
    NotOurs,
    /// Not relayed; counted already. For [`DropReason::IcmpNotAnswerable`] and
    /// [`DropReason::IcmpRateLimited`] the soft state has learned from it all the same.
    Ignored(DropReason),
}

/// The class of an error, before the original sender is known.
enum ErrorClass {
    Unreachable(UnreachableCause),
    TooBig { mtu: u16 },
    ParameterProblem { code: u8, pointer: u8 },
    NotRelayed,
}

/// RFC 2003 section 4, row by row. The codes from 6 on are younger than its list (RFC 1812 section
/// 5.2.7.1): each is taken as the one of the first two that it is a special case of.
fn classify(error: Icmpv4Error) -> ErrorClass {
    match error {
        Icmpv4Error::DestinationUnreachable { code } => match code {
            unreachable::NET | 6 | 9 | 11 => ErrorClass::Unreachable(UnreachableCause::Network),
            unreachable::HOST | 7 | 8 | 10 | 12..=15 => ErrorClass::Unreachable(UnreachableCause::Host),
            unreachable::PROTOCOL => ErrorClass::Unreachable(UnreachableCause::Protocol),
            _ => ErrorClass::NotRelayed,
        },
        Icmpv4Error::TooBig { mtu } => ErrorClass::TooBig { mtu },
        Icmpv4Error::TimeExceeded { .. } => ErrorClass::Unreachable(UnreachableCause::TimeExceeded),
        Icmpv4Error::ParameterProblem { code, pointer } => ErrorClass::ParameterProblem { code, pointer },
        Icmpv4Error::SourceQuench | Icmpv4Error::Redirect { .. } => ErrorClass::NotRelayed,
    }
}

/// The octet of the inner header that an octet of the outer one was copied from (RFC 2003 section
/// 4.5); `None` if the encapsulator wrote it. Beyond the outer header lies the inner one itself.
fn copied_from_inner(policy: &OuterPolicy, pointer: u8) -> Option<u8> {
    const TOS: u8 = 1;
    const FLAGS: u8 = 6;
    const TTL: u8 = 8;
    let copied = match pointer {
        TOS => policy.dscp == DscpPolicy::Inherit && policy.ecn == EcnMode::Normal,
        FLAGS => !policy.df,
        TTL => policy.ttl == TtlPolicy::Inherit,
        _ => false,
    };
    if copied { Some(pointer) } else { pointer.checked_sub(OVERHEAD_V4 as u8) }
}

/// An ICMP error whose quote is a datagram of ours.
struct ValidatedError<'t, 'a> {
    peer: PeerIndex,
    soft: &'t SoftState,
    error: Icmpv4Error,
    /// The datagram that the tunnel sent, in bytes.
    outer_len: u16,
    outer_df: bool,
    /// The inner datagram, as far as it was quoted.
    inner: Quoted<'a>,
    /// The range of the quoted inner datagram in the message.
    offending: Range<usize>,
}

/// The part of the inner datagram that a quote holds.
#[derive(Clone, Copy)]
enum Quoted<'a> {
    /// Enough to answer its sender.
    Enough(Ipv4Packet<'a>),
    /// Less than that.
    Partial,
    /// It is a probe of ours.
    Probe,
}

impl Tunnel {
    /// Handles an ICMP message. `packet` is the whole IPv4 datagram, as a raw ICMP socket returns
    /// it.
    ///
    /// Costs two lookups and a checksum; allocates nothing. Every message ends in exactly one
    /// count, except [`UnderlayIcmp::Doubtful`].
    pub fn on_underlay_icmp(&self, packet: &[u8], now: Instant, counters: &Counters) -> UnderlayIcmp {
        self.take_icmp(packet, true, now, counters)
    }

    /// The same for a doubtful message that turned out to be genuine.
    pub fn on_confirmed_icmp(&self, packet: &[u8], now: Instant, counters: &Counters) -> UnderlayIcmp {
        self.take_icmp(packet, false, now, counters)
    }

    fn take_icmp(&self, packet: &[u8], may_doubt: bool, now: Instant, counters: &Counters) -> UnderlayIcmp {
        let mut peer = None;
        let outcome = self.validate(packet).and_then(|validated| match validated {
            Some(validated) => {
                peer = Some(validated.peer);
                if let Some(refuted_by) = validated.refuted_by(now).filter(|_| may_doubt) {
                    return Ok(UnderlayIcmp::Doubtful { peer: validated.peer, refuted_by });
                }
                self.act(&validated, now)
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
                counters.count_drop(reason, peer, 1);
                UnderlayIcmp::Ignored(reason)
            }
        }
    }

    /// Reads the message and checks its quote against what this tunnel could have sent (RFC 5927
    /// section 4). `Ok(None)`: none of ours.
    fn validate<'a>(&self, bytes: &'a [u8]) -> Result<Option<ValidatedError<'_, 'a>>, DropReason> {
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
        if outer.protocol() != Protocol::IPIP {
            return Ok(None);
        }
        let found = self.table.lookup_outer(outer.destination());
        let Some((peer, state)) = found.and_then(|peer| Some((peer, self.peer_state(peer)?))) else {
            return Err(DropReason::IcmpUnbelievable);
        };
        let sent_by_us = outer.source() == self.config.underlay
            && packet.destination() == self.config.underlay
            && outer.header_len() == OVERHEAD_V4
            && outer.fragment_offset() == 0;
        if !sent_by_us {
            return Err(DropReason::IcmpUnbelievable);
        }
        let inner = self.quoted_inner(peer, state.underlay, &quote)?;
        let start = packet.header_len() + icmpv4::HEADER_LEN + outer.header_len();
        Ok(Some(ValidatedError {
            peer,
            soft: &state.soft,
            error,
            outer_len: sent_len(&quote),
            outer_df: outer.dont_fragment(),
            inner,
            offending: start..start + quote.payload().len(),
        }))
    }

    /// What the quote holds of the inner datagram; its header and 8 bytes more (or all of it) are
    /// enough. As far as it reaches, it must be one that the tunnel would have sent to that peer.
    fn quoted_inner<'a>(
        &self,
        peer: PeerIndex,
        underlay: Ipv4Addr,
        quote: &Quote<'a>,
    ) -> Result<Quoted<'a>, DropReason> {
        const TRANSPORT_BYTES: usize = 8;
        let bytes = quote.payload();
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

    /// Changes the soft state, and answers the original sender where that is due.
    fn act(&self, validated: &ValidatedError<'_, '_>, now: Instant) -> Result<UnderlayIcmp, DropReason> {
        let ValidatedError { peer, soft, inner, .. } = *validated;
        let error = match classify(validated.error) {
            ErrorClass::NotRelayed => return Err(DropReason::IcmpNotRelayed),
            ErrorClass::Unreachable(cause) => {
                soft.report_unreachable(cause, matches!(inner, Quoted::Enough(_)), now);
                match inner {
                    Quoted::Enough(inner) => Icmpv4Error::DestinationUnreachable {
                        code: self.unreachable_code(cause, inner.source()),
                    },
                    Quoted::Partial => return Ok(UnderlayIcmp::StateChanged { peer }),
                    Quoted::Probe => return Ok(UnderlayIcmp::AboutProbe { peer }),
                }
            }
            ErrorClass::TooBig { mtu } => {
                let mtu = plausible_mtu(validated, mtu).ok_or(DropReason::IcmpUnbelievable)?;
                soft.path_mtu.told(mtu, now);
                Icmpv4Error::TooBig { mtu: soft.path_mtu.mtu(now).saturating_sub(OVERHEAD_V4 as u16) }
            }
            ErrorClass::ParameterProblem { code, pointer } => {
                let pointer =
                    copied_from_inner(self.outer_policy(), pointer).ok_or(DropReason::IcmpNotRelayed)?;
                Icmpv4Error::ParameterProblem { code, pointer }
            }
        };
        let inner = match (inner, error) {
            (Quoted::Enough(inner), _) => inner,
            (Quoted::Probe, _) => return Ok(UnderlayIcmp::AboutProbe { peer }),
            (Quoted::Partial, Icmpv4Error::TooBig { .. }) => return Ok(UnderlayIcmp::StateChanged { peer }),
            (Quoted::Partial, _) => return Err(DropReason::IcmpNotRelayed),
        };
        let reply = self.answer(Some(peer), &inner, error, now)?;
        Ok(UnderlayIcmp::Relay { peer, reply, offending: validated.offending.clone() })
    }

    /// The code of the error for a sender if the decapsulator is unreachable for this cause (RFC
    /// 2003 sections 4.1 and 4.4).
    pub(crate) fn unreachable_code(&self, cause: UnreachableCause, sender: Ipv4Addr) -> u8 {
        match cause {
            UnreachableCause::Host | UnreachableCause::TimeExceeded => unreachable::HOST,
            // Senders on our own networks may get code 1, as if the destination were on a network
            // here; all others must get code 0.
            UnreachableCause::Network | UnreachableCause::Protocol => match self.table.owner(sender) {
                Some(Owner::Ours) => unreachable::HOST,
                _ if self.is_local(sender) => unreachable::HOST,
                Some(Owner::Peer(_)) | None => unreachable::NET,
            },
        }
    }
}

impl ValidatedError<'_, '_> {
    /// The size in bytes of a datagram whose arrival would refute the error; `None` unless the peer
    /// has answered a probe so lately that the error is more likely forged than new (RFC 5927
    /// section 7).
    fn refuted_by(&self, now: Instant) -> Option<u16> {
        let answered = self.soft.answers.lately(now).filter(|_| !matches!(self.inner, Quoted::Probe))?;
        match classify(self.error) {
            ErrorClass::Unreachable(_) => Some(1),
            ErrorClass::TooBig { mtu } => {
                let told = plausible_mtu(self, mtu)?;
                let is_news = told < self.soft.path_mtu.mtu(now);
                (is_news && told < answered).then_some(told.saturating_add(1))
            }
            ErrorClass::ParameterProblem { .. } | ErrorClass::NotRelayed => None,
        }
    }
}

/// Size in bytes of the datagram that the tunnel sent: by the inner header if the quote holds it,
/// because some routers change the outer length before they quote it.
fn sent_len(quote: &Quote<'_>) -> u16 {
    match quote.payload() {
        [_, _, high, low, ..] => u16::from_be_bytes([*high, *low]).saturating_add(OVERHEAD_V4 as u16),
        _ => u16::try_from(quote.packet().total_len()).unwrap_or(u16::MAX),
    }
}

/// The path MTU of a Too Big, if it is plausible: a router refuses only a datagram with DF, and
/// only for a link with a smaller MTU (RFC 5927 section 7.2). If the router gives no MTU, it is the
/// next plateau below (RFC 1191 section 5).
fn plausible_mtu(validated: &ValidatedError<'_, '_>, mtu: u16) -> Option<u16> {
    let told = if mtu == 0 { plateau_below(validated.outer_len) } else { mtu };
    (validated.outer_df && told < validated.outer_len).then_some(told)
}
