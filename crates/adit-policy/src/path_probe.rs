//! Probes of a path, as data planes tell them from other ICMP.

use adit_wire::Protocol;
use adit_wire::icmpv4::types;
use adit_wire::ipv4::Ipv4Header;

/// The identifier of the echoes that are probes.
pub const PROBE_IDENTIFIER: u16 = 0xad17;

/// Whether a datagram may be a probe or the answer to one, by its header and by type and identifier
/// of its ICMP message. A program leaves it to userspace, which reads the rest: a probe shows where
/// the peer can be probed, and neither is traffic.
#[inline(always)]
pub fn may_be_probe(header: &Ipv4Header, icmp_type: u8, identifier: u16) -> bool {
    header.protocol() == Protocol::ICMP
        && matches!(icmp_type, types::ECHO_REQUEST | types::ECHO_REPLY)
        && identifier == PROBE_IDENTIFIER
}
