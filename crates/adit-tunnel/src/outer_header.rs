//! The outer header of what the tunnel sends, in the family of the path.

use std::net::IpAddr;

use adit_policy::{FlowKey, flow_label, has_ports};
use adit_wire::Protocol;
use adit_wire::encapsulation::{OuterHeader, OuterPolicy};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;

use crate::tunnel::{PeerState, Tunnel};

/// What the outer header takes from the inner packet.
pub(crate) trait InnerFields {
    /// The outer header's protocol or next header.
    const PROTOCOL: Protocol;
    /// TOS, or traffic class.
    fn tos(&self) -> u8;
    /// TTL, or hop limit.
    fn ttl(&self) -> u8;
    /// The flow label, equal for all packets of a flow.
    fn flow_label(&self, key: FlowKey) -> u32;
}

impl InnerFields for Ipv4Packet<'_> {
    const PROTOCOL: Protocol = Protocol::IPIP;

    fn tos(&self) -> u8 {
        self.tos()
    }

    fn ttl(&self) -> u8 {
        self.ttl()
    }

    fn flow_label(&self, key: FlowKey) -> u32 {
        let protocol = self.protocol();
        // The later fragments of a datagram have no ports, so the first has none here either.
        let ports = if self.is_fragment() { [0; 4] } else { ports(protocol, self.payload()) };
        flow_label(key, self.source(), self.destination(), protocol, ports)
    }
}

impl InnerFields for Ipv6Packet<'_> {
    const PROTOCOL: Protocol = Protocol::IPV6;

    fn tos(&self) -> u8 {
        self.traffic_class()
    }

    fn ttl(&self) -> u8 {
        self.hop_limit()
    }

    fn flow_label(&self, key: FlowKey) -> u32 {
        let protocol = self.next_header();
        flow_label(key, self.source(), self.destination(), protocol, ports(protocol, self.payload()))
    }
}

fn ports(protocol: Protocol, segment: &[u8]) -> [u8; 4] {
    segment.first_chunk().copied().filter(|_| has_ports(protocol)).unwrap_or_default()
}

impl Tunnel {
    /// The outer header for a packet of `len` bytes to a peer. `is_df` and `identification` are for
    /// IPv4. `None`: it would be too long.
    #[inline]
    pub(crate) fn outer_header<I: InnerFields>(
        &self,
        policy: &OuterPolicy,
        to: &PeerState,
        inner: &I,
        is_df: bool,
        len: usize,
        identification: u16,
    ) -> Option<OuterHeader> {
        let (tos, ttl) = (inner.tos(), inner.ttl());
        match (to.path.source, to.path.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                OuterHeader::v4(policy, from, to, I::PROTOCOL, tos, ttl, is_df, len, identification)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                OuterHeader::v6(policy, from, to, I::PROTOCOL, tos, ttl, inner.flow_label(self.flow_key), len)
            }
            // A path is of one family.
            _ => None,
        }
    }
}
