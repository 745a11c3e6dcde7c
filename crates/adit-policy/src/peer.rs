//! Peers and owners of addresses.

/// The number of a peer in its tunnel. A peer keeps it while its underlay address stays, and the
/// tunnel does not reuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The peer with this number.
    #[inline]
    pub const fn new(index: u32) -> PeerIndex {
        PeerIndex(index)
    }

    /// Its number, as an index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Its number, as in the BPF maps.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// The owner of an inner address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// One of this site's networks holds it.
    Ours,
    /// One of this peer's networks holds it.
    Peer(PeerIndex),
}
