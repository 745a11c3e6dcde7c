//! Whose an address is: the trie of networks, and on each processor a memory of the last answers. The trie
//! takes a dependent read for each bit in which prefixes differ, the memory one read. The trie never changes
//! while the program runs, so nothing in front of it goes stale.

use core::net::Ipv4Addr;

use adit_policy::maps::decode_owner;
use adit_policy::{Owner, PeerIndex};
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{LpmTrie, PerCpuArray};

/// A power of two; 8 KiB a processor.
const PLACES: usize = 1024;

/// An address in the upper half, in the lower whose it is; 0: nothing yet.
type Place = u64;

#[map]
static NETWORKS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(1, 0);
#[map]
static OWNERS: PerCpuArray<[Place; PLACES]> = PerCpuArray::with_max_entries(1, 0);

// A peer's number plus one, or one of these: numbers are far below.
const OURS: u32 = u32::MAX;
const NOBODY: u32 = u32::MAX - 1;

/// Whose the longest prefix around an inner address is.
#[inline(always)]
pub fn owner(address: Ipv4Addr) -> Option<Owner> {
    match code_of(address.to_bits()) {
        NOBODY => None,
        OURS => Some(Owner::Ours),
        number => Some(Owner::Peer(PeerIndex::new(number.wrapping_sub(1)))),
    }
}

// A call of its own, with a number in and a number out: it is called from four places.
#[inline(never)]
fn code_of(address: u32) -> u32 {
    // The upper bits of the product depend on all bits of the address.
    let at = (address.wrapping_mul(0x9e37_79b1) >> 22) as usize % PLACES;
    let Some(places) = OWNERS.get_ptr_mut(0) else { return NOBODY };
    // SAFETY: this processor's own copy; nothing else on it runs meanwhile that writes it.
    let Some(place) = (unsafe { (*places).get_mut(at) }) else { return NOBODY };
    let known = *place;
    if (known >> 32) as u32 == address && known as u32 != 0 {
        return known as u32;
    }
    let code = match NETWORKS.get(Key::new(32, address.to_be_bytes())) {
        None => NOBODY,
        Some(word) => match decode_owner(*word) {
            Owner::Ours => OURS,
            Owner::Peer(peer) => peer.number().wrapping_add(1),
        },
    };
    *place = u64::from(address) << 32 | u64::from(code);
    code
}
