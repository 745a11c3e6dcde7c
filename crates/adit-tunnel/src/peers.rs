//! The look-up tables of a tunnel: owners by inner prefix (longest match), peers by outer address.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_policy::{Owner, PeerIndex};
use ipnet::{IpNet, Ipv4Net};
use prefix_trie::PrefixMap;

use crate::address_hasher::AddressHasher;
use crate::networks_v6::NetworksV6;

/// The tables that every datagram is looked up in: owners by inner prefix, one for each family, and
/// peers by outer address. No lookup allocates.
#[derive(Debug, Clone, Default)]
pub struct PeerTable {
    inner_v4: PrefixMap<Ipv4Net, Owner>,
    inner_v6: NetworksV6,
    outer: HashMap<u128, PeerIndex, BuildHasherDefault<AddressHasher>>,
}

impl PeerTable {
    /// An empty table.
    pub fn new() -> PeerTable {
        PeerTable::default()
    }

    /// Assigns a network, whose host bits are ignored, to an owner. Returns the owner that had
    /// exactly this network.
    pub fn insert_network(&mut self, network: IpNet, owner: Owner) -> Option<Owner> {
        match network {
            IpNet::V4(network) => self.inner_v4.insert(network.trunc(), owner),
            IpNet::V6(network) => self.inner_v6.insert(network, owner),
        }
    }

    /// Whether anybody has a network of IPv6.
    #[inline]
    pub fn has_v6(&self) -> bool {
        !self.inner_v6.is_empty()
    }

    /// Assigns an outer address to a peer. Returns the peer that had it.
    pub fn insert_underlay(&mut self, underlay: IpAddr, peer: PeerIndex) -> Option<PeerIndex> {
        self.outer.insert(outer_key(underlay), peer)
    }

    /// Removes exactly this network. Returns its owner.
    pub fn remove_network(&mut self, network: IpNet) -> Option<Owner> {
        match network {
            IpNet::V4(network) => self.inner_v4.remove(&network.trunc()),
            IpNet::V6(network) => self.inner_v6.remove(network),
        }
    }

    /// The owner of exactly this network.
    pub fn owner_of(&self, network: IpNet) -> Option<Owner> {
        match network {
            IpNet::V4(network) => self.inner_v4.get(&network.trunc()).copied(),
            IpNet::V6(network) => self.inner_v6.get(network),
        }
    }

    /// Removes an outer address. Returns its peer.
    pub fn remove_underlay(&mut self, underlay: IpAddr) -> Option<PeerIndex> {
        self.outer.remove(&outer_key(underlay))
    }

    /// The owner of the longest prefix around an inner address. Costs a few dependent memory reads,
    /// whatever the number of prefixes.
    #[inline]
    pub fn owner(&self, address: Ipv4Addr) -> Option<Owner> {
        self.inner_v4.get_lpm(&Ipv4Net::from(address)).map(|(_, owner)| *owner)
    }

    /// The same for an address of IPv6. Costs a look-up for each length of prefix that there is.
    #[inline]
    pub fn owner_v6(&self, address: Ipv6Addr) -> Option<Owner> {
        self.inner_v6.longest(address)
    }

    /// The peer that an inner address is behind, by longest prefix; `None` also for our own
    /// networks.
    #[inline]
    pub fn lookup_inner(&self, address: Ipv4Addr) -> Option<PeerIndex> {
        match self.owner(address) {
            Some(Owner::Peer(peer)) => Some(peer),
            Some(Owner::Ours) | None => None,
        }
    }

    /// The peer with this outer address.
    #[inline]
    pub fn lookup_outer(&self, address: IpAddr) -> Option<PeerIndex> {
        self.outer.get(&outer_key(address)).copied()
    }
}

