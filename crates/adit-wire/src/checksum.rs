//! The Internet checksum: in full by RFC 1071, by increments by RFC 1624.
//!
//! All numbers here are in host byte order. On the wire a checksum is big endian. Nothing panics.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::Protocol;

/// A one's complement sum of 16-bit big-endian words, to which more can be added.
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

    /// Adds bytes that start at an even offset of the data. An odd last byte counts as the high
    /// half of a word (RFC 1071 section 1). Reads 32 bytes a step.
    #[inline]
    #[must_use]
    pub fn add_bytes(self, bytes: &[u8]) -> Sum {
        // The one's complement sum is independent of the byte order if the result is swapped back
        // (RFC 1071 section 2.B), and wide words can be folded afterwards (2.C). Eight sums of
        // 32-bit words in 64-bit registers cannot overflow here, and the compiler vectorises them.
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

    /// Returns the sum in 16 bits, with its carries added.
    #[inline]
    #[must_use]
    pub const fn fold(self) -> u16 {
        fold(self.0)
    }

    /// Returns the complement of the sum: the value of a checksum field.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

#[inline]
const fn fold(mut sum: u64) -> u16 {
    // Each width is folded twice, because the first fold can leave a carry.
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Returns the sum of `bytes`.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> Sum {
    Sum::ZERO.add_bytes(bytes)
}

/// Returns the checksum of `bytes` (RFC 1071). It is 0 if they contain their own correct checksum.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    sum(bytes).checksum()
}

/// Returns the sum of the pseudo-header that TCP and UDP include over IPv4 (RFC 9293 section 3.1,
/// RFC 768). `transport_len` is in bytes, transport header included.
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

/// Returns the sum of the pseudo-header that TCP, UDP and ICMP include over IPv6 (RFC 8200 section
/// 8.1). `transport_len` is in bytes, transport header included and extension headers not.
#[inline]
#[must_use]
pub fn pseudo_header_v6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: Protocol,
    transport_len: u32,
) -> Sum {
    let words = source.segments().into_iter().chain(destination.segments());
    words
        .fold(Sum::ZERO, Sum::add_word)
        .add_word((transport_len >> 16) as u16)
        .add_word(transport_len as u16)
        .add_word(protocol.0 as u16)
}

/// Returns the checksum after one 16-bit word of the data changed from `old` to `new` (RFC 1624,
/// equation 3).
///
/// Unlike equation 2 of RFC 1141 it returns what a full computation does, for the two
/// representations of zero too: the sum of data that is not all zero never folds to 0, so the
/// result is 0xffff only if `checksum` was. A UDP checksum of 0 means that there is none: the
/// caller must not update it.
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    // HC' = ~(~HC + ~m + m')
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The content of a transport checksum field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumState {
    /// The checksum of the whole segment, as on the wire.
    Complete,
    /// The sum of the pseudo-header only; the device adds the segment's bytes (virtio-net's
    /// `NEEDS_CSUM`). A change of these bytes therefore leaves it unchanged.
    Partial,
}
