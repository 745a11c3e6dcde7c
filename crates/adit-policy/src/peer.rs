//! Whose an address is.

/// The number of a peer in its tunnel: its place in the configuration, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(u32);

impl PeerIndex {
    /// The peer with this place in the configuration.
    #[inline]
    pub const fn new(index: u32) -> PeerIndex {
        PeerIndex(index)
    }

    /// Its place in the configuration.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The same, as the kernel's maps have it.
    #[inline]
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// Whose an inner address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// In our own networks.
    Ours,
    /// In the networks of this peer.
    Peer(PeerIndex),
}
