//! The owner of an inner address: a trie of prefixes, and on each processor a cache of its answers.
//!
//! The trie takes a dependent read for each bit in which prefixes differ, the cache takes one read.
//! Userspace changes the trie first and then raises its generation. A cache entry of another
//! generation is not used.
//!
//! An entry for an address of IPv4 is one word, so that it is read and written at once. On a kernel
//! with PREEMPT_RT another run of a program may interrupt this one on the same processor: an entry
//! in several words could then be one address with the owner of another. So on such a kernel there
//! is no cache for IPv6, whose addresses take two words.

use core::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::bpf::maps::{GENERATION_BITS, decode_owner};
use adit_policy::{Owner, PeerIndex};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{LpmTrie, PerCpuArray};

use crate::preemption;

/// Entries of a cache: a power of two. They take 8 KiB a processor, and 24 KiB for IPv6.
const ENTRIES: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 10;

/// The cached owner of an address in one generation; 0 is none.
///
/// ```text
///   63              42 41               22 21                0
///  +------------------+-------------------+------------------+
///  | tag: the rest of | code of the owner | generation       |
///  | the hash         | (0: unused)       |                  |
///  +------------------+-------------------+------------------+
/// ```
///
/// The hash is a bijection: its index and its tag together are the address.
type CacheEntry = u64;

const CODE_BITS: u32 = 20;
const TAG_SHIFT: u32 = GENERATION_BITS + CODE_BITS;
const _: () = assert!(TAG_SHIFT + (32 - INDEX_BITS) == CacheEntry::BITS, "an entry is full");

#[map]
static PREFIX_OWNERS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static PREFIX_OWNERS6: LpmTrie<[u8; 16], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static LPM_CACHE: PerCpuArray<[CacheEntry; ENTRIES]> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LPM_CACHE6: PerCpuArray<[CacheEntryV6; ENTRIES]> = PerCpuArray::with_max_entries(1, 0);

/// The cached owner of an address of IPv6 in one generation.
#[derive(Clone, Copy)]
#[repr(C)]
struct CacheEntryV6 {
    /// The address, in two words.
    address: [u64; 2],
    generation: u32,
    /// The code of the owner; 0: the entry is unused.
    code: u32,
}

// A code is a peer's number plus one, or one of these. An entry has its lower bits, which are those
// of these two for no peer that is cached.
const OURS: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX - 1;
const CODE_MASK: u32 = (1 << CODE_BITS) - 1;

/// The owner of the longest prefix that holds an inner address. `generation` must have been read
/// before, so that a change of the trie in between belongs to a later generation.
#[inline(always)]
pub fn owner(address: Ipv4Addr, generation: u32) -> Option<Owner> {
    owner_of_code(code_of(address.to_bits(), generation))
}

/// The same of IPv6.
#[inline(always)]
pub fn owner_v6(address: Ipv6Addr, generation: u32) -> Option<Owner> {
    let bits = address.to_bits();
    owner_of_code(code_of_v6((bits >> 64) as u64, bits as u64, generation))
}

// Not inlined: four places call it, with numbers in and a number out.
#[inline(never)]
fn code_of_v6(high: u64, low: u64, generation: u32) -> u32 {
    if preemption::may_interrupt_programs() {
        return look_up_v6(high, low);
    }
    let hash = (high.rotate_left(32) ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let at = (hash >> (u64::BITS - INDEX_BITS)) as usize % ENTRIES;
    let Some(entries) = LPM_CACHE6.get_ptr_mut(0) else { return NOBODY };
    // SAFETY: `at` is below the number of entries, and a map's value lives as long as the program.
    // No other run of a program uses the entry meanwhile: it is this processor's, whose runs do not
    // interrupt each other.
    let entry = unsafe { &mut *entries.cast::<CacheEntryV6>().add(at) };
    let is_current = entry.code != 0 && entry.generation == generation;
    if is_current && entry.address == [high, low] {
        return entry.code;
    }
    let code = look_up_v6(high, low);
    *entry = CacheEntryV6 { address: [high, low], generation, code };
    code
}

#[inline(always)]
fn look_up_v6(high: u64, low: u64) -> u32 {
    let mut octets = [0; 16];
    let (front, back) = octets.split_at_mut(8);
    front.copy_from_slice(&high.to_be_bytes());
    back.copy_from_slice(&low.to_be_bytes());
    code_of_word(PREFIX_OWNERS6.get(Key::new(128, octets)))
}

/// A number that is always set, so that the verifier follows it wherever it goes.
#[inline(always)]
fn owner_of_code(code: u32) -> Option<Owner> {
    match code {
        NOBODY => None,
        OURS => Some(Owner::Ours),
        number => Some(Owner::Peer(PeerIndex::new(number.wrapping_sub(1)))),
    }
}

#[inline(always)]
fn code_of_word(word: Option<&u32>) -> u32 {
    match word.map(|word| decode_owner(*word)) {
        None => NOBODY,
        Some(Owner::Ours) => OURS,
        Some(Owner::Peer(peer)) => peer.number().wrapping_add(1),
    }
}

// Not inlined: four places call it, with numbers in and a number out.
#[inline(never)]
fn code_of(address: u32, generation: u32) -> u32 {
    // An odd factor makes it a bijection. Its upper bits depend on all bits of the address.
    let hash = address.wrapping_mul(0x9e37_79b1);
    let at = (hash >> (32 - INDEX_BITS)) as usize % ENTRIES;
    let Some(entries) = LPM_CACHE.get_ptr_mut(0) else { return NOBODY };
    // SAFETY: `at` is below the number of entries, and a map's value lives as long as the program.
    let entry = unsafe { entries.cast::<CacheEntry>().add(at) };
    let tag = u64::from(hash << INDEX_BITS >> INDEX_BITS) << TAG_SHIFT | u64::from(generation);
    // SAFETY: aligned, and one load. Nothing makes a reference to it.
    let found = unsafe { entry.read_volatile() };
    let cached = (found >> GENERATION_BITS) as u32 & CODE_MASK;
    if cached != 0 && found & !(u64::from(CODE_MASK) << GENERATION_BITS) == tag {
        return if cached >= NOBODY & CODE_MASK { cached | !CODE_MASK } else { cached };
    }
    let code = code_of_word(PREFIX_OWNERS.get(Key::new(32, address.to_be_bytes())));
    if code < NOBODY & CODE_MASK || code >= NOBODY {
        // SAFETY: as above, and one store.
        unsafe { entry.write_volatile(tag | u64::from(code & CODE_MASK) << GENERATION_BITS) };
    }
    code
}
