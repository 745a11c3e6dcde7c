//! The outer header: what `decap` reads of it, and how `encap` and `relay` write it.

use adit_policy::bpf::maps::{Form, PathEntry, UnderlayAddress};
use adit_policy::{GsoShape, PeerIndex};
use adit_wire::encapsulation::OuterHeader;
use adit_wire::ipv4::Ipv4Header;
use adit_wire::ipv6::Ipv6Header;

use crate::header::Header;
use crate::inner::Inner;
use crate::skb::{ETHERNET, NextHop, Skb};
use crate::tables::Tables;

/// An outer header.
pub trait Outer: Header {
    const FORM: Form;
    /// Offset of the inner header in a packet from the underlay, in bytes.
    const INNER: usize = ETHERNET + Self::LEN;
    fn source(&self) -> UnderlayAddress;
    fn destination(&self) -> UnderlayAddress;
    /// Whether it is a fragment.
    fn is_fragment(&self) -> bool;
    /// The next hop of a path of this family.
    fn next_hop(path: &PathEntry) -> NextHop;
    /// The header for a datagram to `peer`, or for a whole GSO packet: the kernel writes the
    /// lengths and identifications of the segments that it cuts. The inner packet is at `at`.
    fn encapsulate<I: Inner>(
        skb: Skb,
        tables: &Tables,
        peer: PeerIndex,
        path: &PathEntry,
        inner: &I,
        shape: GsoShape,
        at: usize,
    ) -> Option<Self>;
}

impl Outer for Ipv4Header {
    const FORM: Form = Form::InIpv4;

    #[inline(always)]
    fn source(&self) -> UnderlayAddress {
        UnderlayAddress::v4(self.source())
    }

    #[inline(always)]
    fn destination(&self) -> UnderlayAddress {
        UnderlayAddress::v4(self.destination())
    }

    #[inline(always)]
    fn is_fragment(&self) -> bool {
        self.is_fragment()
    }

    #[inline(always)]
    fn next_hop(path: &PathEntry) -> NextHop {
        NextHop::V4(path.next_hop.last_v4())
    }

    #[inline(always)]
    fn encapsulate<I: Inner>(
        _: Skb,
        tables: &Tables,
        peer: PeerIndex,
        path: &PathEntry,
        inner: &I,
        shape: GsoShape,
        _: usize,
    ) -> Option<Self> {
        let policy = tables.settings.policy();
        let df = inner.dont_fragment();
        // RFC 6864 section 4.1: any identification will do for a datagram with DF.
        let identification = if policy.df || df { 0 } else { tables.identifications(peer, shape.segments) };
        let header = OuterHeader::v4(
            &policy,
            path.source.last_v4(),
            path.destination.last_v4(),
            I::PROTOCOL,
            inner.tos(),
            inner.hops_left(),
            df,
            shape.len as usize,
            identification,
        )?;
        header.as_v4().map(|header| zerocopy::transmute!(header))
    }
}

impl Outer for Ipv6Header {
    const FORM: Form = Form::InIpv6;

    #[inline(always)]
    fn source(&self) -> UnderlayAddress {
        UnderlayAddress::v6(self.source())
    }

    #[inline(always)]
    fn destination(&self) -> UnderlayAddress {
        UnderlayAddress::v6(self.destination())
    }

    /// An extension header says so, and no inner packet follows this one then.
    #[inline(always)]
    fn is_fragment(&self) -> bool {
        false
    }

    #[inline(always)]
    fn next_hop(path: &PathEntry) -> NextHop {
        NextHop::V6(path.next_hop.as_v6())
    }

    #[inline(always)]
    fn encapsulate<I: Inner>(
        skb: Skb,
        tables: &Tables,
        _: PeerIndex,
        path: &PathEntry,
        inner: &I,
        shape: GsoShape,
        at: usize,
    ) -> Option<Self> {
        let header = OuterHeader::v6(
            &tables.settings.policy(),
            path.source.as_v6(),
            path.destination.as_v6(),
            I::PROTOCOL,
            inner.tos(),
            inner.hops_left(),
            inner.flow_label(skb, at, tables.settings.flow_key),
            shape.len as usize,
        )?;
        header.as_v6().map(|header| zerocopy::transmute!(header))
    }
}