/// An IPv4 address in its mapped form, which no underlay address of IPv6 has.
#[inline]
fn outer_key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    use proptest::prelude::*;

    /// Few distinct leading bits, so that random prefixes nest and random addresses hit them.
    fn address() -> impl Strategy<Value = IpAddr> {
        (any::<bool>(), 0u8..2, 0u8..4, any::<u8>(), any::<u8>()).prop_map(|(is_v6, a, b, c, d)| {
            let octets = [10 + a, b << 6, c, d];
            let mut wide = [0x20; 16];
            wide[..4].copy_from_slice(&octets);
            if is_v6 { IpAddr::from(wide) } else { IpAddr::from(octets) }
        })
    }

    fn owner() -> impl Strategy<Value = Owner> {
        (0u32..9).prop_map(|n| if n == 0 { Owner::Ours } else { Owner::Peer(PeerIndex::new(n - 1)) })
    }

    fn network() -> impl Strategy<Value = IpNet> {
        (address(), 0u8..=128).prop_map(|(address, length)| {
            let longest = IpNet::from(address).max_prefix_len();
            IpNet::new(address, length.min(longest)).expect("it is a prefix length")
        })
    }

    fn found(table: &PeerTable, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(address) => table.owner(address),
            IpAddr::V6(address) => table.owner_v6(address),
        }
    }

    proptest! {
        #[test]
        fn the_longest_prefix_wins_as_in_a_linear_model(
            networks in proptest::collection::vec((network(), owner()), 0..60),
            addresses in proptest::collection::vec(address(), 1..60),
        ) {
            let mut table = PeerTable::new();
            let mut model: Vec<(IpNet, Owner)> = Vec::new();
            for (network, owner) in networks {
                let before = table.insert_network(network, owner);
                let place = model.iter().position(|(n, _)| *n == network.trunc());
                prop_assert_eq!(before, place.map(|place| model[place].1));
                match place {
                    Some(place) => model[place].1 = owner,
                    None => model.push((network.trunc(), owner)),
                }
            }
            for (network, owner) in model.extract_if(.., |(network, _)| network.prefix_len() % 3 == 0) {
                prop_assert_eq!(table.owner_of(network), Some(owner));
                prop_assert_eq!(table.remove_network(network), Some(owner));
                prop_assert_eq!(table.owner_of(network), None);
            }
            let edges = model.iter().flat_map(|(n, _)| [n.network(), n.broadcast()]).collect::<Vec<_>>();
            for address in addresses.into_iter().chain(edges) {
                let expected = model
                    .iter()
                    .filter(|(network, _)| network.contains(&address))
                    .max_by_key(|(network, _)| network.prefix_len())
                    .map(|(_, owner)| *owner);
                prop_assert_eq!(found(&table, address), expected, "{}", address);
                let peer = match expected { Some(Owner::Peer(peer)) => Some(peer), _ => None };
                if let IpAddr::V4(address) = address {
                    prop_assert_eq!(table.lookup_inner(address), peer);
                }
            }
        }

        #[test]
        fn outer_addresses_are_found_as_in_a_list(
            known in proptest::collection::btree_set(any::<u32>(), 0..200),
            unknown in proptest::collection::vec(any::<u32>(), 1..50),
        ) {
            let mut table = PeerTable::new();
            for (index, bits) in known.iter().enumerate() {
                prop_assert_eq!(table.insert_underlay(Ipv4Addr::from_bits(*bits).into(), PeerIndex::new(index as u32)), None);
            }
            for bits in known.iter().chain(&unknown) {
                let expected = known.iter().position(|k| k == bits).map(|index| PeerIndex::new(index as u32));
                prop_assert_eq!(table.lookup_outer(Ipv4Addr::from_bits(*bits).into()), expected);
            }
        }
    }

    #[test]
    fn ten_thousand_peers_with_ten_networks_each() {
        let mut table = PeerTable::new();
        for peer in 0..10_000u32 {
            table.insert_underlay(Ipv4Addr::from_bits(0xcb00_0000 + peer).into(), PeerIndex::new(peer));
            for n in 0..10 {
                let base = Ipv4Addr::from_bits(0x0a00_0000 + (peer * 10 + n) * 64);
                let network = Ipv4Net::new(base, 26).expect("26 is a prefix length");
                assert_eq!(table.insert_network(network.into(), Owner::Peer(PeerIndex::new(peer))), None);
            }
        }
        for peer in (0..10_000u32).step_by(7) {
            let address = Ipv4Addr::from_bits(0x0a00_0000 + peer * 640 + 639);
            assert_eq!(table.lookup_inner(address), Some(PeerIndex::new(peer)));
            assert_eq!(
                table.lookup_outer(Ipv4Addr::from_bits(0xcb00_0000 + peer).into()),
                Some(PeerIndex::new(peer))
            );
        }
        assert_eq!(table.lookup_inner(Ipv4Addr::from_bits(0x0a00_0000 + 6_400_000)), None);
    }
}
