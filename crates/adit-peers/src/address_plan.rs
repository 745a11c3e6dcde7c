//! The address plan: which owner holds which name, underlay address and network, and the one rule
//! for them.
//!
//! The rule: names are unique; underlay addresses are unique and unicast; a network has no host
//! bits, is written once for each owner, and overlaps no network of another owner; no underlay
//! address lies in a peer's network, since a packet to it would be routed into the tunnel that it
//! carries; and no peer's underlay address lies in the site's networks, since what the peer's
//! gateway sends through the tunnel would pretend to come from this site.
//!
//! The plan records a claim even when it conflicts, so that a reader of a file finds every mistake
//! in one pass. [`PeerSet`](crate::PeerSet) stops at the first conflict and takes its claims back.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::conflict::{Conflict, Holder, NAMED_ADDRESSES};
use crate::name::PeerName;
use crate::unicast::{check_host, check_network};

/// By prefix length in bits.
type Lengths = [u32; 129];

/// All claims of a site and its peers. `P` identifies a peer.
///
/// A claim costs a few ordered look-ups, and as much again for each conflict that it has.
#[derive(Clone, Debug)]
pub struct AddressPlan<P> {
    names: HashMap<PeerName, P>,
    underlays: BTreeMap<IpAddr, Holder<P>>,
    /// By first address and length, so that the networks inside a network follow it.
    networks: BTreeMap<(IpAddr, u8), Holder<P>>,
    /// How many networks of each family have each length: a look-up of the networks around one
    /// tries only lengths that exist.
    lengths_v4: Lengths,
    lengths_v6: Lengths,
    nested: bool,
}

impl<P> Default for AddressPlan<P> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            underlays: BTreeMap::new(),
            networks: BTreeMap::new(),
            lengths_v4: [0; 129],
            lengths_v6: [0; 129],
            nested: false,
        }
    }
}

impl<P: Clone + Eq> AddressPlan<P> {
    /// A plan without claims.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A plan without claims, in which a network of one owner may lie inside another owner's
    /// network. Equal networks conflict all the same.
    pub(crate) fn nested() -> Self {
        Self { nested: true, ..Self::default() }
    }

    /// Claims a name. The first claimant keeps it.
    ///
    /// # Errors
    /// Another peer has the name.
    pub fn claim_name(&mut self, name: &PeerName, claimant: P) -> Result<(), Conflict<P>> {
        match self.names.get(name).cloned() {
            Some(holder) => Err(Conflict::NameTaken { name: name.clone(), claimant, holder }),
            None => {
                self.names.insert(name.clone(), claimant);
                Ok(())
            }
        }
    }

    /// Claims an underlay address, and returns all conflicts. The first claimant keeps the address.
    pub fn claim_underlay(&mut self, address: IpAddr, claimant: Holder<P>) -> Vec<Conflict<P>> {
        let conflicts = self.underlay_conflicts(address, &claimant);
        if check_host(address).is_ok() {
            self.underlays.entry(address).or_insert(claimant);
        }
        conflicts
    }

    /// The conflicts that [`claim_underlay`](Self::claim_underlay) would return.
    pub(crate) fn underlay_conflicts(&self, address: IpAddr, claimant: &Holder<P>) -> Vec<Conflict<P>> {
        if let Err(found) = check_host(address) {
            return vec![Conflict::NotUnicast { address, claimant: claimant.clone(), found }];
        }
        let taken = self.underlays.get(&address).filter(|holder| *holder != claimant);
        let taken = taken.map(|holder| Conflict::UnderlayTaken {
            address,
            claimant: claimant.clone(),
            holder: holder.clone(),
        });
        let around = self.around(IpNet::from(address));
        let enclosing =
            around.filter(|(_, holder)| is_enclosure(holder, claimant)).map(|(network, holder)| {
                Conflict::UnderlayEnclosed {
                    network,
                    owner: holder.clone(),
                    addresses: vec![(address, claimant.clone())],
                    count: 1,
                }
            });
        taken.into_iter().chain(enclosing).collect()
    }

    /// Claims a network, and returns all conflicts. The first claimant keeps the network.
    ///
    /// Of several networks of other peers around the network, only the nearest is reported: one
    /// large network would otherwise be reported at each depth.
    pub fn claim_network(&mut self, network: IpNet, claimant: Holder<P>) -> Vec<Conflict<P>> {
        if network.trunc() != network {
            return vec![Conflict::HostBits { network, claimant }];
        }
        if let Err(found) = check_network(network) {
            return vec![Conflict::NetworkNotUnicast { network, claimant, found }];
        }
        let mut conflicts = Vec::new();
        let holder = self.networks.get(&key(network));
        let (is_held, is_peers) = (holder.is_some(), matches!(holder, Some(Holder::Peer(_))));
        if holder == Some(&claimant) {
            return vec![Conflict::NetworkRepeated { network, claimant }];
        }
        let overlap = |other, holder: &Holder<P>| Conflict::NetworksOverlap {
            network,
            claimant: claimant.clone(),
            other,
            holder: holder.clone(),
        };
        let outer = self.around(network).filter(|(_, holder)| **holder != claimant);
        let mut has_peer = false;
        for (other, holder) in outer.filter(|(other, _)| !self.nested || *other == network) {
            let is_with_site = *holder == Holder::Site || claimant == Holder::Site;
            if is_with_site || !has_peer {
                conflicts.push(overlap(other, holder));
            }
            has_peer |= !is_with_site;
        }
        if is_peers {
            // The networks and addresses inside conflict with the first claimant, which is
            // reported.
            return conflicts;
        }
        if !self.nested && !is_held {
            let inner = self.inside(network).filter(|(_, holder)| **holder != claimant);
            let inner = inner.filter(|(other, holder)| self.is_nearest(network, &claimant, *other, holder));
            conflicts.extend(inner.map(|(other, holder)| overlap(other, holder)));
        }
        conflicts.extend(self.enclosed(network, &claimant));
        if is_held {
            return conflicts;
        }
        self.networks.insert(key(network), claimant);
        if let Some(count) = self.lengths_mut(network).get_mut(usize::from(network.prefix_len())) {
            *count += 1;
        }
        conflicts
    }

