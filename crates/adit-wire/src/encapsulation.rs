//! Encapsulation, RFC 2003 section 3.1: the one function that writes an outer header. The userspace
//! data plane, the kernel's eBPF program, the fuzzers and the tests all call it.

use core::net::Ipv4Addr;

use crate::Protocol;
use crate::dscp::{Dscp, DscpPolicy};
use crate::ecn::{self, Ecn, EcnMode};
use crate::ipv4::{self, Ipv4Repr};

/// Bytes that an outer IPv4 header adds.
pub const OVERHEAD_V4: usize = ipv4::HEADER_LEN;

/// Room for the longest outer header: IPv6's 40 bytes.
const MAX_OUTER_LEN: usize = 40;

/// The time to live of the outer header, in hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TtlPolicy {
    /// Always this one, 1 to 255: a value fit to reach the exit (RFC 2003 section 3.1).
    Fixed(u8),
    /// That of the inner header, which makes the tunnel's path visible to a traceroute.
    Inherit,
}

/// How the outer header is made from the inner one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OuterPolicy {
    /// Time to live.
    pub ttl: TtlPolicy,
    /// Differentiated services code point.
    pub dscp: DscpPolicy,
    /// How the ECN field is written.
    pub ecn: EcnMode,
    /// Sets DF always, so that the path MTU is learned (RFC 2003 section 5.1). An inner DF is honoured
    /// either way.
    pub df: bool,
}

/// RFC 2003 as it recommends: TTL 64, TOS from the inner header, DF set.
impl Default for OuterPolicy {
    fn default() -> OuterPolicy {
        OuterPolicy { ttl: TtlPolicy::Fixed(64), dscp: DscpPolicy::Inherit, ecn: EcnMode::Normal, df: true }
    }
}

/// An outer header, ready to be put in front of an inner datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterHeader {
    bytes: [u8; MAX_OUTER_LEN],
    len: u8,
}

impl OuterHeader {
    /// The outer IPv4 header for an inner datagram of which the fields that matter are given.
    ///
    /// `inner_len` is in bytes of the inner datagram on the wire, its header included. `None` if the
    /// outer datagram would be longer than 65,535 bytes. Inner options are not copied. Costs a dozen
    /// additions for the checksum.
    // Inlined always: BPF passes five arguments at most.
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
        inner_tos: u8,
        inner_ttl: u8,
        inner_df: bool,
        inner_len: usize,
        identification: u16,
    ) -> Option<OuterHeader> {
        if inner_len > ipv4::MAX_TOTAL_LEN - OVERHEAD_V4 {
            return None;
        }
        let dscp = policy.dscp.outer(Dscp::from_tos(inner_tos));
        let ecn = ecn::encapsulate(policy.ecn, Ecn::from_tos(inner_tos));
        let header = Ipv4Repr {
            source,
            destination,
            protocol: Protocol::IPIP,
            ttl: match policy.ttl {
                TtlPolicy::Fixed(ttl) => ttl,
                TtlPolicy::Inherit => inner_ttl,
            },
            tos: dscp.value() << 2 | ecn.bits(),
            identification,
            dont_fragment: policy.df || inner_df,
            payload_len: inner_len as u16,
        };
        let mut bytes = [0; MAX_OUTER_LEN];
        *bytes.first_chunk_mut()? = header.emit();
        Some(OuterHeader { bytes, len: OVERHEAD_V4 as u8 })
    }

    /// The header as it goes on the wire.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or(&self.bytes)
    }

    /// The header as it goes on the wire, if it is an IPv4 one.
    #[inline(always)]
    #[must_use]
    pub fn as_v4(&self) -> Option<[u8; OVERHEAD_V4]> {
        if self.len() == OVERHEAD_V4 { self.bytes.first_chunk().copied() } else { None }
    }

    /// Bytes of the header.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether DF is set: then the identification means nothing (RFC 6864).
    #[inline]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.bytes[6] & 0x40 != 0
    }

    /// The identification, in host byte order.
    #[inline]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.bytes[4], self.bytes[5]])
    }

    /// The same header for another segment of a superpacket, by incremental checksum (RFC 1624).
    ///
    /// `inner_len` is in bytes of the inner datagram, its header included, and no more than the 65,515
    /// that [`Self::v4`] accepts: a segment is no longer than the first one. Longer is written as the
    /// greatest length there is.
    #[inline]
    #[must_use]
    pub fn for_segment(&self, inner_len: u16, identification: u16) -> OuterHeader {
        let mut segment = *self;
        if let Some(header) = segment.bytes.first_chunk_mut() {
            let total_len = inner_len.saturating_add(OVERHEAD_V4 as u16);
            ipv4::set_length_and_id(header, total_len, identification);
        }
        segment
    }
}
