//! The owners of networks of IPv6, by longest prefix: a hash table for each length of prefix.
//!
//! A trie takes a dependent memory read for every few bits, and prefixes of IPv6 share many. An
//! overlay has few lengths of prefix, and each costs one look-up here.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::Ipv6Addr;

use adit_policy::Owner;
use ipnet::Ipv6Net;

use crate::address_hasher::AddressHasher;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworksV6 {
    /// The longest prefixes first; none is empty.
    lengths: Vec<Length>,
}

/// The networks of one length.
#[derive(Debug, Clone)]
struct Length {
    mask: u128,
    owners: HashMap<u128, Owner, BuildHasherDefault<AddressHasher>>,
}

impl NetworksV6 {
    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Assigns a network. Returns the owner that it had.
    pub(crate) fn insert(&mut self, network: Ipv6Net, owner: Owner) -> Option<Owner> {
        let mask = network.netmask().to_bits();
        let at = match self.position(mask) {
            Ok(at) => at,
            Err(at) => {
                self.lengths.insert(at, Length { mask, owners: HashMap::default() });
                at
            }
        };
        self.lengths.get_mut(at)?.owners.insert(network.addr().to_bits() & mask, owner)
    }

    /// Removes exactly this network. Returns its owner.
    pub(crate) fn remove(&mut self, network: Ipv6Net) -> Option<Owner> {
        let mask = network.netmask().to_bits();
        let at = self.position(mask).ok()?;
        let length = self.lengths.get_mut(at)?;
        let owner = length.owners.remove(&(network.addr().to_bits() & mask));
        if length.owners.is_empty() {
            self.lengths.remove(at);
        }
        owner
    }

    /// The owner of exactly this network.
    pub(crate) fn get(&self, network: Ipv6Net) -> Option<Owner> {
        let mask = network.netmask().to_bits();
        let length = self.lengths.get(self.position(mask).ok()?)?;
        length.owners.get(&(network.addr().to_bits() & mask)).copied()
    }

    /// The owner of the longest prefix around an address. Costs a look-up for each length.
    #[inline]
    pub(crate) fn longest(&self, address: Ipv6Addr) -> Option<Owner> {
        let bits = address.to_bits();
        self.lengths.iter().find_map(|length| length.owners.get(&(bits & length.mask)).copied())
    }

    /// Where the networks with this mask are, or belong.
    fn position(&self, mask: u128) -> Result<usize, usize> {
        self.lengths.binary_search_by(|length| mask.cmp(&length.mask))
    }
}
