//! The maps, and the tunnel's tables as the policy asks for them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::net::Ipv4Addr;

use adit_policy::bpf::maps::{PeerCounts, PeerEntry, Settings};
use adit_policy::{PeerLookup, DropReason, IdRange, Owner, PeerIndex};
use adit_wire::ecn::EcnAnomaly;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};

use crate::lpm_cache;

// Userspace sets how many entries each has.

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static PEER_BY_OUTER: HashMap<[u8; 4], u32> = HashMap::with_max_entries(1, 0);
#[map]
static PEERS: Array<PeerEntry> = Array::with_max_entries(1, 0);
#[map]
static LOCAL: HashMap<[u8; 4], u32> = HashMap::with_max_entries(1, 0);
#[map]
static IDENTIFICATIONS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static PEER_COUNTS: PerCpuArray<PeerCounts> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DropReason::COUNT as u32, 0);
#[map]
pub static ECN: PerCpuArray<u64> = PerCpuArray::with_max_entries(EcnAnomaly::COUNT as u32, 0);

/// The tunnel.
#[derive(Clone, Copy)]
pub struct Tables {
    pub settings: &'static Settings,
    /// Of the networks, when the packet came: read before any of them is looked up.
    generation: u32,
}

impl Tables {
    /// `None` is never: the kernel's verifier wants it thought of.
    #[inline(always)]
    pub fn open() -> Option<Tables> {
        let settings: &'static Settings = SETTINGS.get(0)?;
        // SAFETY: a map's value is aligned and lives as long as the program. Userspace writes it meanwhile, so it is
        // read once, and not again later.
        let generation = unsafe { core::ptr::read_volatile(&raw const settings.generation) };
        Some(Tables { settings, generation })
    }

    /// A peer that the program may send to: its way is known, and nobody is owed an answer first.
    #[inline(always)]
    pub fn open_peer(&self, peer: PeerIndex) -> Option<&'static PeerEntry> {
        self.peer(peer).filter(|entry| entry.device != 0 && entry.owes_answer == 0)
    }

    #[inline(always)]
    pub fn peer(&self, peer: PeerIndex) -> Option<&'static PeerEntry> {
        PEERS.get(peer.number())
    }

    /// A datagram came from a peer, so it is in reach: nobody is owed the answer that it is not. Userspace learns of
    /// it by the counters, a little later.
    #[inline(always)]
    pub fn heard(&self, peer: PeerIndex) {
        let Some(entry) = PEERS.get_ptr_mut(peer.number()) else { return };
        // SAFETY: a map's value is aligned and lives as long as the program. Userspace writes the word around it in
        // one piece; whoever is last, the next datagram sets it right.
        unsafe {
            if (*entry).owes_answer != 0 {
                (*entry).owes_answer = 0;
            }
        }
    }

    /// Consecutive identifications for `segments` datagrams that may be fragmented (RFC 6864 section 4);
    /// the first of them.
    #[inline(always)]
    pub fn identifications(&self, peer: PeerIndex, segments: u32) -> u16 {
        let Some(next) = IDENTIFICATIONS.get_ptr_mut(peer.number()) else { return 0 };
        // Not `AtomicU64`: for this target it cannot add, though the kernel's machine can. Not relaxed: of that
        // LLVM makes an instruction that gives nothing back, though what was there is asked for.
        let count = || {
            // SAFETY: a map's value is aligned, lives as long as the program, and is only ever changed atomically.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(next, u64::from(segments)) as u32 }
        };
        let first = IdRange::Lower.identifications(count(), segments);
        first.or_else(|| IdRange::Lower.identifications(count(), segments)).unwrap_or(0)
    }
}

impl PeerLookup for Tables {
    #[inline(always)]
    fn underlay(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.settings.underlay)
    }

    #[inline(always)]
    fn owner(&self, inner: Ipv4Addr) -> Option<Owner> {
        lpm_cache::owner(inner, self.generation)
    }

    #[inline(always)]
    fn peer_by_underlay(&self, underlay: Ipv4Addr) -> Option<PeerIndex> {
        // SAFETY: the value is one word, copied at once. Userspace never changes an entry. The memory of one that it
        // has removed is used again for another address, but not in the same change: it adds before it removes.
        unsafe { PEER_BY_OUTER.get(underlay.octets()) }.map(|number| PeerIndex::new(*number))
    }

    #[inline(always)]
    fn underlay_of(&self, peer: PeerIndex) -> Option<Ipv4Addr> {
        self.peer(peer).map(|entry| Ipv4Addr::from_octets(entry.underlay))
    }

    #[inline(always)]
    fn is_local(&self, address: Ipv4Addr) -> bool {
        // SAFETY: only whether there is an entry is asked.
        unsafe { LOCAL.get(address.octets()) }.is_some()
    }
}
