//! What the programs ask of an inner header beyond the rules of the policy. Its family is a type,
//! so each program is written once, and the code for one family has nothing of the other in it.

use adit_policy::{GsoInfo, GsoShape, InnerHeader};
use adit_wire::Protocol;
use adit_wire::ecn::Ecn;
use adit_wire::ipv4::{self, Ipv4Header};
use adit_wire::ipv6::{self, Ipv6Header};
use zerocopy::IntoBytes;

use crate::skb::Skb;
use crate::tables::InnerTables;

/// An inner header.
pub trait Inner: InnerHeader<Address: InnerTables> + Copy {
    /// Bytes of the header.
    const LEN: usize;
    /// What the outer header says of it.
    const OUTER_PROTOCOL: Protocol;
    const IS_V6: bool = matches!(Self::OUTER_PROTOCOL, Protocol::IPV6);
    /// The header at `offset`, if it can be read directly.
    fn read(skb: Skb, offset: usize) -> Option<Self>;
    /// Writes the header at `offset`. Returns `None` if it cannot be written directly.
    fn write(&self, skb: Skb, offset: usize) -> Option<()>;
    /// The shape of the packet; `None` for one that the programs do not carry. `available` are the
    /// bytes from the header on.
    fn shape(&self, available: u32, gso: GsoInfo) -> Option<GsoShape>;
    /// DSCP and ECN.
    fn tos(&self) -> u8;
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
    /// Whether the packet at `offset` may be a probe or the answer to one, which userspace reads.
    fn may_be_probe(&self, skb: Skb, offset: usize) -> bool;
    /// Whether the packet at `offset` may be an error from a router with an unlisted address, which
    /// userspace judges.
    fn may_be_router_error(&self, skb: Skb, offset: usize) -> bool;
    /// Removes the outer header, and has the packet be one of this family. `None`: the packet is as
    /// it was. `Some(false)`: it is lost.
    fn pop_outer(skb: Skb) -> Option<bool>;
    /// The source, for the record of the last drop.
    fn source_octets(&self) -> [u8; 16];
}

impl Inner for Ipv4Header {
    const LEN: usize = ipv4::HEADER_LEN;
    const OUTER_PROTOCOL: Protocol = Protocol::IPIP;

    #[inline(always)]
    fn read(skb: Skb, offset: usize) -> Option<Self> {
        skb.header(offset)
    }

    #[inline(always)]
    fn write(&self, skb: Skb, offset: usize) -> Option<()> {
        skb.set_header(offset, self.as_bytes().first_chunk()?)
    }

    #[inline(always)]
    fn shape(&self, available: u32, gso: GsoInfo) -> Option<GsoShape> {
        adit_policy::gso_shape(self, available, gso)
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        self.tos()
    }

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
    fn may_be_probe(&self, skb: Skb, offset: usize) -> bool {
        if self.protocol() != Protocol::ICMP {
            return false;
        }
        // A message that is shorter is none.
        let Some([kind, _, _, _, high, low, ..]) = skb.echo_header(offset + Self::LEN) else { return false };
        adit_policy::may_be_probe(self, kind, u16::from_be_bytes([high, low]))
    }

    #[inline(always)]
    fn may_be_router_error(&self, skb: Skb, offset: usize) -> bool {
        skb.byte(offset + Self::LEN).is_some_and(|kind| adit_policy::may_be_router_error(self, kind))
    }

    #[inline(always)]
    fn pop_outer(skb: Skb) -> Option<bool> {
        skb.pop_outer_v4().map(|()| true)
    }

    #[inline(always)]
    fn source_octets(&self) -> [u8; 16] {
        self.source().to_ipv6_mapped().octets()
    }
}

/// Probes are of IPv4.
impl Inner for Ipv6Header {
    const LEN: usize = ipv6::HEADER_LEN;
    const OUTER_PROTOCOL: Protocol = Protocol::IPV6;

    #[inline(always)]
    fn read(skb: Skb, offset: usize) -> Option<Self> {
        skb.header_v6(offset)
    }

    #[inline(always)]
    fn write(&self, skb: Skb, offset: usize) -> Option<()> {
        skb.set_header_v6(offset, self)
    }

    #[inline(always)]
    fn shape(&self, available: u32, gso: GsoInfo) -> Option<GsoShape> {
        adit_policy::gso_shape_v6(self, available, gso)
    }

    #[inline(always)]
    fn tos(&self) -> u8 {
        self.traffic_class()
    }

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
    fn may_be_probe(&self, _: Skb, _: usize) -> bool {
        false
    }

    #[inline(always)]
    fn may_be_router_error(&self, skb: Skb, offset: usize) -> bool {
        skb.byte(offset + Self::LEN).is_some_and(|kind| adit_policy::may_be_router_error(self, kind))
    }

    #[inline(always)]
    fn pop_outer(skb: Skb) -> Option<bool> {
        let is_whole = skb.pop_outer_v6()?;
        Some(is_whole && skb.set_ethertype_v6().is_some())
    }

    #[inline(always)]
    fn source_octets(&self) -> [u8; 16] {
        self.source().octets()
    }
}
