//! A change of peers while the tunnel goes on.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use adit_peers::{Path, Peer, PeerDelta};
use adit_policy::{Owner, PeerIndex};
use ipnet::IpNet;

use crate::config::{TunnelConfig, TunnelError};
use crate::relay::RelayTable;
use crate::tunnel::{Slot, Tunnel};

/// The changes of look-ups that a [`PeerDelta`] makes, for data planes that keep tables of their
/// own.
///
/// Here a peer is identified by the outer destination of what is sent to it: one that is sent to at
/// another address is removed and added, with a new number; one that gets another name changes
/// nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableDelta {
    /// Peers that come, with numbers that were not used before.
    pub added: Vec<(PeerIndex, Path)>,
    /// Peers that go.
    pub removed: Vec<PeerIndex>,
    /// Outer sources that are another peer's than before, or a peer's for the first time.
    pub sources_assigned: Vec<(IpAddr, PeerIndex)>,
    /// Outer sources that are no peer's any more.
    pub sources_withdrawn: Vec<IpAddr>,
    /// Networks that lead to another peer than before, or to one for the first time.
    pub assigned: Vec<(IpNet, PeerIndex)>,
    /// Networks that lead to no peer any more.
    pub withdrawn: Vec<IpNet>,
}

impl Tunnel {
    /// The tunnel with other peers. A peer that is sent to at the same address keeps its number and
    /// shares its soft state with this tunnel. New ones get new numbers, and the numbers of removed
    /// peers are not used again.
    ///
    /// Cost: a copy of the tables, and some look-ups for each network that changes; milliseconds
    /// for 100,000 networks.
    ///
    /// # Errors
    ///
    /// The delta does not apply to the peers of this tunnel, or there are no numbers left.
    pub fn with_peers(&self, delta: &PeerDelta) -> Result<(Tunnel, TableDelta), TunnelError> {
        let peers = self.config.peers.apply(delta)?;
        let mut tunnel = Tunnel {
            config: TunnelConfig { peers, ..self.config.clone() },
            table: self.table.clone(),
            slots: self.slots.clone(),
            relay: self.relay.clone(),
            icmp: Arc::clone(&self.icmp),
            shares_identifications: Arc::clone(&self.shares_identifications),
            others: Arc::clone(&self.others),
            secret: self.secret.clone(),
            flow_key: self.flow_key,
        };
        let mut change = TableDelta::default();
        let names = delta.removed.iter().chain(delta.replaced.iter().map(|peer| &peer.name));
        let before: Vec<&Peer> =
            names.filter_map(|name| self.config.peers.get(name)).map(|peer| &**peer).collect();
        let after: Vec<&Arc<Peer>> = delta.replaced.iter().chain(&delta.inserted).collect();

        // What one peer loses another may gain, so everything is taken first.
        let mut lost: BTreeSet<IpNet> = BTreeSet::new();
        let mut lost_sources: BTreeSet<IpAddr> = BTreeSet::new();
        for peer in &before {
            for network in &peer.networks {
                tunnel.table.remove_network(*network);
                lost.insert(*network);
            }
            for address in peer.underlay.iter() {
                tunnel.table.remove_underlay(address);
                lost_sources.insert(address);
            }
        }
        let stay: BTreeSet<IpAddr> = after
            .iter()
            .map(|peer| peer.path_from(self.config.underlay).map(|path| path.destination))
            .collect::<Result<_, _>>()?;
        for peer in &before {
            let destination = peer.path_from(self.config.underlay)?.destination;
            if let Some(index) = self.sent_to_at(destination).filter(|_| !stay.contains(&destination)) {
                if let Some(slot) = tunnel.slots.get_mut(index.index()) {
                    slot.state = None;
                }
                change.removed.push(index);
            }
        }
        for peer in after {
            let index = self.slot_for(peer, &mut tunnel, &mut change)?;
            for network in &peer.networks {
                tunnel.table.insert_network(*network, Owner::Peer(index));
                lost.remove(network);
                if self.table.owner_of(*network) != Some(Owner::Peer(index)) {
                    change.assigned.push((*network, index));
                }
            }
            for address in peer.underlay.iter() {
                tunnel.table.insert_underlay(address, index);
                lost_sources.remove(&address);
                if self.table.lookup_outer(address) != Some(index) {
                    change.sources_assigned.push((address, index));
                }
            }
        }
        change.sources_withdrawn.extend(lost_sources);
        change.withdrawn.extend(lost);
        tunnel.relay = RelayTable::new(&tunnel.config.relay, tunnel.peers());
        Ok((tunnel, change))
    }

