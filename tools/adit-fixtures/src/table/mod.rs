//! The rows of the table, one module for each topic.

mod decapsulation;
mod ecn;
mod encapsulation;
mod gso;
mod ipv6;
mod mss;
mod over_ipv6;
mod relay;
mod router_errors;

use crate::case::Case;

/// All rows.
#[must_use]
pub fn table() -> Vec<Case> {
    let over_ipv4 = [
        encapsulation::cases(),
        mss::cases(),
        gso::cases(),
        decapsulation::cases(),
        ecn::cases(),
        relay::cases(),
        router_errors::cases(),
        ipv6::cases(),
    ]
    .concat();
    let translated = over_ipv6::translated(&over_ipv4);
    [over_ipv4, translated, over_ipv6::cases()].concat()
}

/// The kernel does not forward such a packet, so it never reaches the tunnel interface.
const NOT_FORWARDED: &str = "the host's own forwarding stops it before the tunnel";
/// The kernel's IPv4 receive path drops it first.
const NOT_RECEIVED: &str = "the host's own stack or the socket's filter stops it before the tunnel";
/// A frame holds one datagram.
const NOT_A_FRAME: &str = "a GSO packet cannot be injected as a frame";
/// The gateway learns it only from ICMP or from another MTU.
const NOT_LEARNED: &str = "the gateway would have to learn the path's properties first";
