//! Which peers reach each other through this site, a hub.

use crate::name::PeerName;

/// The rule for datagrams from one peer to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Relay {
    /// All peers reach each other, as far as the host's FORWARD rules let them.
    #[default]
    Auto,
    /// All peers reach each other, past the host's FORWARD rules where programs carry.
    Direct,
    /// No peer reaches another.
    Off,
    /// The peers of each pair reach each other, as far as the host's FORWARD rules let them.
    Pairs(Vec<[PeerName; 2]>),
}

impl Relay {
    /// Returns true if a listed pair contains the peer.
    #[must_use]
    pub fn names(&self, peer: &PeerName) -> bool {
        matches!(self, Relay::Pairs(pairs) if pairs.iter().any(|pair| pair.contains(peer)))
    }
}
