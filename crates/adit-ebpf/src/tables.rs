//! The BPF maps, and the lookups of the policy in them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::bpf::maps::{
    LastDrop, PathEntry, PeerCounts, PeerEntry, RelayRule, Settings, UnderlayAddress, encode_pair,
};
use adit_policy::{DropReason, IdRange, InnerAddress, Owner, OwnerLookup, PeerIndex, PeerLookup};
use adit_wire::ecn::EcnAnomaly;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray};

use crate::lpm_cache;

// Userspace sets the number of entries before it loads the object.

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static PEER_BY_OUTER: HashMap<UnderlayAddress, u32> = HashMap::with_max_entries(1, 0);
#[map]
static PEERS: Array<PeerEntry> = Array::with_max_entries(1, 0);
#[map]
static PATHS: Array<PathEntry> = Array::with_max_entries(1, 0);
#[map]
static LOCAL: HashMap<[u8; 4], u32> = HashMap::with_max_entries(1, 0);
#[map]
static LOCAL6: HashMap<[u8; 16], u32> = HashMap::with_max_entries(1, 0);
#[map]
static RELAY_PAIRS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);
#[map]
static OTHER_NETWORKS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static OTHER_NETWORKS6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static IDENTIFICATIONS: Array<u64> = Array::with_max_entries(1, 0);
#[map]
pub static PEER_COUNTS: PerCpuArray<PeerCounts> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(DropReason::COUNT as u32, 0);
#[map]
pub static LAST_DROPS: PerCpuArray<LastDrop> = PerCpuArray::with_max_entries(DropReason::COUNT as u32, 0);
#[map]
pub static ECN: PerCpuArray<u64> = PerCpuArray::with_max_entries(EcnAnomaly::COUNT as u32, 0);

/// The tunnel's tables as of one packet.
#[derive(Clone, Copy)]
pub struct Tables {
    pub settings: &'static Settings,
    /// Generation of the prefixes, read before the first lookup.
    generation: u32,
}

impl Tables {
    /// Never `None` in practice; the kernel's verifier requires the check.
    #[inline(always)]
    pub fn open() -> Option<Tables> {
        let settings: &'static Settings = SETTINGS.get(0)?;
        Some(Tables { settings, generation: generation(settings) })
    }

    /// Whether all lookups since [`Tables::open`] are of one state of the peers. If not, a packet
    /// may be refused that neither the old state nor the new one refuses, so a refusal does not
    /// count. Userspace changes its own tables first, and at once.
    #[inline(always)]
    pub fn are_of_one_state(&self) -> bool {
        !Settings::is_change(self.generation) && generation(self.settings) == self.generation
    }

    /// The path to a peer that the program may send to: our address is this host's, the next hop is
    /// known, and no sender is owed an ICMP answer.
    #[inline(always)]
    pub fn open_path(&self, peer: PeerIndex) -> Option<Path> {
        let peer = self.peer(peer).filter(|peer| peer.owes_answer == 0)?;
        Path::of(peer).filter(|path| path.entry.device != 0 && self.settings.sends(path.entry.form()))
    }

    /// The bytes of the largest inner packet that the path to a peer takes.
    #[inline(always)]
    pub fn room(&self, peer: PeerIndex) -> Option<u16> {
        Path::of(self.peer(peer)?).map(Path::room)
    }

    /// The word of a peer, as of now.
    #[inline(always)]
    pub fn peer(&self, peer: PeerIndex) -> Option<PeerEntry> {
        let word = PEERS.get_ptr(peer.number())?.cast::<u64>();
        // SAFETY: a map's value is aligned and lives as long as the program. Userspace may write it
        // at any time, so this reads it once.
        let word = unsafe { word.read_volatile() };
        Some(zerocopy::transmute!(word))
    }

    /// Whether this machine has other overlays with peers.
    #[inline(always)]
    pub fn has_other_overlays(&self) -> bool {
        Ipv4Addr::BROADCAST.is_of_another_overlay()
    }

    /// Notes that a datagram came from a peer, so that no sender is told that it is unreachable.
    /// Userspace learns it from the counters, a little later.
    #[inline(always)]
    pub fn mark_reachable(&self, peer: PeerIndex) {
        let Some(entry) = PEERS.get_ptr_mut(peer.number()) else { return };
        // SAFETY: a map's value is aligned and lives as long as the program. Userspace writes the
        // word around this field at once. If it overwrites this, the next datagram corrects it.
        unsafe {
            if (*entry).owes_answer != 0 {
                (*entry).owes_answer = 0;
            }
        }
    }

