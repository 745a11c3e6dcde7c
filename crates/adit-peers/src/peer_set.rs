//! The peers of one site at one revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ipnet::IpNet;

use crate::address_plan::AddressPlan;
use crate::conflict::{Conflict, Holder};
use crate::name::PeerName;
use crate::peer::Peer;
use crate::peer_delta::{DeltaError, PeerDelta};
use crate::underlay_addresses::UnderlayAddresses;

/// Peers that keep the rule of [`AddressPlan`], among themselves and against their own site.
///
/// Two sets are equal if they have the same site and the same peers, whatever their order and
/// revision. [`iter`](Self::iter) gives peers in the order of insertion; a replaced peer keeps its
/// place.
///
/// A clone costs a reference count. The first change after it copies the indexes: some milliseconds
/// for 10,000 peers with 100,000 networks.
#[derive(Clone, Debug)]
pub struct PeerSet {
    revision: u64,
    content: Arc<Content>,
}

/// A peer's place in the order of the set. It is not used again after the peer is removed.
type Slot = u64;

#[derive(Clone, Debug)]
struct Content {
    underlay: Option<UnderlayAddresses>,
    networks: Vec<IpNet>,
    peers: BTreeMap<Slot, Arc<Peer>>,
    slots: HashMap<PeerName, Slot>,
    next: Slot,
    plan: AddressPlan<PeerName>,
}

impl PeerSet {
    /// A set without peers for the site with these underlay addresses and these networks. `None`:
    /// the addresses are an interface's, and not known yet.
    ///
    /// # Errors
    /// An address or a network is not unicast; a network has host bits, or is there twice.
    pub fn new(
        underlay: Option<UnderlayAddresses>,
        networks: impl IntoIterator<Item = IpNet>,
    ) -> Result<Self, Conflict> {
        Self::with_plan(AddressPlan::new(), underlay, networks)
    }

    /// As [`PeerSet::new`], for peers whose networks may lie inside networks of other owners: the
    /// longest prefix wins. Every data plane forwards by such sets. Files cannot make them, because
    /// there a network inside another's is a mistake.
    ///
    /// # Errors
    /// As [`PeerSet::new`].
    pub fn nested(
        underlay: Option<UnderlayAddresses>,
        networks: impl IntoIterator<Item = IpNet>,
    ) -> Result<Self, Conflict> {
        Self::with_plan(AddressPlan::nested(), underlay, networks)
    }

    fn with_plan(
        mut plan: AddressPlan<PeerName>,
        underlay: Option<UnderlayAddresses>,
        networks: impl IntoIterator<Item = IpNet>,
    ) -> Result<Self, Conflict> {
        let networks: Vec<IpNet> = networks.into_iter().collect();
        for address in underlay.iter().flat_map(UnderlayAddresses::iter) {
            first(plan.claim_underlay(address, Holder::Site))?;
        }
        for network in &networks {
            first(plan.claim_network(*network, Holder::Site))?;
        }
        let (peers, slots) = (BTreeMap::new(), HashMap::new());
        let content = Content { underlay, networks, peers, slots, next: 0, plan };
        Ok(Self { revision: 0, content: Arc::new(content) })
    }

    /// The same peers for a site whose underlay addresses are known by now, or have changed.
    ///
    /// # Errors
    /// An address is not unicast, is a peer's, or lies in a peer's network; or a peer has no
    /// address of a family that the site has.
    pub fn with_site_underlay(&self, addresses: UnderlayAddresses) -> Result<Self, Conflict> {
        self.check_site_underlay(addresses)?;
        let mut set = self.clone();
        if self.content.underlay != Some(addresses) {
            let content = Arc::make_mut(&mut set.content);
            let before = content.underlay.replace(addresses);
            for address in before.iter().flat_map(UnderlayAddresses::iter) {
                content.plan.release_underlay(address, &Holder::Site);
            }
            for address in addresses.iter() {
                first(content.plan.claim_underlay(address, Holder::Site))?;
            }
        }
        Ok(set)
    }

    /// Checks addresses that the site's interface turns out to have. Nothing is copied; linear in
    /// the number of peers.
    ///
    /// # Errors
    /// As [`PeerSet::with_site_underlay`].
    pub fn check_site_underlay(&self, addresses: UnderlayAddresses) -> Result<(), Conflict> {
        for address in addresses.iter() {
            first(self.content.plan.underlay_conflicts(address, &Holder::Site))?;
        }
        self.iter().try_for_each(|peer| peer.path_from(addresses).map(drop))
    }

    /// The same peers as revision `revision`.
    #[must_use]
    pub fn with_revision(self, revision: u64) -> Self {
        Self { revision, ..self }
    }

    /// The revision: a number that grows with each delta that is applied. 0 for a set that was put
    /// together by hand or read from a file.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The underlay addresses of the site, where they are known.
    #[must_use]
    pub fn site_underlay(&self) -> Option<UnderlayAddresses> {
        self.content.underlay
    }

    /// The networks behind the site.
    #[must_use]
    pub fn site_networks(&self) -> &[IpNet] {
        &self.content.networks
    }

    /// Returns true if a network of the site or of a peer is one of IPv6. Costs the same for any
    /// number of peers.
    #[must_use]
    pub fn has_ipv6(&self) -> bool {
        self.content.plan.has_ipv6()
    }

