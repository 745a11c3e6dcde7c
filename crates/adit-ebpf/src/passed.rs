//! A decapsulated datagram that the policy admits: what `decap` found out and `relay` goes on with.

use adit_policy::{GsoShape, PeerIndex};
use adit_wire::ecn::Ecn;

/// A datagram that the tunnel admits.
pub struct Passed<I> {
    /// The peer that sent it.
    pub from: PeerIndex,
    /// The inner header as it arrived.
    pub inner: I,
    pub shape: GsoShape,
    /// The inner ECN field after decapsulation (RFC 6040).
    pub ecn: Ecn,
}