    /// The peer that is sent to at this address.
    fn sent_to_at(&self, destination: IpAddr) -> Option<PeerIndex> {
        let index = self.table.lookup_outer(destination)?;
        (self.path(index)?.destination == destination).then_some(index)
    }

    /// The number of a peer in `next`: the one that it has here, or a new one.
    fn slot_for(
        &self,
        peer: &Arc<Peer>,
        next: &mut Tunnel,
        change: &mut TableDelta,
    ) -> Result<PeerIndex, TunnelError> {
        let path = peer.path_from(self.config.underlay)?;
        if let Some(index) = self.sent_to_at(path.destination) {
            if let Some(slot) = next.slots.get_mut(index.index()) {
                slot.peer = Arc::clone(peer);
            }
            return Ok(index);
        }
        let found = next.slots.len();
        let index = u32::try_from(found).map_err(|_| TunnelError::TooManyPeers { found })?;
        let index = PeerIndex::new(index);
        next.slots.push(Slot::new(Arc::clone(peer), path, self.config.underlay_mtu));
        change.added.push((index, path));
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    use adit_peers::{PathOptions, PeerName, PeerSet, UnderlayAddresses};
    use adit_wire::encapsulation::OuterPolicy;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    const OURS: &str = "172.16.0.0/16";
    /// A peer a byte of its underlay address, and the blocks of its networks.
    type Wish = BTreeMap<u8, Vec<u8>>;

    fn underlay(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn underlay_v6(last: u8) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into()
    }

    /// The address of IPv4 alone, or with one of IPv6 that goes from peer to peer with a block: of
    /// a second family, or of the first.
    fn addresses(last: u8, blocks: &[u8]) -> UnderlayAddresses {
        let second = blocks.iter().copied().min().filter(|block| block % 3 != 0).map(underlay_v6);
        let mut both: Vec<IpAddr> = [underlay(last)].into_iter().chain(second).collect();
        if blocks.len().is_multiple_of(2) {
            both.reverse();
        }
        UnderlayAddresses::new(both).expect("of two families")
    }

    fn site() -> UnderlayAddresses {
        UnderlayAddresses::new([underlay(1), underlay_v6(0xff)]).expect("of two families")
    }

    fn peers(wish: &Wish) -> Vec<Peer> {
        let peer = |(&last, blocks): (&u8, &Vec<u8>)| Peer {
            name: PeerName::new(format!("p{last}-{}", blocks.len())).expect("a name"),
            underlay: addresses(last, blocks),
            networks: blocks.iter().map(|block| network(*block)).collect(),
            path: PathOptions::default(),
        };
        wish.iter().map(peer).collect()
    }

    /// 16 blocks of a /20, and half as many of a /19 around two of them: they are exclusive in a
    /// wish.
    fn network(block: u8) -> IpNet {
        let (number, len) = if block < 16 { (block, 20) } else { ((block - 16) * 2, 19) };
        IpNet::new(Ipv4Addr::new(10, 0, number << 4, 0).into(), len).expect("a prefix length")
    }

    fn config(peers: Vec<Peer>) -> TunnelConfig {
        let ours = [OURS.parse().expect("a network")];
        let mut set = PeerSet::new(Some(site()), ours).expect("a site without conflicts");
        for peer in peers {
            set.insert(peer).expect("a peer without conflicts");
        }
        TunnelConfig {
            underlay: site(),
            peers: set,
            outer: OuterPolicy::default(),
            mss_clamp: true,
            relay: adit_peers::Relay::default(),
            mtu_floor: crate::DEFAULT_MTU_FLOOR,
            underlay_mtu: 1500,
            local_addresses: Vec::new(),
            reachable_addresses: Vec::new(),
            probe: None,
        }
    }

    fn fresh(wish: &Wish) -> Tunnel {
        Tunnel::new(config(peers(wish))).expect("a good wish")
    }

    fn wish() -> impl Strategy<Value = Wish> {
        // Whose each pair of blocks is, and whether in one piece.
        proptest::collection::vec((0u8..6, 0u8..6, any::<bool>()), 8).prop_map(|pairs| {
            let mut wish: Wish = (2..5).map(|last| (last, Vec::new())).collect();
            for (number, (low, high, is_one)) in (0u8..).zip(pairs) {
                if is_one {
                    wish.entry(low + 2).or_default().push(16 + number);
                } else {
                    wish.entry(low + 2).or_default().push(number * 2);
                    wish.entry(high + 2).or_default().push(number * 2 + 1);
                }
            }
            // Some have nothing, and some are nobody.
            wish.retain(|last, blocks| last % 2 == 0 || !blocks.is_empty());
            wish
        })
    }

    fn delta(before: &Tunnel, after: &Wish) -> PeerDelta {
        before.config().peers.delta_to(&config(peers(after)).peers)
    }

    /// Whose an address is, by underlay address.
    fn owner(tunnel: &Tunnel, address: Ipv4Addr) -> Option<IpAddr> {
        tunnel
            .lookup_inner(address)
            .and_then(|peer| tunnel.peer_state(peer))
            .map(|peer| peer.path.destination)
    }

    proptest! {
        #[test]
        fn a_tunnel_amended_again_and_again_decides_as_one_made_anew(
            wishes in proptest::collection::vec(wish(), 2..8)
        ) {
            let mut tunnel = fresh(&wishes[0]);
            for pair in wishes.windows(2) {
                let before: Vec<_> = tunnel.paths().collect();
                let (amended, change) = tunnel.with_peers(&delta(&tunnel, &pair[1])).expect("a good wish");
                let new = fresh(&pair[1]);
                for block in 0..=255u8 {
                    let address = Ipv4Addr::new(10, 0, block, 7);
                    prop_assert_eq!(owner(&amended, address), owner(&new, address), "{}", address);
                    // The steps alone lead from one to the other.
                    let led = change.assigned.iter().filter(|(network, _)| network.contains(&IpAddr::from(address)));
                    let led = led.max_by_key(|(network, _)| network.prefix_len());
                    if let Some((_, peer)) = led {
                        prop_assert_eq!(amended.lookup_inner(address), Some(*peer));
                    } else if !change.withdrawn.iter().any(|network| network.contains(&IpAddr::from(address))) {
                        prop_assert_eq!(tunnel.lookup_inner(address), amended.lookup_inner(address));
                    }
                }
                let mut names: Vec<_> = amended.peers().map(|(_, peer)| peer.clone()).collect();
                names.sort_by_key(|peer: &Peer| peer.underlay.of_family_of(underlay(1)));
                prop_assert_eq!(names, peers(&pair[1]));
                for (peer, path) in before {
                    let now = amended.paths().find(|(_, now)| *now == path).map(|(now, _)| now);
                    prop_assert!(now.is_none_or(|now| now == peer), "{path:?} keeps its number");
                    prop_assert_eq!(now.is_some(), amended.peer_state(peer).is_some());
                }
                for source in (0..=255).flat_map(|last| [underlay(last), underlay_v6(last)]) {
                    let sender = |tunnel: &Tunnel| {
                        let peer = tunnel.lookup_outer(source)?;
                        Some(tunnel.peer(peer).name.clone())
                    };
                    prop_assert_eq!(sender(&amended), sender(&new), "{}", source);
                    // The steps alone lead from one to the other.
                    let led = change.sources_assigned.iter().find(|(address, _)| *address == source);
                    let led = match led {
                        Some((_, peer)) => Some(*peer),
                        None if change.sources_withdrawn.contains(&source) => None,
                        None => tunnel.lookup_outer(source),
                    };
                    prop_assert_eq!(amended.lookup_outer(source), led, "{}", source);
                }
                tunnel = amended;
            }
        }
    }

    #[test]
    fn soft_state_is_the_same_one_before_and_after() {
        let before = fresh(&Wish::from([(2, vec![0]), (3, vec![1])]));
        let delta = delta(&before, &Wish::from([(2, vec![0, 2])]));
        let (after, change) = before.with_peers(&delta).expect("a good delta");
        let peer = after.lookup_outer(underlay(2)).expect("it stays");
        after.set_underlay_mtu(peer, 1400);
        assert_eq!(before.path_mtu(peer).mtu, 1400);
        assert_eq!(
            (change.removed, change.sources_withdrawn),
            (vec![PeerIndex::new(1)], vec![underlay(3), underlay_v6(1)])
        );
        assert_eq!(change.assigned, [(network(2), peer)]);
        assert_eq!(change.withdrawn, [network(1)]);
        assert!(after.counters().traffic(PeerIndex::new(1)).sent == 0 && after.peer_slots() == 2);
    }

    #[test]
    fn a_peer_with_another_name_keeps_its_number_and_another_address_gets_a_new_one() {
        let before = fresh(&Wish::from([(2, vec![0])]));
        let peer = |name: &str, last| Peer {
            name: name.parse().expect("a name"),
            underlay: underlay(last).into(),
            networks: vec![network(0)],
            path: PathOptions::default(),
        };
        let renamed = config(vec![peer("new", 2)]).peers;
        let (after, change) = before.with_peers(&before.config().peers.delta_to(&renamed)).expect("a name");
        assert_eq!(change, TableDelta::default());
        assert_eq!(after.peer(PeerIndex::new(0)).name.as_str(), "new");
        let moved = config(vec![peer("new", 9)]).peers;
        let (after, change) = after.with_peers(&after.config().peers.delta_to(&moved)).expect("an address");
        let (old, new) = (PeerIndex::new(0), PeerIndex::new(1));
        let path = Path { source: underlay(1), destination: underlay(9) };
        assert_eq!((change.removed, change.added), (vec![old], vec![(new, path)]));
        assert_eq!(change.sources_withdrawn, [underlay(2)]);
        assert_eq!(change.sources_assigned, [(underlay(9), new)]);
        assert_eq!((change.assigned, change.withdrawn), (vec![(network(0), new)], vec![]));
        assert_eq!(after.peers().map(|(index, _)| index).collect::<Vec<_>>(), [new]);
    }

    #[test]
    fn a_delta_that_leads_to_a_conflict_is_refused() {
        let before = fresh(&Wish::from([(2, vec![0]), (3, vec![1])]));
        let unchanged = before.config().peers.delta_to(&before.config().peers);
        let insert = |last: u8, network: &str| PeerDelta {
            inserted: vec![Arc::new(Peer {
                name: "new".parse().expect("a name"),
                underlay: underlay(last).into(),
                networks: vec![network.parse().expect("a network")],
                path: PathOptions::default(),
            })],
            ..unchanged.clone()
        };
        let remove = PeerDelta { removed: vec!["p9".parse().expect("a name")], ..unchanged.clone() };
        let enclosing = insert(9, "192.0.2.0/29");
        for (delta, words) in [
            (insert(9, "10.0.0.0/20"), "belongs to both peer p2-1 and peer new"),
            (insert(9, OURS), "belongs to both this site and peer new"),
            (insert(1, "10.9.0.0/16"), "underlay address of both this site and peer new"),
            (
                enclosing.clone(),
                "192.0.2.0/29 of peer new contains the underlay addresses 192.0.2.1 of this site",
            ),
            (enclosing, "192.0.2.2 of peer p2-1"),
            (insert(9, "192.0.2.1/32"), "contains the underlay address 192.0.2.1 of this site"),
            (remove, "no peer is named p9"),
        ] {
            let message = before.with_peers(&delta).expect_err("it is wrong").to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
