//! The outer header, for `encap` and `relay` alike.

use core::net::Ipv4Addr;

use adit_policy::{GsoShape, PeerIndex};
use adit_wire::Protocol;
use adit_wire::encapsulation::OuterHeader;
use adit_wire::ipv4::HEADER_LEN;

use crate::inner::Inner;
use crate::tables::Tables;

/// Makes the outer header of a datagram to `peer`, or of a whole GSO packet: the kernel writes the
/// lengths and identifications of the segments that it cuts.
#[inline(always)]
pub fn outer(
    tables: &Tables,
    peer: PeerIndex,
    underlay: [u8; 4],
    inner: &impl Inner,
    shape: GsoShape,
) -> Option<[u8; HEADER_LEN]> {
    let policy = tables.settings.policy();
    let df = inner.dont_fragment();
    // RFC 6864 section 4.1: any identification will do for a datagram with DF.
    let identification = if policy.df || df { 0 } else { tables.identifications(peer, shape.segments) };
    let header = OuterHeader::v4(
        &policy,
        Ipv4Addr::from_octets(tables.settings.underlay),
        Ipv4Addr::from_octets(underlay),
        protocol_of(inner),
        inner.tos(),
        inner.hops_left(),
        df,
        shape.len as usize,
        identification,
    )?;
    header.as_v4()
}

#[inline(always)]
fn protocol_of<I: Inner>(_: &I) -> Protocol {
    I::OUTER_PROTOCOL
}
