//! The rows.

mod ecn;
mod into;
mod mss;
mod out_of;
mod relay;
mod superpackets;

use crate::case::Case;

/// All of them.
#[must_use]
pub fn table() -> Vec<Case> {
    [into::cases(), mss::cases(), superpackets::cases(), out_of::cases(), ecn::cases(), relay::cases()]
        .concat()
}

/// The kernel forwards nothing of the kind, so that it never comes to the tunnel's device.
const NOT_FORWARDED: &str = "the host's own forwarding stops it before the tunnel";
/// The kernel's reception of IPv4, before any tap that decides.
const NOT_RECEIVED: &str = "the host's own stack or the socket's filter stops it before the tunnel";
/// A frame is one datagram.
const NOT_A_FRAME: &str = "a superpacket cannot be injected as a frame";
/// Learned by ICMP, or by another MTU.
const NOT_LEARNED: &str = "what the path is like would have to be learned first";