    /// Reserves consecutive identifications for `segments` datagrams that may be fragmented (RFC
    /// 6864 section 4), and returns the first.
    #[inline(always)]
    pub fn identifications(&self, peer: PeerIndex, segments: u32) -> u16 {
        let Some(next) = IDENTIFICATIONS.get_ptr_mut(peer.number()) else { return 0 };
        // Not `AtomicU64`: it cannot add on this target, although the kernel's machine can. Not
        // relaxed: LLVM turns a relaxed add into an instruction that does not return the old value.
        let count = || {
            // SAFETY: a map's value is aligned, lives as long as the program, and only ever changes
            // atomically.
            unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::AcqRel }>(next, u64::from(segments)) as u32 }
        };
        let first = IdRange::Lower.identifications(count(), segments);
        first.or_else(|| IdRange::Lower.identifications(count(), segments)).unwrap_or(0)
    }
}

/// The generation of the prefixes and the outer sources, as of now.
#[inline(always)]
fn generation(settings: &'static Settings) -> u32 {
    // SAFETY: a map's value is aligned and lives as long as the program. Userspace may write it at
    // any time, so this reads it once.
    unsafe { core::ptr::read_volatile(&raw const settings.generation) }
}

/// A path to send by.
#[derive(Clone, Copy)]
pub struct Path {
    pub entry: &'static PathEntry,
    /// Bytes of the largest outer datagram.
    mtu: u16,
}

impl Path {
    #[inline(always)]
    fn of(peer: PeerEntry) -> Option<Path> {
        PATHS.get(peer.path).map(|entry| Path { entry, mtu: peer.path_mtu })
    }

    /// Bytes of the largest inner packet that it takes.
    #[inline(always)]
    pub fn room(self) -> u16 {
        self.mtu.saturating_sub(self.entry.form().overhead() as u16)
    }
}

impl PeerLookup for Tables {
    type Underlay = UnderlayAddress;

    #[inline(always)]
    fn is_our_underlay(&self, address: UnderlayAddress) -> bool {
        self.settings.is_our_underlay(address)
    }

    #[inline(always)]
    fn peer_by_underlay(&self, address: UnderlayAddress) -> Option<PeerIndex> {
        // SAFETY: the value is one word, copied at once. Userspace never changes an entry. It adds
        // before it removes, so it does not reuse a removed entry's memory for another address in
        // the same change.
        unsafe { PEER_BY_OUTER.get(address) }.map(|number| PeerIndex::new(*number))
    }

    #[inline(always)]
    fn may_relay(&self, from: PeerIndex, to: PeerIndex) -> bool {
        match self.settings.relay_rule() {
            RelayRule::All => true,
            RelayRule::Nobody => false,
            // SAFETY: the value is not read.
            RelayRule::Listed => unsafe { RELAY_PAIRS.get(encode_pair(from, to)) }.is_some(),
        }
    }
}

/// An inner address, as the tables know it. Each family has tables of its own.
pub trait InnerTables: InnerAddress {
    /// The owner of the longest prefix that holds it, as of this generation of the prefixes.
    fn owner(self, generation: u32) -> Option<Owner>;
    /// Whether the gateway itself has it.
    fn is_local(self) -> bool;
    /// Whether it is reached through another overlay of this machine.
    fn is_of_another_overlay(self) -> bool;
}

impl<A: InnerTables> OwnerLookup<A> for Tables {
    #[inline(always)]
    fn owner(&self, inner: A) -> Option<Owner> {
        inner.owner(self.generation)
    }

    #[inline(always)]
    fn is_local(&self, address: A) -> bool {
        address.is_local()
    }
}

impl InnerTables for Ipv4Addr {
    #[inline(always)]
    fn owner(self, generation: u32) -> Option<Owner> {
        lpm_cache::owner(self, generation)
    }

    #[inline(always)]
    fn is_local(self) -> bool {
        // SAFETY: the value is not read.
        unsafe { LOCAL.get(self.octets()) }.is_some()
    }

    #[inline(always)]
    fn is_of_another_overlay(self) -> bool {
        OTHER_NETWORKS.get(Key::new(32, self.octets())).is_some()
    }
}

impl InnerTables for Ipv6Addr {
    #[inline(always)]
    fn owner(self, generation: u32) -> Option<Owner> {
        lpm_cache::owner_v6(self, generation)
    }

    #[inline(always)]
    fn is_local(self) -> bool {
        // SAFETY: the value is not read.
        unsafe { LOCAL6.get(self.octets()) }.is_some()
    }

    #[inline(always)]
    fn is_of_another_overlay(self) -> bool {
        OTHER_NETWORKS6.get(Key::new(128, self.octets())).is_some()
    }
}
