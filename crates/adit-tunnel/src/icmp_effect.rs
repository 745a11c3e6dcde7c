//! What an ICMP error about a datagram of ours does (RFC 2003 section 4).
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
//! | the same in transit (11/0), if the outer TTL is the sender's | Time Exceeded, no state changes | deviates from 4.4 |
//! | Parameter Problem (12) | relayed if about a field copied from the inner header, else not | 4.5 |
//!
//! An error is relayed at once if the quote holds the inner header and 8 bytes more. If it holds
//! less, Too Big takes effect by the path MTU, and an unreachable decapsulator is reported to the
//! sender of the peer's next datagram. A sender of IPv6 gets Address Unreachable, Packet Too Big
//! unless its packet is one that the tunnel sends in fragments, or Time Exceeded (RFC 2473 section
//! 8).

use std::net::Ipv4Addr;

use adit_policy::{DropReason, Owner, OwnerLookup, SenderError};
use adit_wire::dscp::DscpPolicy;
use adit_wire::ecn::EcnMode;
use adit_wire::encapsulation::{OVERHEAD_V4, OuterPolicy, TtlPolicy};
use adit_wire::icmpv4::{Icmpv4Error, unreachable};
use adit_wire::icmpv6::{self, Icmpv6Error};
use adit_wire::ipv6::MIN_MTU;

use crate::path_mtu::plateau_below;
use crate::soft_state::{UnreachableCause, UnreachableError};
use crate::time::Instant;
use crate::tunnel::Tunnel;
use crate::underlay_icmp::{Claim, Proof, Quoted, RouterError, Trust, UnderlayIcmp, ValidatedError};

/// The class of an error, before the original sender is known.
enum ErrorClass {
    Unreachable(UnreachableError),
    /// The TTL that the sender chose has run out on the underlay.
    TtlExpired,
    TooBig {
        mtu: u16,
    },
    ParameterProblem {
        code: u8,
        pointer: u8,
    },
    NotRelayed,
}

/// What the original sender gets.
#[derive(Clone, Copy)]
enum Relayed {
    /// An error that each family has.
    Error(SenderError),
    /// One about a field that was copied from its IPv4 header.
    ParameterProblem { code: u8, pointer: u8 },
}

impl Relayed {
    fn to_v4(self) -> Icmpv4Error {
        match self {
            Relayed::Error(error) => error.to_v4(),
            Relayed::ParameterProblem { code, pointer } => Icmpv4Error::ParameterProblem { code, pointer },
        }
    }
}

/// RFC 2003 section 4, row by row. The codes from 6 on are younger than its list (RFC 1812 section
/// 5.2.7.1): each is taken as the one of the first two that it is a special case of.
///
/// An outer TTL that was copied from the inner one is the sender's: that it runs out says nothing
/// about the peer. Its sender gets the same error, as without a tunnel, so that a traceroute counts
/// the hops of the underlay.
fn classify(error: RouterError, ttl: TtlPolicy) -> ErrorClass {
    match error {
        RouterError::V4(error) => classify_v4(error, ttl),
        RouterError::V6(error) => classify_v6(error, ttl),
    }
}

/// RFC 2473 section 8, by the errors of IPv4 that say the same. That a peer does not know the next
/// header is Protocol Unreachable there.
fn classify_v6(error: Icmpv6Error, ttl: TtlPolicy) -> ErrorClass {
    use icmpv6::unreachable as v6;
    match error {
        Icmpv6Error::DestinationUnreachable { code: v6::PORT } => ErrorClass::NotRelayed,
        Icmpv6Error::DestinationUnreachable { code } => {
            let code = match code {
                v6::NO_ROUTE | v6::BEYOND_SCOPE => unreachable::NET,
                v6::PROHIBITED | v6::SOURCE_POLICY | v6::REJECT_ROUTE => unreachable::PROHIBITED,
                _ => unreachable::HOST,
            };
            ErrorClass::Unreachable(UnreachableError::destination(code))
        }
        // Hosts discard it (RFC 8201 section 4).
        Icmpv6Error::TooBig { mtu } if mtu < u32::from(MIN_MTU) => ErrorClass::NotRelayed,
        Icmpv6Error::TooBig { mtu } => ErrorClass::TooBig { mtu: u16::try_from(mtu).unwrap_or(u16::MAX) },
        Icmpv6Error::ParameterProblem { code: icmpv6::parameter::NEXT_HEADER, .. } => {
            ErrorClass::Unreachable(UnreachableError::destination(unreachable::PROTOCOL))
        }
        Icmpv6Error::ParameterProblem { .. } => ErrorClass::NotRelayed,
        Icmpv6Error::TimeExceeded { code } => classify_v4(Icmpv4Error::TimeExceeded { code }, ttl),
    }
}

