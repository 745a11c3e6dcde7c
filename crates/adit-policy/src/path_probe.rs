//! Probes of a path, as data planes tell them from other ICMP.

use crate::inner::InnerHeader;

/// The identifier of the echoes that are probes.
pub const PROBE_IDENTIFIER: u16 = 0xad17;

/// Whether a datagram may be a probe or the answer to one, by its header and by type and identifier
/// of its ICMP message. A program leaves it to userspace, which reads the rest: a probe shows where
/// the peer can be probed, and neither is traffic.
#[inline(always)]
pub fn may_be_probe<H: InnerHeader>(header: &H, icmp_type: u8, identifier: u16) -> bool {
    header.is_icmp() && H::is_echo(icmp_type) && identifier == PROBE_IDENTIFIER
}
