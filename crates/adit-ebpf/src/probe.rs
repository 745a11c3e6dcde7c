//! Path probes and the answers to them, which userspace reads.

use adit_wire::Protocol;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Header};

use crate::skb::Skb;

/// Whether the datagram at `offset`, whose header this is, may be a probe or the answer to one.
#[inline(always)]
pub fn may_be_probe(skb: Skb, header: &Ipv4Header, offset: usize) -> bool {
    if header.protocol() != Protocol::ICMP {
        return false;
    }
    // A message that is shorter is none.
    let Some([kind, _, _, _, high, low, ..]) = skb.echo_header(offset + HEADER_LEN) else { return false };
    adit_policy::may_be_probe(header, kind, u16::from_be_bytes([high, low]))
}
