//! Peers that come, go and change while the tunnel goes on.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use adit_policy::{Owner, PeerIndex};
use ipnet::{IpNet, Ipv4Net};

use crate::config::{OURSELVES, PeerConfig, TunnelError, peer_name, unicast};
use crate::tunnel::{Peer, Tunnel};

/// What is to become of the peers of a tunnel. A peer is known by its underlay address: one that gets another
/// address is one that goes and one that comes.
#[derive(Debug, Clone, Default)]
pub struct Amendment {
    /// The underlay addresses of those that go.
    pub removed: Vec<Ipv4Addr>,
    /// Those that come, and those that have another name or other networks from now on.
    pub set: Vec<PeerConfig>,
}

/// What an amendment changes about lookups, for whoever keeps tables of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Those that come, in places that nobody has had before.
    pub added: Vec<(PeerIndex, Ipv4Addr)>,
    /// Those that go.
    pub removed: Vec<(PeerIndex, Ipv4Addr)>,
    /// Networks that lead to a peer from now on, and led elsewhere or nowhere.
    pub given: Vec<(Ipv4Net, PeerIndex)>,
    /// Networks that lead nowhere from now on.
    pub taken: Vec<Ipv4Net>,
}

impl Tunnel {
    /// The tunnel with other peers. Those that stay have the numbers that they had, and the very same soft state;
    /// those that come have new numbers, and the numbers of those that go are not used again.
    ///
    /// A copy of the tables, and then some lookups a network that changes and a comparison with every peer:
    /// milliseconds for 100,000 networks.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::new`]; a peer that is to go and is not there.
    pub fn amended(&self, amendment: &Amendment) -> Result<(Tunnel, Steps), TunnelError> {
        let mut tunnel = Tunnel {
            config: self.config.clone(),
            underlay: self.underlay,
            table: self.table.clone(),
            peers: self.peers.clone(),
            local: self.local.clone(),
            icmp: Arc::clone(&self.icmp),
            shares_identifications: Arc::clone(&self.shares_identifications),
        };
        let mut steps = Steps::default();
        // What somebody loses another may get, so all of it goes first.
        let mut lost = BTreeSet::new();
        for &address in &amendment.removed {
            let peer = tunnel.table.remove_underlay(address).ok_or(TunnelError::NoSuchPeer { address })?;
            lost.extend(tunnel.take_networks(peer));
            if let Some(place) = tunnel.peers.get_mut(peer.index()) {
                *place = None;
            }
            steps.removed.push((peer, address));
        }
        for config in &amendment.set {
            let known = tunnel.known(config);
            lost.extend(known.into_iter().flat_map(|peer| tunnel.take_networks(peer)));
        }
        let mut addresses = BTreeSet::new();
        for config in &amendment.set {
            let name = peer_name(config);
            let address = unicast(&format!("the underlay address of {name},"), config.underlay)?;
            if address == self.underlay || !addresses.insert(address) {
                let first = if address == self.underlay { OURSELVES.to_owned() } else { name.clone() };
                return Err(TunnelError::DuplicateUnderlay { address, first, second: name });
            }
            let peer = tunnel.place(config, address, &mut steps)?;
            let owner = Owner::Peer(peer);
            tunnel.config.add_networks(&mut tunnel.table, name, &config.networks, owner)?;
            for network in ipv4(&config.networks) {
                lost.remove(&network);
                if self.table.owner_of(network) != Some(owner) {
                    steps.given.push((network, peer));
                }
            }
        }
        steps.taken.extend(lost);
        tunnel.refuse_loops(&steps)?;
        Ok((tunnel, steps))
    }

    fn known(&self, config: &PeerConfig) -> Option<PeerIndex> {
        match config.underlay {
            IpAddr::V4(address) => self.table.lookup_outer(address),
            IpAddr::V6(_) => None,
        }
    }

    /// Takes all its networks from a peer.
    fn take_networks(&mut self, peer: PeerIndex) -> Vec<Ipv4Net> {
        let config = self.config.peers.get_mut(peer.index());
        let networks = config.map(|config| std::mem::take(&mut config.networks)).unwrap_or_default();
        let networks: Vec<Ipv4Net> = ipv4(&networks).collect();
        for network in &networks {
            self.table.remove_network(*network);
        }
        networks
    }

