//! What the programs ask of an inner header beyond the rules of the policy.

use adit_policy::{FlowAddress, FlowKey, InnerHeader};
use adit_wire::ecn::Ecn;
use adit_wire::ipv4::{self, Ipv4Header};
use adit_wire::ipv6::{self, Ipv6Header};

use crate::header::Header;
use crate::skb::Skb;
use crate::tables::InnerTables;

/// An inner header.
pub trait Inner: Header + InnerHeader<Address: InnerTables + FlowAddress> {
    /// Bytes of the packet by the header, which they include.
    fn len(&self) -> u32;
    /// Whether nobody but its sender may fragment it.
    fn dont_fragment(&self) -> bool;
    /// Whether it is whole, or the first fragment.
    fn has_transport_header(&self) -> bool;
    /// The header with this ECN field.
    fn with_ecn(self, ecn: Ecn) -> Option<Self>;
    /// The header with one hop less, of which there are some left.
    fn after_hop(self) -> Option<Self>;
    /// The source, for the record of the last drop.
    fn source_octets(&self) -> [u8; 16];

    /// Whether the packet at `offset` may be a probe or the answer to one, which userspace reads.
    #[inline(always)]
    fn may_be_probe(&self, skb: Skb, offset: usize) -> bool {
        if !self.is_icmp() {
            return false;
        }
        // A message that is shorter is none.
        let Some([kind, _, _, _, high, low, ..]) = skb.echo_header(offset + Self::LEN) else { return false };
        adit_policy::may_be_probe(self, kind, u16::from_be_bytes([high, low]))
    }

    /// Whether the packet at `offset` may be an error from a router with an unlisted address, which
    /// userspace judges.
    #[inline(always)]
    fn may_be_router_error(&self, skb: Skb, offset: usize) -> bool {
        skb.byte(offset + Self::LEN).is_some_and(|kind| adit_policy::may_be_router_error(self, kind))
    }

    /// The flow label for the packet at `offset`.
    #[inline(always)]
    fn flow_label(&self, skb: Skb, offset: usize, key: FlowKey) -> u32 {
        let has_ports = adit_policy::has_ports(self.protocol())
            && !self.is_fragment()
            && self.len() >= Self::LEN as u32 + 4;
        let ports = if has_ports { skb.load_words::<[u32; 1]>(offset + Self::LEN) } else { None };
        let ports = zerocopy::transmute!(ports.unwrap_or_default());
        adit_policy::flow_label(key, self.source(), self.destination(), self.protocol(), ports)
    }
}

impl Inner for Ipv4Header {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.total_len().into()
    }

    #[inline(always)]
    fn dont_fragment(&self) -> bool {
        self.dont_fragment()
    }

    #[inline(always)]
    fn has_transport_header(&self) -> bool {
        self.fragment_offset() == 0
    }

    #[inline(always)]
    fn with_ecn(self, ecn: Ecn) -> Option<Self> {
        let mut bytes: [u8; ipv4::HEADER_LEN] = zerocopy::transmute!(self);
        ipv4::set_ecn(&mut bytes, ecn)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn after_hop(self) -> Option<Self> {
        let ttl = self.ttl().checked_sub(1)?;
        let mut bytes: [u8; ipv4::HEADER_LEN] = zerocopy::transmute!(self);
        ipv4::set_ttl(&mut bytes, ttl)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn source_octets(&self) -> [u8; 16] {
        self.source().to_ipv6_mapped().octets()
    }
}

impl Inner for Ipv6Header {
    #[inline(always)]
    fn len(&self) -> u32 {
        ipv6::HEADER_LEN as u32 + u32::from(self.payload_len())
    }

    #[inline(always)]
    fn dont_fragment(&self) -> bool {
        true
    }

    #[inline(always)]
    fn has_transport_header(&self) -> bool {
        true
    }

    #[inline(always)]
    fn with_ecn(self, ecn: Ecn) -> Option<Self> {
        let mut bytes: [u8; ipv6::HEADER_LEN] = zerocopy::transmute!(self);
        ipv6::set_ecn(&mut bytes, ecn)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn after_hop(self) -> Option<Self> {
        let hop_limit = self.hop_limit().checked_sub(1)?;
        let mut bytes: [u8; ipv6::HEADER_LEN] = zerocopy::transmute!(self);
        ipv6::set_hop_limit(&mut bytes, hop_limit)?;
        Some(zerocopy::transmute!(bytes))
    }

    #[inline(always)]
    fn source_octets(&self) -> [u8; 16] {
        self.source().octets()
    }
}
