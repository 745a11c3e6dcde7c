//! The flow label of an outer IPv6 header: equal for all packets of a flow and different for
//! others, so that routers spread flows over equal paths (RFC 6438 section 3).

use core::net::{Ipv4Addr, Ipv6Addr};

use adit_wire::Protocol;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The key of the labels. Nobody can read the inner ports off a label without it (RFC 6437 section
/// 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey(pub [u64; 2]);

/// The addresses of a flow. They are hashed as the bytes that are on the wire.
pub trait FlowAddress: Copy {
    /// Takes both addresses into a hash.
    fn hash(pair: [Self; 2], hash: SipHash) -> SipHash;
    /// Bytes of both.
    const PAIR_LEN: u64;
}

impl FlowAddress for Ipv4Addr {
    const PAIR_LEN: u64 = 8;

    #[inline(always)]
    fn hash([source, destination]: [Self; 2], hash: SipHash) -> SipHash {
        let [source, destination] =
            [source, destination].map(|address| u64::from(address.to_bits().swap_bytes()));
        hash.word(source | destination << 32)
    }
}

impl FlowAddress for Ipv6Addr {
    const PAIR_LEN: u64 = 32;

    #[inline(always)]
    fn hash(pair: [Self; 2], hash: SipHash) -> SipHash {
        let [source, destination] = pair.map(|address| address.to_bits().swap_bytes());
        let halves = |bits: u128| [bits as u64, (bits >> 64) as u64];
        let ([a, b], [c, d]) = (halves(source), halves(destination));
        hash.word(a).word(b).word(c).word(d)
    }
}

/// The label of a flow, 1 to 2^20 - 1: a SipHash-1-3 of the addresses, the ports and the protocol,
/// as they are on the wire. `ports` are those of TCP and UDP, and 0 where there are none to read:
/// of another protocol, and of a fragment, because the later ones have none.
///
/// Costs five rounds of additions and rotations for IPv4, and eight for IPv6.
#[inline(always)]
#[must_use]
pub fn flow_label<A: FlowAddress>(
    key: FlowKey,
    source: A,
    destination: A,
    protocol: Protocol,
    ports: [u8; 4],
) -> u32 {
    let hash = A::hash([source, destination], SipHash::new(key));
    let rest = u64::from(u32::from_le_bytes(ports)) | u64::from(protocol.0) << 32;
    let hash = hash.word(rest | (A::PAIR_LEN + 5) << 56).finish();
    let label = hash as u32 & 0xf_ffff;
    // 0 means that a packet has no label.
    if label == 0 { 1 } else { label }
}

/// Whether the protocol begins with two ports.
#[inline(always)]
#[must_use]
pub const fn has_ports(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::TCP | Protocol::UDP)
}

/// SipHash-1-3 (Aumasson and Bernstein), over whole words. The programs of the kernel have no
/// library for it.
#[derive(Clone, Copy)]
pub struct SipHash([u64; 4]);

impl SipHash {
    #[inline(always)]
    fn new(FlowKey([k0, k1]): FlowKey) -> SipHash {
        SipHash([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    #[inline(always)]
    fn word(self, word: u64) -> SipHash {
        let SipHash([v0, v1, v2, v3]) = self;
        let SipHash([v0, v1, v2, v3]) = SipHash([v0, v1, v2, v3 ^ word]).round();
        SipHash([v0 ^ word, v1, v2, v3])
    }

    #[inline(always)]
    fn finish(self) -> u64 {
        let SipHash([v0, v1, v2, v3]) = self;
        let SipHash([v0, v1, v2, v3]) = SipHash([v0, v1, v2 ^ 0xff, v3]).round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }

    #[inline(always)]
    fn round(self) -> SipHash {
        let SipHash([mut v0, mut v1, mut v2, mut v3]) = self;
        v0 = v0.wrapping_add(v1);
        v2 = v2.wrapping_add(v3);
        v1 = v1.rotate_left(13) ^ v0;
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v1);
        v0 = v0.wrapping_add(v3);
        v1 = v1.rotate_left(17) ^ v2;
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.rotate_left(32);
        SipHash([v0, v1, v2, v3])
    }
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use siphasher::sip::SipHasher13;

    use super::*;

    const KEY: FlowKey = FlowKey([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);

    /// The label by another implementation of the hash.
    fn expected(key: FlowKey, bytes: &[&[u8]]) -> u32 {
        let mut hasher = SipHasher13::new_with_keys(key.0[0], key.0[1]);
        bytes.iter().for_each(|bytes| hasher.write(bytes));
        (hasher.finish() as u32 & 0xf_ffff).max(1)
    }

    #[test]
    fn rfc6438_s3_a_label_is_a_keyed_hash_of_the_flow() {
        for n in 0..500u32 {
            let ports = n.wrapping_mul(0x0101_6001).to_be_bytes();
            let protocol = if n % 3 == 0 { Protocol::ICMP } else { Protocol::UDP };
            let key = FlowKey([KEY.0[0] + u64::from(n % 7), KEY.0[1]]);
            let [from, to] = [Ipv4Addr::from_bits(0x0a01_0101 + n), Ipv4Addr::new(10, 1, 1, 2)];
            let bytes = [&from.octets()[..], &to.octets(), &ports, &[protocol.0]];
            assert_eq!(flow_label(key, from, to, protocol, ports), expected(key, &bytes));
            let [from, to] = [from.to_ipv6_mapped(), Ipv6Addr::from_bits(u128::from(n) << 77 | 1)];
            let bytes = [&from.octets()[..], &to.octets(), &ports, &[protocol.0]];
            assert_eq!(flow_label(key, from, to, protocol, ports), expected(key, &bytes));
        }
    }
}
