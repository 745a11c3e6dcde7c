//! Other overlays of this machine, which may use the same underlay address and have the same peers.
//!
//! Each of them receives every datagram to that address. So one that this tunnel refuses, and whose
//! inner source lies in a network of another overlay, is that overlay's to judge and to count. So
//! is ICMP from a peer's own address, such as the answer to a probe: only the overlay that has sent
//! the probe knows it.

use adit_policy::DropReason;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::Ipv6Packet;
use adit_wire::{Protocol, Validation};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

use crate::outer::OuterDatagram;

/// The networks that are reached through other overlays.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtherOverlays {
    networks: Vec<IpNet>,
    prefixes_v4: PrefixSet<Ipv4Net>,
    prefixes_v6: PrefixSet<Ipv6Net>,
}

impl OtherOverlays {
    pub(crate) fn new(networks: Vec<IpNet>) -> OtherOverlays {
        let (mut prefixes_v4, mut prefixes_v6) = (PrefixSet::new(), PrefixSet::new());
        for network in &networks {
            match network {
                IpNet::V4(network) => prefixes_v4.insert(network.trunc()),
                IpNet::V6(network) => prefixes_v6.insert(network.trunc()),
            };
        }
        OtherOverlays { networks, prefixes_v4, prefixes_v6 }
    }

    pub(crate) fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    /// Whether an outer datagram that is refused for this reason may be another overlay's.
    #[cold]
    pub(crate) fn may_have(&self, outer: &[u8], reason: DropReason) -> bool {
        !self.networks.is_empty() && is_about_addresses(reason) && self.is_from_others(outer).unwrap_or(false)
    }

    fn is_from_others(&self, outer: &[u8]) -> Option<bool> {
        let outer = OuterDatagram::parse(outer, Validation::Datapath)?;
        if outer.protocol == Protocol::IPV6 {
            let inner = Ipv6Packet::parse(outer.payload, Validation::Datapath).ok()?;
            let is_of_gateway = inner.next_header() == Protocol::ICMPV6 && outer.source == inner.source();
            return Some(is_of_gateway || self.prefixes_v6.get_lpm(&inner.source().into()).is_some());
        }
        let inner = Ipv4Packet::parse(outer.payload, Validation::Datapath).ok()?;
        let is_of_gateway = inner.protocol() == Protocol::ICMP && outer.source == inner.source();
        Some(is_of_gateway || self.prefixes_v4.get_lpm(&inner.source().into()).is_some())
    }
}

/// Whether the reason says that the addresses of a datagram are not those of this tunnel.
fn is_about_addresses(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::OuterSourceUnknown
            | DropReason::InnerSourceNotFromPeer
            | DropReason::InnerDestinationNotOurs
    )
}
