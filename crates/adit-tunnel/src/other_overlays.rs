//! Other overlays of this machine, which may use the same underlay address and have the same peers.
//!
//! Each of them receives every datagram to that address. So one that this tunnel refuses, and whose
//! inner source lies in a network of another overlay, is that overlay's to judge and to count. So
//! is ICMP from a peer's own address, such as the answer to a probe: only the overlay that has sent
//! the probe knows it.

use adit_policy::DropReason;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation};
use ipnet::Ipv4Net;
use prefix_trie::PrefixSet;

/// The networks that are reached through other overlays.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtherOverlays {
    networks: Vec<Ipv4Net>,
    prefixes: PrefixSet<Ipv4Net>,
}

impl OtherOverlays {
    pub(crate) fn new(networks: Vec<Ipv4Net>) -> OtherOverlays {
        let prefixes = networks.iter().map(Ipv4Net::trunc).collect();
        OtherOverlays { networks, prefixes }
    }

    pub(crate) fn networks(&self) -> &[Ipv4Net] {
        &self.networks
    }

    /// Whether an outer datagram that is refused for this reason may be another overlay's.
    #[cold]
    pub(crate) fn may_have(&self, outer: &[u8], reason: DropReason) -> bool {
        !self.networks.is_empty() && is_about_addresses(reason) && self.is_from_others(outer).unwrap_or(false)
    }

    fn is_from_others(&self, outer: &[u8]) -> Option<bool> {
        let outer = Ipv4Packet::parse(outer, Validation::Datapath).ok()?;
        let inner = Ipv4Packet::parse(outer.payload(), Validation::Datapath).ok()?;
        let is_of_gateway = inner.protocol() == Protocol::ICMP && inner.source() == outer.source();
        Some(is_of_gateway || self.prefixes.get_lpm(&inner.source().into()).is_some())
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
