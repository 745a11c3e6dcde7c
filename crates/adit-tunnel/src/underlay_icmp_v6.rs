//! ICMPv6 errors from routers of an underlay of IPv6 (RFC 2473 section 8).

use std::net::IpAddr;

use adit_policy::DropReason;
use adit_wire::icmpv6::{self, Icmpv6Message};
use adit_wire::ipv6::{self, Ipv6Packet};
use adit_wire::{Protocol, Validation};

use crate::tunnel::Tunnel;
use crate::underlay_icmp::{RouterError, ValidatedError};

impl Tunnel {
    /// As `validate` of IPv4.
    pub(crate) fn validate_v6<'a>(
        &self,
        bytes: &'a [u8],
    ) -> Result<Option<ValidatedError<'_, 'a>>, DropReason> {
        let packet = Ipv6Packet::parse(bytes, Validation::Datapath).map_err(|_| DropReason::IcmpMalformed)?;
        if packet.next_header() != Protocol::ICMPV6 {
            return Ok(None);
        }
        let message = Icmpv6Message::parse(packet.payload()).ok_or(DropReason::IcmpMalformed)?;
        if !message.checksum_ok(packet.source(), packet.destination()) {
            return Err(DropReason::IcmpMalformed);
        }
        let Some(error) = message.error() else {
            return Ok(None);
        };
        let outer = message.quote().ok_or(DropReason::IcmpMalformed)?;
        // The tunnel writes no extension header but the fragment header, whose packets no router
        // refuses for their size.
        let protocol = outer.next_header();
        let carries_v6 = protocol == Protocol::IPV6 && self.table.has_v6();
        if protocol != Protocol::IPIP && !carries_v6 {
            return Ok(None);
        }
        let found = self.table.lookup_outer(outer.destination().into());
        let Some((peer, state)) = found.and_then(|peer| Some((peer, self.peer_state(peer)?))) else {
            return Err(DropReason::IcmpUnbelievable);
        };
        let path = state.path;
        let is_sent_by_us = path.source == outer.source()
            && path.source == packet.destination()
            && path.destination == outer.destination();
        if !is_sent_by_us {
            return Err(DropReason::IcmpUnbelievable);
        }
        let inner = if carries_v6 {
            self.quoted_inner_v6(peer, path.destination, outer.payload())?
        } else {
            self.quoted_inner(peer, path.destination, outer.payload())?
        };
        let start = ipv6::HEADER_LEN + icmpv6::HEADER_LEN + ipv6::HEADER_LEN;
        Ok(Some(ValidatedError {
            peer,
            state,
            error: RouterError::V6(error),
            router: IpAddr::V6(packet.source()),
            outer_len: u16::try_from(outer.total_len()).unwrap_or(u16::MAX),
            outer_df: true,
            inner,
            offending: start..start + outer.payload().len(),
        }))
    }
}
