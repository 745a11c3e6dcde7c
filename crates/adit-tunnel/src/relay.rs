//! Which peers reach each other through this site, by their numbers.

use std::collections::{HashMap, HashSet};

use adit_peers::{Peer, PeerName, Relay};
use adit_policy::PeerIndex;

/// The rule of a [`Relay`] with the numbers of the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayTable {
    /// All peers reach each other.
    All,
    /// No peer reaches another.
    Nobody,
    /// The first of each pair may send to the second.
    Pairs(HashSet<(PeerIndex, PeerIndex)>),
}

impl RelayTable {
    /// Names without a peer are ignored: the peer may come later.
    pub(crate) fn new<'p>(relay: &Relay, peers: impl Iterator<Item = (PeerIndex, &'p Peer)>) -> RelayTable {
        let pairs = match relay {
            Relay::Auto | Relay::Direct => return RelayTable::All,
            Relay::Off => return RelayTable::Nobody,
            Relay::Pairs(pairs) => pairs,
        };
        let numbers: HashMap<&PeerName, PeerIndex> = peers.map(|(index, peer)| (&peer.name, index)).collect();
        let number = |name| numbers.get(name).copied();
        let pairs = pairs.iter().filter_map(|[one, other]| Some((number(one)?, number(other)?)));
        RelayTable::Pairs(pairs.flat_map(|(one, other)| [(one, other), (other, one)]).collect())
    }

    #[inline]
    pub(crate) fn allows(&self, from: PeerIndex, to: PeerIndex) -> bool {
        match self {
            RelayTable::All => true,
            RelayTable::Nobody => false,
            RelayTable::Pairs(pairs) => pairs.contains(&(from, to)),
        }
    }
}
