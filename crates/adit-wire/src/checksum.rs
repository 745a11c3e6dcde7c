//! The Internet checksum: RFC 1071 in full, RFC 1624 by increments.
//!
//! All numbers are in host order; a checksum is stored big endian.

use core::net::Ipv4Addr;

use crate::Protocol;

/// A one's complement sum under way, of 16-bit big-endian words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn add_word(self, word: u16) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// Adds another sum.
    #[inline]
    #[must_use]
    pub const fn add(self, other: Sum) -> Sum {
        Sum(self.0 + other.fold() as u64)
    }

    /// Adds bytes that begin at an even offset of the data; an odd last byte counts as the high half of
    /// a word (RFC 1071 section 1). Reads 32 bytes a step.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        // The one's complement sum does not care for the byte order as long as the result is swapped
        // back (RFC 1071 section 2.B), and wide words can be folded afterwards (2.C). Eight lanes of
        // 32 bits in 64-bit registers need no carry, and the compiler turns them into vectors.
        let mut lanes = [0_u64; 8];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut total = 0_u64;
        for lane in lanes {
            total += u64::from(fold(lane));
        }
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            total += u64::from(u32::from_ne_bytes(*word));
        }
        let (pairs, last) = rest.as_chunks::<2>();
        for pair in pairs {
            total += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [byte] = last {
            total += u64::from(u16::from_ne_bytes([*byte, 0]));
        }
        self.add_word(u16::from_be(fold(total)))
    }

    /// The sum in 16 bits, carries added back in.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        fold(self.0)
    }

    /// The complement of the sum: what a checksum field holds.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

#[inline]
const fn fold(mut sum: u64) -> u16 {
    // Each step halves the width; a carry can remain after each, so the last one is done twice.
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of some bytes, to be added to others.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> Sum {
    Sum::ZERO.add_bytes(bytes)
}

/// The checksum of some bytes, in host order (RFC 1071). Over bytes that contain their own correct
/// checksum it is 0.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    sum(bytes).checksum()
}

/// The sum of the pseudo-header that TCP and UDP include over IPv4 (RFC 9293 section 3.1, RFC 768).
/// `transport_len` is in bytes, the transport header included.
#[inline]
#[must_use]
pub fn pseudo_header_v4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: Protocol,
    transport_len: u16,
) -> Sum {
    let [a, b, c, d] = source.octets();
    let [e, f, g, h] = destination.octets();
    Sum::ZERO
        .add_word(u16::from_be_bytes([a, b]))
        .add_word(u16::from_be_bytes([c, d]))
        .add_word(u16::from_be_bytes([e, f]))
        .add_word(u16::from_be_bytes([g, h]))
        .add_word(protocol.0 as u16)
        .add_word(transport_len)
}

/// The checksum after one 16-bit word of the data changed from `old` to `new` (RFC 1624, equation 3).
///
/// Unlike equation 2 of RFC 1141 it gives what a full computation would, of the two zeros too: the
/// sum of data that is not all zero never folds to 0, so the result is never 0xffff unless it was that
/// before. A UDP checksum of 0 means "none" and must not be updated: that is for the caller to see.
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    // HC' = ~(~HC + ~m + m')
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// What the transport checksum field of a datagram holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumState {
    /// The checksum of the whole segment, as on the wire.
    Complete,
    /// Only the sum of the pseudo-header, the rest left to whoever puts it on the wire (virtio-net's
    /// `NEEDS_CSUM`). The bytes of the segment are not in it yet, so changing them leaves it alone.
    Partial,
}
