//! Other overlays of this machine, which may use the same underlay address and have the same peers.
//!
//! Each of them receives every datagram to that address. So one that this tunnel refuses, and whose
//! inner source lies in a network of another overlay, is that overlay's to judge and to count.

use std::net::Ipv4Addr;

use adit_policy::DropReason;
use adit_wire::Validation;
use adit_wire::ipv4::Ipv4Packet;
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
        !self.networks.is_empty()
            && is_about_addresses(reason)
            && inner_source(outer).is_some_and(|source| self.prefixes.get_lpm(&source.into()).is_some())
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

fn inner_source(outer: &[u8]) -> Option<Ipv4Addr> {
    let outer = Ipv4Packet::parse(outer, Validation::Datapath).ok()?;
    Ipv4Packet::parse(outer.payload(), Validation::Datapath).ok().map(|inner| inner.source())
}
