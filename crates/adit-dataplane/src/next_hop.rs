//! Next hops of the peers as frames need them: the interface and the MAC addresses.
//!
//! The packet threads read them without a lock; the watcher writes them. Datagrams for a peer
//! without a usable entry pass through the kernel's own routing, which is slower and always right.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use adit_linux::family::Family;
use adit_tunnel::PeerIndex;

/// An Ethernet address.
pub(crate) type Mac = [u8; 6];

/// The next hops of all peers.
#[derive(Debug)]
pub(crate) struct NextHops {
    /// Generation and interface index; index 0: none.
    device: AtomicU64,
    /// Our address on it.
    source: AtomicU64,
    /// Whether a capture on that interface must see what leaves by it.
    tapped: AtomicBool,
    /// For each family, whether our address is not this host's, so that nothing may be sent from
    /// it.
    source_missing: [AtomicBool; 2],
    /// One per peer: valid bit, generation, MAC address; 0: the kernel routes.
    peers: Box<[AtomicU64]>,
}

const VALID: u64 = 1 << 63;
const GENERATION_SHIFT: u32 = 48;
const GENERATION_MASK: u64 = 0x7fff;
const MAC_MASK: u64 = 0xffff_ffff_ffff;

/// An interface that frames leave by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkDevice {
    /// Its index.
    pub(crate) index: u32,
    /// Our address on it.
    pub(crate) mac: Mac,
}

