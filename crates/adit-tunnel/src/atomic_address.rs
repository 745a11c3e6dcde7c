//! An IP address that threads share.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// An address, or none; an IPv4 address is in its mapped form. A reader that comes between the two
/// writes of a new address sees a mixture of the old one and the new one, so it is for what a later
/// look corrects, and never decides about a packet.
#[derive(Debug, Default)]
pub(crate) struct AtomicAddress([AtomicU64; 2]);

impl AtomicAddress {
    pub(crate) fn set(&self, address: IpAddr) {
        let mapped = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let bits = mapped.to_bits();
        for (half, bits) in self.0.iter().zip([(bits >> 64) as u64, bits as u64]) {
            half.store(bits, Relaxed);
        }
    }

    /// `None`: it was never set, or to the unspecified address of IPv6.
    pub(crate) fn get(&self) -> Option<IpAddr> {
        let [high, low] = &self.0;
        let bits = u128::from(high.load(Relaxed)) << 64 | u128::from(low.load(Relaxed));
        (bits != 0).then(|| Ipv6Addr::from_bits(bits).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_either_family_comes_back() {
        let address = AtomicAddress::default();
        assert_eq!(address.get(), None);
        for text in ["10.1.1.2", "0.0.0.0", "2001:db8::1", "::1"] {
            let expected: IpAddr = text.parse().expect("an address");
            address.set(expected);
            assert_eq!(address.get(), Some(expected));
        }
    }
}
