//! What the programs ask of an IP header, inner or outer. Its family is a type, so each program is
//! written once, and the code for one family has nothing of the other in it.

use adit_policy::{GsoInfo, GsoShape};
use adit_wire::Protocol;
use adit_wire::ipv4::{self, Ipv4Header};
use adit_wire::ipv6::{self, Ipv6Header};

use crate::skb::{Family, Skb};

/// An IP header without options or extensions.
pub trait Header: Copy {
    const FAMILY: Family;
    /// Bytes of the header.
    const LEN: usize = Self::FAMILY.header_len();
    /// What an outer header says of it.
    const PROTOCOL: Protocol;
    /// The header at `offset`, if it can be read directly.
    fn read(skb: Skb, offset: usize) -> Option<Self>;
    /// Writes the header at `offset`. Returns `None` if it cannot be written directly.
    fn write(&self, skb: Skb, offset: usize) -> Option<()>;
    /// The shape of the packet; `None` for one that the programs do not carry. `available` are the
    /// bytes from the header on.
    fn shape(&self, available: u32, gso: GsoInfo) -> Option<GsoShape>;
    /// DSCP and ECN.
    fn tos(&self) -> u8;
    /// TTL, or hop limit.
    fn ttl(&self) -> u8;
}

/// A header as aligned words. Reading it a byte at a time would cost four times the loads in the
/// kernel's machine code.
type WordsV4 = [u32; ipv4::HEADER_LEN / 4];
type WordsV6 = [u32; ipv6::HEADER_LEN / 4];

impl Header for Ipv4Header {
    const FAMILY: Family = Family::V4;
    const PROTOCOL: Protocol = Protocol::IPIP;

    #[inline(always)]
    fn read(skb: Skb, offset: usize) -> Option<Self> {
        skb.load_words::<WordsV4>(offset).map(|words| zerocopy::transmute!(words))
    }

    #[inline(always)]
    fn write(&self, skb: Skb, offset: usize) -> Option<()> {
        let words: WordsV4 = zerocopy::transmute!(*self);
        skb.store_words(offset, words)
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
    fn ttl(&self) -> u8 {
        self.ttl()
    }
}

impl Header for Ipv6Header {
    const FAMILY: Family = Family::V6;
    const PROTOCOL: Protocol = Protocol::IPV6;

    #[inline(always)]
    fn read(skb: Skb, offset: usize) -> Option<Self> {
        skb.load_words::<WordsV6>(offset).map(|words| zerocopy::transmute!(words))
    }

    #[inline(always)]
    fn write(&self, skb: Skb, offset: usize) -> Option<()> {
        let words: WordsV6 = zerocopy::transmute!(*self);
        skb.store_words(offset, words)
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
    fn ttl(&self) -> u8 {
        self.hop_limit()
    }
}
