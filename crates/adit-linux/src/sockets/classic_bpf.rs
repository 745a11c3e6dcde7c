//! The steps of classic BPF programs, which decide what a socket receives (linux/filter.h).
//!
//! Addresses count from the network header, so that a program does not depend on where the data of
//! a socket begins: at the link header, the network header or the transport header.

use std::net::IpAddr;

use crate::family::Family;

/// Offsets from here on count from the network header.
const SKF_NET_OFF: u32 = (-0x10_0000_i32).cast_unsigned();
/// Offsets from here on are values that the kernel knows about the packet.
const SKF_AD_OFF: u32 = (-0x1000_i32).cast_unsigned();
/// `PACKET_*`: whom the frame is for.
pub(crate) const PACKET_TYPE: u32 = SKF_AD_OFF + 4;
/// The number of the interface.
pub(crate) const INTERFACE: u32 = SKF_AD_OFF + 8;

/// Returns the place of a byte of the network header.
pub(crate) const fn network(offset: u32) -> u32 {
    SKF_NET_OFF.wrapping_add(offset)
}

pub(crate) const fn load_byte(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x30, jt: 0, jf: 0, k }
}

pub(crate) const fn load_word(k: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x20, jt: 0, jf: 0, k }
}

/// Skips `steps` steps if the accumulator is `k`.
pub(crate) const fn if_equal(k: u32, steps: u8) -> libc::sock_filter {
    libc::sock_filter { code: 0x15, jt: steps, jf: 0, k }
}

/// Skips `steps` steps if the accumulator is not `k`.
pub(crate) const fn unless_equal(k: u32, steps: u8) -> libc::sock_filter {
    libc::sock_filter { code: 0x15, jt: 0, jf: steps, k }
}

/// Ends the program and keeps so many bytes of the packet; 0 drops it.
pub(crate) const fn answer(bytes: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: bytes }
}

/// Stores the accumulator in the scratch memory.
pub(crate) const fn store(index: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x02, jt: 0, jf: 0, k: index }
}

pub(crate) const fn load_stored(index: u32) -> libc::sock_filter {
    libc::sock_filter { code: 0x60, jt: 0, jf: 0, k: index }
}

/// An address in the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Source,
    Destination,
}

impl Address {
    /// Loads a word of the address.
    pub(crate) const fn load_word(self, family: Family, index: u32) -> libc::sock_filter {
        let offset = match (self, family) {
            (Self::Source, Family::V4) => 12,
            (Self::Destination, Family::V4) => 16,
            (Self::Source, Family::V6) => 8,
            (Self::Destination, Family::V6) => 24,
        };
        load_word(network(offset + 4 * index))
    }
}

/// Skips `steps` steps behind these if the address whose words `load` loads is not `expected`.
pub(crate) fn unless_address(
    load: impl Fn(u32) -> libc::sock_filter,
    expected: IpAddr,
    steps: u8,
) -> impl Iterator<Item = libc::sock_filter> {
    let words: Vec<u32> = match expected {
        IpAddr::V4(address) => vec![address.to_bits()],
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32).to_vec()
        }
    };
    let last = words.len() - 1;
    words.into_iter().enumerate().flat_map(move |(index, word)| {
        // Two steps for each word that follows.
        [load(index as u32), unless_equal(word, steps + 2 * (last - index) as u8)]
    })
}
