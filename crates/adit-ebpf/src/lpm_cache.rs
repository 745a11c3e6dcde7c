//! The owner of an inner address: a trie of prefixes, and on each processor a cache of its answers.
//!
//! The trie takes a dependent read for each bit in which prefixes differ, the cache takes one read.
//! Userspace changes the trie first and then raises its generation. A cache entry of another
//! generation is not used.

use core::net::Ipv4Addr;

use adit_policy::bpf::maps::decode_owner;
use adit_policy::{Owner, PeerIndex};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{LpmTrie, PerCpuArray};

/// Entries of the cache: a power of two. They take 12 KiB a processor.
const ENTRIES: usize = 1024;

/// The owner of an address in one generation.
#[derive(Clone, Copy)]
#[repr(C)]
struct CacheEntry {
    address: u32,
    /// 0 while the entry is unused.
    code: u32,
    generation: u32,
}

#[map]
static PREFIX_OWNERS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static LPM_CACHE: PerCpuArray<[CacheEntry; ENTRIES]> = PerCpuArray::with_max_entries(1, 0);

// A code is a peer's number plus one, or one of these. Peer numbers are far below them.
const OURS: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX - 1;

/// The owner of the longest prefix that holds an inner address. `generation` must have been read
/// before, so that a change of the trie in between belongs to a later generation.
#[inline(always)]
pub fn owner(address: Ipv4Addr, generation: u32) -> Option<Owner> {
    match code_of(address.to_bits(), generation) {
        NOBODY => None,
        OURS => Some(Owner::Ours),
        number => Some(Owner::Peer(PeerIndex::new(number.wrapping_sub(1)))),
    }
}

// Not inlined: four places call it, with numbers in and a number out.
#[inline(never)]
fn code_of(address: u32, generation: u32) -> u32 {
    // The upper bits of the product depend on all bits of the address.
    let at = (address.wrapping_mul(0x9e37_79b1) >> 22) as usize % ENTRIES;
    let Some(entries) = LPM_CACHE.get_ptr_mut(0) else { return NOBODY };
    // SAFETY: this processor's own copy; nothing else that writes it runs here meanwhile.
    let Some(entry) = (unsafe { (*entries).get_mut(at) }) else { return NOBODY };
    if entry.address == address && entry.code != 0 && entry.generation == generation {
        return entry.code;
    }
    let code = match PREFIX_OWNERS.get(Key::new(32, address.to_be_bytes())) {
        None => NOBODY,
        Some(word) => match decode_owner(*word) {
            Owner::Ours => OURS,
            Owner::Peer(peer) => peer.number().wrapping_add(1),
        },
    };
    *entry = CacheEntry { address, code, generation };
    code
}
