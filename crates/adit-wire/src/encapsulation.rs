//! Encapsulation, RFC 2003 section 3.1 and RFC 2473 section 3: writing an outer header.
//!
//! The userspace data plane and the eBPF programs call this, so that both write the same header.
//!
//! ```text
//!                                   +---------------------------+
//!                                   |      Outer IP header      |   OuterHeader, 20 or 40 bytes
//! +---------------------------+     +---------------------------+
//! |      Inner IP header      |     |      Inner IP header      |   not changed
//! +---------------------------+ ==> +---------------------------+
//! |         IP payload        |     |         IP payload        |
//! +---------------------------+     +---------------------------+
//! ```
//!
//! Nothing here panics: a datagram that cannot be encapsulated gives `None`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Protocol;
use crate::dscp::{Dscp, DscpPolicy};
use crate::ecn::{self, Ecn, EcnMode};
use crate::ipv4::{self, Ipv4Repr};
use crate::ipv6::{self, Ipv6Repr};

/// Bytes that encapsulation in IPv4 adds to a datagram.
pub const OVERHEAD_V4: usize = ipv4::HEADER_LEN;

/// Bytes that encapsulation in IPv6 adds to a packet, without an encapsulation limit option.
pub const OVERHEAD_V6: usize = ipv6::HEADER_LEN;

/// Bytes that encapsulation adds on an underlay with this address.
#[must_use]
pub const fn overhead(underlay: IpAddr) -> usize {
    match underlay {
        IpAddr::V4(_) => OVERHEAD_V4,
        IpAddr::V6(_) => OVERHEAD_V6,
    }
}

/// Bytes of destination options that hold an encapsulation limit.
pub const LIMIT_LEN: usize = 8;

/// Bytes of the longest outer header.
const MAX_OUTER_LEN: usize = OVERHEAD_V6 + LIMIT_LEN;

/// How the encapsulator chooses the outer time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TtlPolicy {
    /// It writes this many hops, 1 to 255: enough to reach the decapsulator (RFC 2003 section 3.1).
    Fixed(u8),
    /// It copies that of the inner header. A traceroute then shows the routers of the underlay.
    Inherit,
}

/// How the encapsulator writes the outer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OuterPolicy {
    /// The time to live.
    pub ttl: TtlPolicy,
    /// The differentiated services code point.
    pub dscp: DscpPolicy,
    /// The ECN field.
    pub ecn: EcnMode,
    /// Sets DF on every datagram, so that the path MTU is discovered (RFC 2003 section 5.1). If
    /// not, it is copied from the inner header.
    pub df: bool,
}

/// What RFC 2003 recommends: TTL 64, TOS from the inner header, DF set.
impl Default for OuterPolicy {
    fn default() -> OuterPolicy {
        OuterPolicy { ttl: TtlPolicy::Fixed(64), dscp: DscpPolicy::Inherit, ecn: EcnMode::Normal, df: true }
    }
}

impl OuterPolicy {
    /// The outer TOS octet or traffic class, of the inner one.
    #[inline(always)]
    fn tos(&self, inner: u8) -> u8 {
        let dscp = self.dscp.outer(Dscp::from_tos(inner));
        dscp.value() << 2 | ecn::encapsulate(self.ecn, Ecn::from_tos(inner)).bits()
    }

    /// The outer time to live or hop limit, of the inner one.
    #[inline(always)]
    fn ttl(&self, inner: u8) -> u8 {
        match self.ttl {
            TtlPolicy::Fixed(ttl) => ttl,
            TtlPolicy::Inherit => inner,
        }
    }
}

/// An outer header, to be put before an inner datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterHeader {
    bytes: [u8; MAX_OUTER_LEN],
    len: u8,
}