impl NextHops {
    /// Entries for `peers` peers, all routed by the kernel.
    #[must_use]
    pub(crate) fn new(peers: usize) -> Self {
        Self {
            device: AtomicU64::new(0),
            source: AtomicU64::new(0),
            tapped: AtomicBool::new(false),
            source_missing: [AtomicBool::new(false), AtomicBool::new(false)],
            peers: (0..peers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The interface and the destination address of frames for `peer`; `None` if the kernel routes
    /// them.
    #[inline]
    #[must_use]
    pub(crate) fn get(&self, peer: PeerIndex) -> Option<(LinkDevice, Mac)> {
        let entry = self.peers.get(peer.index())?.load(Ordering::Acquire);
        if entry & VALID == 0 {
            return None;
        }
        let source = self.source.load(Ordering::Acquire);
        let device = self.device.load(Ordering::Acquire);
        // An entry of another interface than the one just read is not used.
        if device >> 32 != (entry >> GENERATION_SHIFT) & GENERATION_MASK {
            return None;
        }
        let device = LinkDevice { index: device as u32, mac: unpack(source) };
        Some((device, unpack(entry)))
    }

    /// Lets frames leave by another interface, or by none. The kernel routes all peers until they
    /// are set again.
    pub(crate) fn set_device(&self, device: Option<LinkDevice>) {
        if self.device() == device {
            return;
        }
        for peer in &self.peers {
            peer.store(0, Ordering::Release);
        }
        let generation = ((self.device.load(Ordering::Relaxed) >> 32) + 1) & GENERATION_MASK;
        let index = device.map_or(0, |device| device.index);
        self.device.store((generation << 32) | u64::from(index), Ordering::Release);
        self.source.store(device.map_or(0, |device| pack(device.mac)), Ordering::Release);
    }

    /// The interface that frames leave by now.
    #[must_use]
    pub(crate) fn device(&self) -> Option<LinkDevice> {
        let index = self.device.load(Ordering::Relaxed) as u32;
        (index != 0).then(|| LinkDevice { index, mac: unpack(self.source.load(Ordering::Relaxed)) })
    }

    /// Whether frames must leave where a capture sees them.
    #[inline]
    #[must_use]
    pub(crate) fn tapped(&self) -> bool {
        self.tapped.load(Ordering::Relaxed)
    }

    /// Sets whether a capture runs on the interface.
    pub(crate) fn set_tapped(&self, tapped: bool) {
        self.tapped.store(tapped, Ordering::Relaxed);
    }

    /// Whether our address of a family is not this host's. The kernel would send raw datagrams from
    /// it, but nothing may be sent, whether a peer has a next hop or not.
    #[inline]
    #[must_use]
    pub(crate) fn is_source_missing(&self, family: Family) -> bool {
        self.missing_source(family).load(Ordering::Relaxed)
    }

    /// Sets whether our address of a family is not this host's.
    pub(crate) fn set_source_missing(&self, family: Family, is_missing: bool) {
        self.missing_source(family).store(is_missing, Ordering::Relaxed);
    }

    #[inline]
    fn missing_source(&self, family: Family) -> &AtomicBool {
        let [v4, v6] = &self.source_missing;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// Sets the MAC address of frames for `peer`; `None` lets the kernel route them.
    pub(crate) fn set(&self, peer: PeerIndex, mac: Option<Mac>) {
        let generation = (self.device.load(Ordering::Relaxed) >> 32) & GENERATION_MASK;
        let entry = mac.map_or(0, |mac| VALID | (generation << GENERATION_SHIFT) | pack(mac));
        if let Some(peer) = self.peers.get(peer.index()) {
            peer.store(entry, Ordering::Release);
        }
    }
}

fn pack(mac: Mac) -> u64 {
    mac.iter().fold(0, |packed, &byte| (packed << 8) | u64::from(byte))
}

fn unpack(packed: u64) -> Mac {
    let [_, _, mac @ ..] = (packed & MAC_MASK).to_be_bytes();
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LinkDevice = LinkDevice { index: 7, mac: [2, 0, 0, 0, 0, 7] };
    const B: LinkDevice = LinkDevice { index: 8, mac: [2, 0, 0, 0, 0, 8] };
    const NEXT: Mac = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54];

    #[test]
    fn the_kernel_routes_to_a_peer_until_its_next_hop_is_set() {
        let hops = NextHops::new(2);
        assert_eq!(hops.get(PeerIndex::new(0)), None);
        hops.set_device(Some(A));
        assert_eq!(hops.get(PeerIndex::new(0)), None);
        hops.set(PeerIndex::new(0), Some(NEXT));
        assert_eq!(hops.get(PeerIndex::new(0)), Some((A, NEXT)));
        assert_eq!(hops.get(PeerIndex::new(1)), None);
        hops.set(PeerIndex::new(0), None);
        assert_eq!(hops.get(PeerIndex::new(0)), None);
    }

    #[test]
    fn a_change_of_interface_clears_every_peer() {
        let hops = NextHops::new(1);
        hops.set_device(Some(A));
        hops.set(PeerIndex::new(0), Some(NEXT));
        hops.set_device(Some(B));
        assert_eq!(hops.get(PeerIndex::new(0)), None);
        hops.set(PeerIndex::new(0), Some(NEXT));
        assert_eq!(hops.get(PeerIndex::new(0)), Some((B, NEXT)));
    }

    #[test]
    fn an_entry_of_an_earlier_generation_is_not_used() {
        let hops = NextHops::new(1);
        hops.set_device(Some(A));
        hops.set(PeerIndex::new(0), Some(NEXT));
        let stale = hops.peers[0].load(Ordering::Relaxed);
        hops.set_device(Some(B));
        hops.peers[0].store(stale, Ordering::Relaxed);
        assert_eq!(hops.get(PeerIndex::new(0)), None);
    }

    #[test]
    fn the_address_of_one_family_may_be_missing() {
        let hops = NextHops::new(1);
        hops.set_source_missing(Family::V6, true);
        assert!(hops.is_source_missing(Family::V6) && !hops.is_source_missing(Family::V4));
        hops.set_source_missing(Family::V6, false);
        assert!(!hops.is_source_missing(Family::V6));
    }

    #[test]
    fn setting_a_peer_that_does_not_exist_does_nothing() {
        let hops = NextHops::new(1);
        hops.set(PeerIndex::new(9), Some(NEXT));
        assert_eq!(hops.get(PeerIndex::new(9)), None);
    }
}