fn classify_v4(error: Icmpv4Error, ttl: TtlPolicy) -> ErrorClass {
    match error {
        Icmpv4Error::DestinationUnreachable { code } => match code {
            unreachable::NET..=unreachable::PROTOCOL | 6..=15 => {
                ErrorClass::Unreachable(UnreachableError::destination(code))
            }
            _ => ErrorClass::NotRelayed,
        },
        Icmpv4Error::TooBig { mtu } => ErrorClass::TooBig { mtu },
        Icmpv4Error::TimeExceeded { code: 0 } if ttl == TtlPolicy::Inherit => ErrorClass::TtlExpired,
        Icmpv4Error::TimeExceeded { code } => ErrorClass::Unreachable(UnreachableError::time_exceeded(code)),
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

impl Tunnel {
    /// What an error says that nothing proves yet, and the size in bytes of a datagram whose
    /// arrival would refute it; `None` if it may be acted upon. A tunnel that cannot probe believes
    /// every quote.
    pub(crate) fn doubt(&self, validated: &ValidatedError<'_, '_>, now: Instant) -> Option<(Claim, u16)> {
        if self.probing(validated.peer).is_none() || matches!(validated.inner, Quoted::Probe) {
            return None;
        }
        match self.class_of(validated) {
            ErrorClass::Unreachable(_) => Some((Claim::Unreachable, 1)),
            ErrorClass::TooBig { mtu } => {
                let told = self.plausible_mtu(validated, mtu)?;
                // An MTU that is not less than the one in use changes nothing.
                let is_news = told < validated.state.soft.path_mtu.mtu(now);
                is_news.then(|| (Claim::TooBig, told.saturating_add(1)))
            }
            ErrorClass::ParameterProblem { pointer, .. } => {
                copied_from_inner(self.outer_policy(), pointer).map(|_| (Claim::ParameterProblem, 1))
            }
            ErrorClass::TtlExpired | ErrorClass::NotRelayed => None,
        }
    }

    fn class_of(&self, validated: &ValidatedError<'_, '_>) -> ErrorClass {
        // A probe has a TTL of ours.
        let ttl = match validated.inner {
            Quoted::Probe => TtlPolicy::Fixed(1),
            Quoted::Enough(_) | Quoted::EnoughV6(_) | Quoted::Partial => self.outer_policy().ttl,
        };
        classify(validated.error, ttl)
    }

    /// Changes the soft state, and answers the original sender where that is due.
    pub(crate) fn act(
        &self,
        validated: &ValidatedError<'_, '_>,
        trust: Trust,
        now: Instant,
    ) -> Result<UnderlayIcmp, DropReason> {
        let ValidatedError { peer, state, inner, .. } = *validated;
        let soft = &state.soft;
        let (claim, error) = match self.class_of(validated) {
            ErrorClass::NotRelayed => return Err(DropReason::IcmpNotRelayed),
            ErrorClass::Unreachable(error) => {
                let is_told = matches!(inner, Quoted::Enough(_) | Quoted::EnoughV6(_));
                soft.report_unreachable(error, validated.router, is_told, now);
                let code_v4 = match inner {
                    Quoted::Enough(inner) => self.unreachable_code(error, inner.source()),
                    Quoted::Partial => return Ok(UnderlayIcmp::StateChanged { peer }),
                    Quoted::EnoughV6(_) | Quoted::Probe => unreachable::HOST,
                };
                (Claim::Unreachable, Relayed::Error(SenderError::GatewayUnreachable { code_v4 }))
            }
            ErrorClass::TooBig { mtu } => {
                let mtu = self.plausible_mtu(validated, mtu).ok_or(DropReason::IcmpUnbelievable)?;
                if self.probing(peer).is_none()
                    || matches!(inner, Quoted::Probe)
                    || trust == Trust::Proven(Proof::Silence)
                {
                    soft.path_mtu.told(mtu, now);
                }
                let path_mtu = soft.path_mtu.mtu(now);
                // A router means less than the floor, or the path takes this datagram after all.
                if validated.outer_len <= path_mtu && !matches!(inner, Quoted::Probe) {
                    return Err(DropReason::IcmpUnproven);
                }
                let mtu = path_mtu.saturating_sub(state.overhead() as u16);
                (Claim::TooBig, Relayed::Error(SenderError::TooBig { mtu }))
            }
            ErrorClass::ParameterProblem { code, pointer } => {
                let pointer =
                    copied_from_inner(self.outer_policy(), pointer).ok_or(DropReason::IcmpNotRelayed)?;
                (Claim::ParameterProblem, Relayed::ParameterProblem { code, pointer })
            }
            ErrorClass::TtlExpired => (Claim::Unreachable, Relayed::Error(SenderError::HopLimitExceeded)),
        };
        let reply = match (inner, error) {
            (Quoted::Enough(inner), error) => self.answer(Some(peer), &inner, error.to_v4(), now)?,
            (Quoted::EnoughV6(inner), Relayed::Error(error)) => {
                let error = match error {
                    // The tunnel sends such a packet in fragments.
                    SenderError::TooBig { .. } if inner.total_len() <= usize::from(MIN_MTU) => {
                        return Ok(UnderlayIcmp::StateChanged { peer });
                    }
                    SenderError::TooBig { mtu } => SenderError::TooBig { mtu: mtu.max(MIN_MTU) },
                    error => error,
                };
                self.answer_v6(Some(peer), &inner, error.to_v6(), now)?
            }
            (Quoted::Probe, _) => return Ok(UnderlayIcmp::AboutProbe { peer, claim }),
            (Quoted::Partial, Relayed::Error(SenderError::TooBig { .. })) => {
                return Ok(UnderlayIcmp::StateChanged { peer });
            }
            // The octets of an IPv4 header say nothing to a sender of IPv6.
            (Quoted::Partial | Quoted::EnoughV6(_), _) => return Err(DropReason::IcmpNotRelayed),
        };
        Ok(UnderlayIcmp::Relay { peer, reply, offending: validated.offending.clone() })
    }

    /// The path MTU of a Too Big, if it is plausible: a router refuses only a datagram with DF, and
    /// only for a link with a smaller MTU (RFC 5927 section 7.2). If the router gives no MTU, it is
    /// the next plateau below (RFC 1191 section 5). Routers set no less than the floor.
    fn plausible_mtu(&self, validated: &ValidatedError<'_, '_>, mtu: u16) -> Option<u16> {
        let told = if mtu == 0 { plateau_below(validated.outer_len) } else { mtu };
        let is_plausible = validated.outer_df && told < validated.outer_len;
        is_plausible.then(|| told.max(self.mtu_floor(validated.state.path)))
    }

    /// The code of the error for a sender if this one says that the decapsulator is unreachable
    /// (RFC 2003 sections 4.1 and 4.4).
    pub(crate) fn unreachable_code(&self, error: UnreachableError, sender: Ipv4Addr) -> u8 {
        let is_about_network = error.icmp_code == unreachable::NETWORK_PROHIBITED;
        match error.cause() {
            UnreachableCause::Host | UnreachableCause::TimeExceeded => unreachable::HOST,
            UnreachableCause::Prohibited if !is_about_network => unreachable::HOST,
            // Senders on our own networks may get code 1, as if the destination were on a network
            // here; all others must get code 0.
            UnreachableCause::Network | UnreachableCause::Protocol | UnreachableCause::Prohibited => {
                match self.table.owner(sender) {
                    Some(Owner::Ours) => unreachable::HOST,
                    _ if self.is_local(sender) => unreachable::HOST,
                    Some(Owner::Peer(_)) | None => unreachable::NET,
                }
            }
        }
    }
}