    /// Writes down a peer in its place, or in a new one.
    fn place(
        &mut self,
        config: &PeerConfig,
        address: Ipv4Addr,
        steps: &mut Steps,
    ) -> Result<PeerIndex, TunnelError> {
        if let Some(peer) = self.table.lookup_outer(address) {
            if let Some(known) = self.config.peers.get_mut(peer.index()) {
                known.clone_from(config);
            }
            return Ok(peer);
        }
        let number = u32::try_from(self.peers.len())
            .map_err(|_| TunnelError::TooManyPeers { found: self.peers.len() })?;
        let peer = PeerIndex::new(number);
        self.table.insert_underlay(address, peer);
        self.config.peers.push(config.clone());
        self.peers.push(Some(Arc::new(Peer::new(address, self.config.underlay_mtu))));
        steps.added.push((peer, address));
        Ok(peer)
    }

    /// The tunnel must not be routed into itself: no underlay address lies in a peer's network.
    fn refuse_loops(&self, steps: &Steps) -> Result<(), TunnelError> {
        let added = steps.added.iter().map(|(_, address)| *address);
        let everybody =
            || self.peers.iter().flatten().map(|peer| peer.underlay).chain(std::iter::once(self.underlay));
        let enclosed = steps
            .given
            .iter()
            .flat_map(|(network, _)| everybody().filter(move |address| network.contains(address)));
        for address in added.chain(enclosed) {
            if let Some(inside) = self.table.lookup_inner(address) {
                let whose = self.table.lookup_outer(address).map_or(Owner::Ours, Owner::Peer);
                let peer = self.config.peers.get(inside.index()).map(|peer| peer.name.clone());
                let whose = self.config.owner_name(whose);
                return Err(TunnelError::UnderlayInsideTunnel {
                    address,
                    whose,
                    peer: peer.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }
}

fn ipv4(networks: &[IpNet]) -> impl Iterator<Item = Ipv4Net> + '_ {
    networks.iter().filter_map(|network| match network {
        IpNet::V4(network) => Some(network.trunc()),
        IpNet::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TunnelConfig;
    use adit_wire::encapsulation::OuterPolicy;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const OURS: &str = "172.16.0.0/16";
    /// A peer a byte of its underlay address, and the blocks of its networks.
    type Wish = BTreeMap<u8, Vec<u8>>;

    fn underlay(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, last)
    }

    fn peers(wish: &Wish) -> Vec<PeerConfig> {
        let peer = |(&last, blocks): (&u8, &Vec<u8>)| PeerConfig {
            name: format!("p{last}-{}", blocks.len()),
            underlay: IpAddr::V4(underlay(last)),
            networks: blocks.iter().map(|block| network(*block).into()).collect(),
        };
        wish.iter().map(peer).collect()
    }

    /// 16 blocks of a /20, and half as many of a /19 around two of them: they are exclusive in a wish.
    fn network(block: u8) -> Ipv4Net {
        let (number, len) = if block < 16 { (block, 20) } else { ((block - 16) * 2, 19) };
        Ipv4Net::new(Ipv4Addr::new(10, 0, number << 4, 0), len).expect("a prefix length")
    }

    fn config(peers: Vec<PeerConfig>) -> TunnelConfig {
        TunnelConfig {
            underlay: IpAddr::V4(underlay(1)),
            networks: vec![OURS.parse().expect("a network")],
            outer: OuterPolicy::default(),
            mss_clamp: true,
            underlay_mtu: 1500,
            local_addresses: Vec::new(),
            probe: None,
            peers,
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

    fn between(before: &Wish, after: &Wish) -> Amendment {
        let removed = before.keys().filter(|last| !after.contains_key(last)).map(|last| underlay(*last));
        let changed = after.iter().filter(|(last, blocks)| before.get(last) != Some(blocks));
        Amendment {
            removed: removed.collect(),
            set: peers(&changed.map(|(last, blocks)| (*last, blocks.clone())).collect()),
        }
    }

    /// Whose an address is, by underlay address.
    fn owner(tunnel: &Tunnel, address: Ipv4Addr) -> Option<Ipv4Addr> {
        tunnel.lookup_inner(address).and_then(|peer| tunnel.peer_state(peer)).map(|peer| peer.underlay)
    }

    proptest! {
        #[test]
        fn a_tunnel_amended_again_and_again_decides_as_one_made_anew(
            wishes in proptest::collection::vec(wish(), 2..8)
        ) {
            let mut tunnel = fresh(&wishes[0]);
            for pair in wishes.windows(2) {
                let before: Vec<_> = tunnel.peers().map(|(peer, config)| (peer, config.underlay)).collect();
                let (amended, steps) = tunnel.amended(&between(&pair[0], &pair[1])).expect("a good wish");
                let new = fresh(&pair[1]);
                for block in 0..=255u8 {
                    let address = Ipv4Addr::new(10, 0, block, 7);
                    prop_assert_eq!(owner(&amended, address), owner(&new, address), "{}", address);
                    // The steps alone lead from one to the other.
                    let led = steps.given.iter().filter(|(network, _)| network.contains(&address));
                    let led = led.max_by_key(|(network, _)| network.prefix_len());
                    if let Some((_, peer)) = led {
                        prop_assert_eq!(amended.lookup_inner(address), Some(*peer));
                    } else if !steps.taken.iter().any(|network| network.contains(&address)) {
                        prop_assert_eq!(tunnel.lookup_inner(address), amended.lookup_inner(address));
                    }
                }
                let mut names: Vec<_> = amended.peers().map(|(_, peer)| peer.clone()).collect();
                names.sort_by_key(|peer| peer.underlay);
                prop_assert_eq!(names, peers(&pair[1]));
                for (peer, address) in before {
                    let IpAddr::V4(address) = address else { continue };
                    let now = amended.lookup_outer(address);
                    prop_assert!(now.is_none_or(|now| now == peer), "{address} keeps its number");
                    prop_assert_eq!(now.is_some(), amended.peer_state(peer).is_some());
                }
                tunnel = amended;
            }
        }
    }

    #[test]
    fn soft_state_is_the_same_one_before_and_after() {
        let before = fresh(&Wish::from([(2, vec![0]), (3, vec![1])]));
        let amendment = between(&Wish::from([(2, vec![0]), (3, vec![1])]), &Wish::from([(2, vec![0, 2])]));
        let (after, steps) = before.amended(&amendment).expect("a good amendment");
        let peer = after.lookup_outer(underlay(2)).expect("it stays");
        after.set_underlay_mtu(peer, 1400);
        assert_eq!(before.path_mtu(peer).mtu, 1400);
        assert_eq!(steps.removed, [(PeerIndex::new(1), underlay(3))]);
        assert_eq!(steps.given, [(network(2), peer)]);
        assert_eq!(steps.taken, [network(1)]);
        assert!(after.counters().sent(PeerIndex::new(1)) == 0 && after.places() == 2);
    }

    #[test]
    fn what_a_new_tunnel_refuses_an_amendment_refuses() {
        let before = fresh(&Wish::from([(2, vec![0]), (3, vec![1])]));
        let set = |last: u8, network: &str| Amendment {
            removed: Vec::new(),
            set: vec![PeerConfig {
                name: "new".to_owned(),
                underlay: IpAddr::V4(underlay(last)),
                networks: vec![network.parse().expect("a network")],
            }],
        };
        let refused = |amendment: &Amendment| before.amended(amendment).expect_err("it is wrong").to_string();
        for (amendment, word) in [
            (set(9, "10.0.0.0/20"), "belongs to both peer p2-1 and peer new"),
            (set(9, OURS), "belongs to both this site and peer new"),
            (set(1, "10.9.0.0/16"), "underlay address of both this site and peer new"),
            (set(9, "192.0.2.0/29"), "192.0.2.2 of peer p2-1 lies in a network of peer new"),
            (set(9, "192.0.2.1/32"), "192.0.2.1 of this site lies in a network of peer new"),
            (Amendment { removed: vec![underlay(9)], set: Vec::new() }, "no peer has the underlay address"),
        ] {
            let said = refused(&amendment);
            assert!(said.contains(word), "{said}");
        }
    }
}