    /// How many peers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.content.peers.len()
    }

    /// Returns true if there are none: a site that waits for its first peer.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.content.peers.is_empty()
    }

    /// The peers in the order of insertion.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Peer>> + ExactSizeIterator + Clone {
        self.content.peers.values()
    }

    /// The peer with this name.
    #[must_use]
    pub fn get(&self, name: &PeerName) -> Option<&Arc<Peer>> {
        self.content.peers.get(self.content.slots.get(name)?)
    }

    /// Inserts a peer behind all others. The revision stays.
    ///
    /// # Errors
    /// The first conflict that the peer has. The set is as it was.
    pub fn insert(&mut self, peer: impl Into<Arc<Peer>>) -> Result<(), Conflict> {
        let content = Arc::make_mut(&mut self.content);
        let slot = content.next;
        content.insert_at(slot, peer.into())?;
        content.next += 1;
        Ok(())
    }

    /// Removes a peer and returns it. The revision stays.
    pub fn remove(&mut self, name: &PeerName) -> Option<Arc<Peer>> {
        if !self.content.slots.contains_key(name) {
            return None;
        }
        Arc::make_mut(&mut self.content).remove(name).map(|(_, peer)| peer)
    }

    /// The change that leads from these peers to those of `other`. It leads to the revision of
    /// `other` if that is newer, else to the next one: a file has none.
    ///
    /// Cost: two look-ups for each peer.
    #[must_use]
    pub fn delta_to(&self, other: &Self) -> PeerDelta {
        let revision = other.revision.max(self.revision + 1);
        let mut delta = PeerDelta { base: self.revision, revision, ..PeerDelta::default() };
        if Arc::ptr_eq(&self.content, &other.content) {
            return delta;
        }
        delta
            .removed
            .extend(self.iter().filter(|peer| other.get(&peer.name).is_none()).map(|peer| peer.name.clone()));
        for peer in other.iter() {
            match self.get(&peer.name) {
                None => delta.inserted.push(Arc::clone(peer)),
                Some(before) if is_same(before, peer) => {}
                Some(_) => delta.replaced.push(Arc::clone(peer)),
            }
        }
        delta
    }

    /// The set after a change. All of the change applies or nothing.
    ///
    /// # Errors
    /// The delta is for another revision, names a peer that does not exist, or leads to a conflict.
    pub fn apply(&self, delta: &PeerDelta) -> Result<Self, DeltaError> {
        if delta.base != self.revision {
            return Err(DeltaError::Stale { base: delta.base, current: self.revision });
        }
        let mut set = self.clone().with_revision(delta.revision);
        if delta.is_empty() {
            return Ok(set);
        }
        let content = Arc::make_mut(&mut set.content);
        let mut remove = |name: &PeerName| {
            content.remove(name).ok_or_else(|| DeltaError::NoSuchPeer { name: name.clone() })
        };
        // Removals come first, because one peer may gain what another loses.
        for name in &delta.removed {
            remove(name)?;
        }
        let replaced: Vec<_> = delta
            .replaced
            .iter()
            .map(|peer| remove(&peer.name).map(|(slot, _)| (slot, peer)))
            .collect::<Result<_, _>>()?;
        for (slot, peer) in replaced {
            content.insert_at(slot, Arc::clone(peer))?;
        }
        for peer in &delta.inserted {
            set.insert(Arc::clone(peer))?;
        }
        Ok(set)
    }
}

impl Content {
    fn insert_at(&mut self, slot: Slot, peer: Arc<Peer>) -> Result<(), Conflict> {
        self.plan.claim_name(&peer.name, peer.name.clone())?;
        if let Err(conflict) = self.claim(&peer) {
            self.release(&peer);
            return Err(conflict);
        }
        self.slots.insert(peer.name.clone(), slot);
        self.peers.insert(slot, peer);
        Ok(())
    }

    fn claim(&mut self, peer: &Peer) -> Result<(), Conflict> {
        for address in peer.underlay.iter() {
            first(self.plan.claim_underlay(address, Holder::Peer(peer.name.clone())))?;
        }
        if let Some(site) = self.underlay {
            peer.path_from(site)?;
        }
        for network in &peer.networks {
            first(self.plan.claim_network(*network, Holder::Peer(peer.name.clone())))?;
        }
        Ok(())
    }

    fn remove(&mut self, name: &PeerName) -> Option<(Slot, Arc<Peer>)> {
        let slot = self.slots.remove(name)?;
        let peer = self.peers.remove(&slot)?;
        self.release(&peer);
        Some((slot, peer))
    }

    /// Releases all claims of a peer.
    fn release(&mut self, peer: &Peer) {
        let holder = Holder::Peer(peer.name.clone());
        self.plan.release_name(&peer.name, &peer.name);
        for address in peer.underlay.iter() {
            self.plan.release_underlay(address, &holder);
        }
        for network in &peer.networks {
            self.plan.release_network(*network, &holder);
        }
    }
}

fn first(conflicts: Vec<Conflict>) -> Result<(), Conflict> {
    conflicts.into_iter().next().map_or(Ok(()), Err)
}

fn is_same(one: &Arc<Peer>, other: &Arc<Peer>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

impl PartialEq for PeerSet {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&*self.content, &*other.content);
        Arc::ptr_eq(&self.content, &other.content)
            || one.underlay == two.underlay
                && one.networks == two.networks
                && self.len() == other.len()
                && self.iter().all(|peer| other.get(&peer.name).is_some_and(|same| is_same(peer, same)))
    }
}

impl Eq for PeerSet {}

impl<'s> IntoIterator for &'s PeerSet {
    type Item = &'s Arc<Peer>;
    type IntoIter = std::collections::btree_map::Values<'s, Slot, Arc<Peer>>;

    fn into_iter(self) -> Self::IntoIter {
        self.content.peers.values()
    }
}
