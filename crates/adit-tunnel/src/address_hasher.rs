//! The hash of addresses in the tables of a tunnel.

use std::hash::Hasher;

/// A few multiplications in place of SipHash. The keys in the table come from the configuration
/// alone, so an attacker who picks addresses reaches at worst the longest chain that the
/// configuration made.
#[derive(Debug, Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    #[inline]
    fn write_u128(&mut self, address: u128) {
        self.write_u64((address >> 64) as u64);
        self.write_u64(address as u64);
    }

    #[inline]
    fn write_u64(&mut self, word: u64) {
        // Multiplying only moves bits upwards; the table takes its bucket from the low bits and its
        // tag from the high ones, so the halves are folded together.
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ (product >> 32);
    }
}