    /// Returns true if anybody has a network of IPv6.
    pub(crate) fn has_ipv6(&self) -> bool {
        self.lengths_v6.iter().any(|count| *count > 0)
    }

    /// Releases a name if `holder` has it.
    pub(crate) fn release_name(&mut self, name: &PeerName, holder: &P) {
        if self.names.get(name) == Some(holder) {
            self.names.remove(name);
        }
    }

    /// Releases an underlay address if `holder` has it.
    pub(crate) fn release_underlay(&mut self, address: IpAddr, holder: &Holder<P>) {
        if self.underlays.get(&address) == Some(holder) {
            self.underlays.remove(&address);
        }
    }

    /// Releases a network if `holder` has it.
    pub(crate) fn release_network(&mut self, network: IpNet, holder: &Holder<P>) {
        if self.networks.get(&key(network)) == Some(holder) {
            self.networks.remove(&key(network));
            if let Some(count) = self.lengths_mut(network).get_mut(usize::from(network.prefix_len())) {
                *count -= 1;
            }
        }
    }

    fn lengths(&self, family: IpNet) -> &Lengths {
        match family {
            IpNet::V4(_) => &self.lengths_v4,
            IpNet::V6(_) => &self.lengths_v6,
        }
    }

    fn lengths_mut(&mut self, family: IpNet) -> &mut Lengths {
        match family {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        }
    }

    /// The network itself and those around it, the nearest first.
    fn around(&self, network: IpNet) -> impl Iterator<Item = (IpNet, &Holder<P>)> {
        let lengths = (0..=network.prefix_len()).rev();
        let counts = self.lengths(network);
        let used = lengths.filter(|length| counts.get(usize::from(*length)).is_some_and(|n| *n > 0));
        used.filter_map(move |length| {
            let outer = IpNet::new(network.addr(), length).ok()?.trunc();
            Some((outer, self.networks.get(&key(outer))?))
        })
    }

    /// The networks inside a network, without the network itself.
    fn inside(&self, network: IpNet) -> impl Iterator<Item = (IpNet, &Holder<P>)> {
        let (first, length) = key(network);
        let longest = network.max_prefix_len();
        // For a single address the range behind the network would end before it begins.
        let range = (length < longest).then(|| (first, length + 1)..=(network.broadcast(), longest));
        let networks = range.map(|range| self.networks.range(range)).into_iter().flatten();
        networks.filter_map(|((first, length), holder)| Some((IpNet::new(*first, *length).ok()?, holder)))
    }

    /// Returns true if no peer except the owner of `inner` has a network between `inner` and
    /// `outer`. What concerns this site is always reported.
    fn is_nearest(&self, outer: IpNet, claimant: &Holder<P>, inner: IpNet, holder: &Holder<P>) -> bool {
        let is_with_site = *holder == Holder::Site || *claimant == Holder::Site;
        let is_between = |(network, owner): (IpNet, &Holder<P>)| {
            network.prefix_len() > outer.prefix_len() && owner != holder && *owner != Holder::Site
        };
        is_with_site || !self.around(inner).any(is_between)
    }

    /// The conflict of a network with the underlay addresses in it.
    fn enclosed(&self, network: IpNet, owner: &Holder<P>) -> Option<Conflict<P>> {
        let inside = || {
            let found = self.underlays.range(network.network()..=network.broadcast());
            found.filter(|(_, holder)| is_enclosure(owner, holder))
        };
        let addresses: Vec<_> =
            inside().take(NAMED_ADDRESSES).map(|(address, holder)| (*address, holder.clone())).collect();
        let count = inside().count();
        (count > 0).then(|| Conflict::UnderlayEnclosed { network, owner: owner.clone(), addresses, count })
    }
}

/// Returns true if the underlay address of `holder` may not lie in a network of `owner`. Our own
/// may lie in our own.
fn is_enclosure<P: PartialEq>(owner: &Holder<P>, holder: &Holder<P>) -> bool {
    *owner != Holder::Site || *holder != Holder::Site
}

fn key(network: IpNet) -> (IpAddr, u8) {
    (network.addr(), network.prefix_len())
}
