//! A change of peers, from one revision of a [`PeerSet`](crate::PeerSet) to the next.

use std::sync::Arc;

use crate::conflict::Conflict;
use crate::name::PeerName;
use crate::peer::Peer;

/// A change of peers. A peer is identified by its name: one that gets another name is removed and
/// inserted.
///
/// What one peer loses another may gain in the same delta.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerDelta {
    /// The revision that this leads from.
    pub base: u64,
    /// The revision that this leads to.
    pub revision: u64,
    /// Names of the peers that are removed.
    pub removed: Vec<PeerName>,
    /// Peers that take the place of those of the same name.
    pub replaced: Vec<Arc<Peer>>,
    /// Peers with names that are not in use.
    pub inserted: Vec<Arc<Peer>>,
}

impl PeerDelta {
    /// Returns true if no peer changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many peers are removed, replaced and inserted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.removed.len() + self.replaced.len() + self.inserted.len()
    }
}

/// The reason why a [`PeerDelta`] does not apply to a set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The set has changed since the delta was made.
    #[error("the change is for revision {base} of the peers, and revision {current} runs: make it anew")]
    Stale {
        /// The revision that the delta leads from.
        base: u64,
        /// The revision of the set.
        current: u64,
    },
    /// A peer that is to be removed or replaced does not exist.
    #[error("no peer is named {name}, so it cannot be removed or replaced")]
    NoSuchPeer {
        /// The name.
        name: PeerName,
    },
    /// The result would break the rule of [`AddressPlan`](crate::AddressPlan).
    #[error(transparent)]
    Conflict(#[from] Conflict),
}