impl OuterHeader {
    /// Writes the outer IPv4 header for an inner datagram with these fields: `protocol` is
    /// [`Protocol::IPIP`] or [`Protocol::IPV6`], by its family, and an IPv6 packet has a traffic
    /// class and a hop limit in place of TOS and TTL.
    ///
    /// `inner_len` is the length of the inner datagram in bytes, header included. Inner options are
    /// not copied. Returns `None` if the outer datagram would be longer than 65,535 bytes. Costs a
    /// dozen additions for the checksum.
    // Always inlined, because a BPF function takes at most five arguments.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one field of the two headers, and a struct would be built in BPF's 512 bytes of stack"
    )]
    pub fn v4(
        policy: &OuterPolicy,
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        inner_tos: u8,
        inner_ttl: u8,
        inner_df: bool,
        inner_len: usize,
        identification: u16,
    ) -> Option<OuterHeader> {
        if inner_len > ipv4::MAX_TOTAL_LEN - OVERHEAD_V4 {
            return None;
        }
        let header = Ipv4Repr {
            source,
            destination,
            protocol,
            ttl: policy.ttl(inner_ttl),
            tos: policy.tos(inner_tos),
            identification,
            dont_fragment: policy.df || inner_df,
            payload_len: inner_len as u16,
        };
        let mut bytes = [0; MAX_OUTER_LEN];
        *bytes.first_chunk_mut()? = header.emit();
        Some(OuterHeader { bytes, len: OVERHEAD_V4 as u8 })
    }

    /// Writes the outer IPv6 header for an inner packet with these fields, as [`Self::v4`] does.
    /// Of `flow_label` the lower 20 bits are written (RFC 6438). `None` if there are more than
    /// 65,535 bytes inside.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "as for `v4`")]
    pub fn v6(
        policy: &OuterPolicy,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: Protocol,
        inner_tos: u8,
        inner_ttl: u8,
        flow_label: u32,
        inner_len: usize,
    ) -> Option<OuterHeader> {
        let header = Ipv6Repr {
            source,
            destination,
            next_header: protocol,
            hop_limit: policy.ttl(inner_ttl),
            traffic_class: policy.tos(inner_tos),
            flow_label,
            payload_len: u16::try_from(inner_len).ok()?,
        };
        let mut bytes = [0; MAX_OUTER_LEN];
        *bytes.first_chunk_mut()? = header.emit();
        Some(OuterHeader { bytes, len: OVERHEAD_V6 as u8 })
    }

    /// The same header of IPv6 with an encapsulation limit behind it (RFC 2473 section 5.1), for an
    /// inner packet that has one itself. `None`: the packet would be too long, or is one of IPv4.
    #[must_use]
    pub fn with_limit(mut self, limit: u8) -> Option<OuterHeader> {
        let (header, options) = self.bytes.split_at_mut_checked(OVERHEAD_V6)?;
        let &[.., high, low, next_header, _] = header.first_chunk::<8>()?;
        if usize::from(self.len) != OVERHEAD_V6 {
            return None;
        }
        let len = u16::from_be_bytes([high, low]).checked_add(LIMIT_LEN as u16)?;
        // The limit, and an option that fills the 8 bytes (PadN of 1 byte).
        options.copy_from_slice(&[next_header, 0, 4, 1, limit, 1, 1, 0]);
        ipv6::set_payload_len(header, len)?;
        *header.get_mut(6)? = Protocol::DESTINATION_OPTIONS.0;
        self.len = MAX_OUTER_LEN as u8;
        Some(self)
    }

    /// Returns the header as it is on the wire.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or(&self.bytes)
    }

    /// Returns the header as it is on the wire, if it is an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub fn as_v4(&self) -> Option<[u8; OVERHEAD_V4]> {
        if self.len() == OVERHEAD_V4 { self.bytes.first_chunk().copied() } else { None }
    }

    /// Returns the header as it is on the wire, if it is an IPv6 header without a limit.
    #[inline(always)]
    #[must_use]
    pub fn as_v6(&self) -> Option<[u8; OVERHEAD_V6]> {
        if self.len() == OVERHEAD_V6 { self.bytes.first_chunk().copied() } else { None }
    }

    /// Returns the length of the header in bytes.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns true if no router may fragment the datagram: DF is set, or the header is one of
    /// IPv6. The identification then has no meaning (RFC 6864).
    #[inline]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.len() >= OVERHEAD_V6 || self.bytes[6] & 0x40 != 0
    }

    /// Returns the identification of an IPv4 header, in host byte order.
    #[inline]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.bytes[4], self.bytes[5]])
    }

    /// Returns the header for another segment of the same GSO packet. The checksum of IPv4 is
    /// updated by increments (RFC 1624). A header of IPv6 has no identification.
    ///
    /// `inner_len` is the length of the inner datagram in bytes, header included, at most the
    /// 65,515 that [`Self::v4`] accepts: a segment is no longer than the first one. For more, the
    /// total length is 65,535.
    #[inline]
    #[must_use]
    pub fn for_segment(&self, inner_len: u16, identification: u16) -> OuterHeader {
        let mut segment = *self;
        if self.len() >= OVERHEAD_V6 {
            let options = (self.len() - OVERHEAD_V6) as u16;
            let _ = ipv6::set_payload_len(&mut segment.bytes, inner_len.saturating_add(options));
        } else if let Some(header) = segment.bytes.first_chunk_mut() {
            let total_len = inner_len.saturating_add(OVERHEAD_V4 as u16);
            ipv4::set_length_and_id(header, total_len, identification);
        }
        segment
    }
}
