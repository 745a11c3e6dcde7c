//! Whose an address is: the trie of networks, and on each processor a memory of the last answers. The trie
//! takes a dependent read for each bit in which prefixes differ, the memory one read. Userspace gives each state of
//! the trie a generation, once the trie is in it; what is remembered of another one is not used.

use core::net::Ipv4Addr;

use adit_policy::bpf::maps::decode_owner;
use adit_policy::{Owner, PeerIndex};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{LpmTrie, PerCpuArray};

/// A power of two; 12 KiB a processor.
const PLACES: usize = 1024;

/// Whose an address was in some generation.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    address: u32,
    /// 0: nothing yet.
    code: u32,
    generation: u32,
}

#[map]
static PREFIX_OWNERS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static LPM_CACHE: PerCpuArray<[Place; PLACES]> = PerCpuArray::with_max_entries(1, 0);

// A peer's number plus one, or one of these: numbers are far below.
const OURS: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX - 1;

/// Whose the longest prefix around an inner address is. The generation has been read before: a trie that is changed
/// meanwhile has a later one.
#[inline(always)]
pub fn owner(address: Ipv4Addr, generation: u32) -> Option<Owner> {
    match code_of(address.to_bits(), generation) {
        NOBODY => None,
        OURS => Some(Owner::Ours),
        number => Some(Owner::Peer(PeerIndex::new(number.wrapping_sub(1)))),
    }
}

// A call of its own, with numbers in and a number out: it is called from four places.
#[inline(never)]
fn code_of(address: u32, generation: u32) -> u32 {
    // The upper bits of the product depend on all bits of the address.
    let at = (address.wrapping_mul(0x9e37_79b1) >> 22) as usize % PLACES;
    let Some(places) = LPM_CACHE.get_ptr_mut(0) else { return NOBODY };
    // SAFETY: this processor's own copy; nothing else on it runs meanwhile that writes it.
    let Some(place) = (unsafe { (*places).get_mut(at) }) else { return NOBODY };
    if place.address == address && place.code != 0 && place.generation == generation {
        return place.code;
    }
    let code = match PREFIX_OWNERS.get(Key::new(32, address.to_be_bytes())) {
        None => NOBODY,
        Some(word) => match decode_owner(*word) {
            Owner::Ours => OURS,
            Owner::Peer(peer) => peer.number().wrapping_add(1),
        },
    };
    *place = Place { address, code, generation };
    code
}
