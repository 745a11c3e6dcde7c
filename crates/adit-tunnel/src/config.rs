//! What a tunnel is made of, and what is refused before it carries anything.

use std::net::{IpAddr, Ipv4Addr};

use adit_policy::{Owner, PeerIndex};
use adit_wire::encapsulation::{OuterPolicy, TtlPolicy};
use ipnet::IpNet;

use crate::peers::PeerTable;
use crate::probe::ProbeOptions;

/// A tunnel: this side, and everyone on the other side.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// Our address on the underlay: the outer source.
    pub underlay: IpAddr,
    /// The networks behind us: what may send through the tunnel and what is delivered out of it.
    pub networks: Vec<IpNet>,
    /// How the outer header is written.
    pub outer: OuterPolicy,
    /// Whether the MSS of TCP connections through the tunnel is lowered to the peer's path MTU.
    pub mss_clamp: bool,
    /// Bytes of the largest datagram that the underlay's interface takes, the outer header included.
    /// Less than 88 is taken as 88.
    pub underlay_mtu: u16,
    /// This gateway's own inner addresses: what is delivered to them, and what RFC 2003 section 3.2
    /// refuses to forward from them.
    pub local_addresses: Vec<IpAddr>,
    /// How the paths to the peers are probed, by whoever drives a [`Prober`](crate::Prober); `None`: not at all.
    pub probe: Option<ProbeOptions>,
    /// The other sides. In [`Tunnel::config`](crate::Tunnel::config) also those that are gone, without networks: a
    /// peer keeps its place.
    pub peers: Vec<PeerConfig>,
}

/// Another side of the tunnel: an address *and* the networks that may speak from behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its name, for people.
    pub name: String,
    /// Its address on the underlay: the outer destination.
    pub underlay: IpAddr,
    /// What may be reached, and may speak, through it. A longer prefix wins over a shorter one.
    pub networks: Vec<IpNet>,
}

/// Why a tunnel could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// An IPv6 address or network.
    #[error("{what} {value} is IPv6, which is not supported yet: give an IPv4 one")]
    Ipv6 {
        /// Whose it is.
        what: String,
        /// What was given.
        value: String,
    },
    /// An outer address that no host can have.
    #[error("{what} {address} is not a unicast address: give the address of one host on the underlay")]
    NotUnicast {
        /// Whose it is.
        what: String,
        /// What was given.
        address: Ipv4Addr,
    },
    /// Two sides with one outer address.
    #[error("{address} is the underlay address of both {first} and {second}: each side needs its own")]
    DuplicateUnderlay {
        /// The address.
        address: Ipv4Addr,
        /// Who had it first.
        first: String,
        /// Who came with it again.
        second: String,
    },
    /// Two sides with exactly the same network.
    #[error("network {network} belongs to both {first} and {second}: it can lie behind one side only")]
    DuplicateNetwork {
        /// The network.
        network: IpNet,
        /// Who had it first.
        first: String,
        /// Who came with it again.
        second: String,
    },
    /// An outer address inside a peer's networks.
    #[error(
        "the underlay address {address} of {whose} lies in a network of peer {peer}: the tunnel would be \
         routed into itself; take the address out of that network"
    )]
    UnderlayInsideTunnel {
        /// The address.
        address: Ipv4Addr,
        /// Whose underlay address it is.
        whose: String,
        /// Whose network it lies in.
        peer: String,
    },
    /// An outer TTL that no router forwards.
    #[error(
        "the outer TTL is 0, with which nothing leaves this host: give 1 to 255, or inherit the inner one"
    )]
    TtlZero,
    /// A peer that is to go, and is not there.
    #[error("no peer has the underlay address {address}, so it cannot be removed")]
    NoSuchPeer {
        /// The address.
        address: Ipv4Addr,
    },
    /// More peers than a [`PeerIndex`] can number.
    #[error("{found} peers are more than the {} that one tunnel can hold", u32::MAX)]
    TooManyPeers {
        /// How many were given.
        found: usize,
    },
}

/// The configuration, checked and in the form that packets are looked up in.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) underlay: Ipv4Addr,
    pub(crate) local: Vec<Ipv4Addr>,
    pub(crate) peer_underlays: Vec<Ipv4Addr>,
    pub(crate) table: PeerTable,
}

pub(crate) const OURSELVES: &str = "this site";

pub(crate) fn peer_name(peer: &PeerConfig) -> String {
    format!("peer {}", peer.name)
}

fn ipv4(what: &str, address: IpAddr) -> Result<Ipv4Addr, TunnelError> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(address) => Err(TunnelError::Ipv6 { what: what.to_owned(), value: address.to_string() }),
    }
}

pub(crate) fn unicast(what: &str, address: IpAddr) -> Result<Ipv4Addr, TunnelError> {
    let address = ipv4(what, address)?;
    let class_e_and_broadcast = address.octets()[0] >= 240;
    if address.is_unspecified() || address.is_multicast() || class_e_and_broadcast {
        return Err(TunnelError::NotUnicast { what: what.to_owned(), address });
    }
    Ok(address)
}

impl TunnelConfig {
    /// Checks everything and builds the tables. Linear in the number of networks.
    pub(crate) fn check(&self) -> Result<Checked, TunnelError> {
        if u32::try_from(self.peers.len()).is_err() {
            return Err(TunnelError::TooManyPeers { found: self.peers.len() });
        }
        if self.outer.ttl == TtlPolicy::Fixed(0) {
            return Err(TunnelError::TtlZero);
        }
        let mut table = PeerTable::new();
        let underlay = unicast("the site's underlay address", self.underlay)?;
        let local = self
            .local_addresses
            .iter()
            .map(|address| ipv4("the local address", *address))
            .collect::<Result<_, _>>()?;
        self.add_networks(&mut table, OURSELVES.to_owned(), &self.networks, Owner::Ours)?;

        let mut peer_underlays = Vec::with_capacity(self.peers.len());
        for (index, peer) in (0u32..).zip(&self.peers) {
            let index = PeerIndex::new(index);
            let name = peer_name(peer);
            let address = unicast(&format!("the underlay address of {name},"), peer.underlay)?;
            if address == underlay {
                let first = OURSELVES.to_owned();
                return Err(TunnelError::DuplicateUnderlay { address, first, second: name });
            }
            if let Some(other) = table.insert_underlay(address, index) {
                let first = self.owner_name(Owner::Peer(other));
                return Err(TunnelError::DuplicateUnderlay { address, first, second: name });
            }
            self.add_networks(&mut table, name, &peer.networks, Owner::Peer(index))?;
            peer_underlays.push(address);
        }

        let ours = std::iter::once((underlay, Owner::Ours));
        let theirs = (0u32..).zip(&peer_underlays).map(|(n, a)| (*a, Owner::Peer(PeerIndex::new(n))));
        for (address, whose) in ours.chain(theirs) {
            if let Some(inside) = table.lookup_inner(address) {
                return Err(TunnelError::UnderlayInsideTunnel {
                    address,
                    whose: self.owner_name(whose),
                    peer: self.peers.get(inside.index()).map(|peer| peer.name.clone()).unwrap_or_default(),
                });
            }
        }
        Ok(Checked { underlay, local, peer_underlays, table })
    }

    pub(crate) fn owner_name(&self, owner: Owner) -> String {
        match owner {
            Owner::Ours => OURSELVES.to_owned(),
            Owner::Peer(peer) => self.peers.get(peer.index()).map(peer_name).unwrap_or_default(),
        }
    }

    pub(crate) fn add_networks(
        &self,
        table: &mut PeerTable,
        name: String,
        networks: &[IpNet],
        owner: Owner,
    ) -> Result<(), TunnelError> {
        for network in networks {
            let IpNet::V4(v4) = network else {
                return Err(TunnelError::Ipv6 {
                    what: format!("{name}: network"),
                    value: network.to_string(),
                });
            };
            match table.insert_network(*v4, owner) {
                Some(other) if other != owner => {
                    let first = self.owner_name(other);
                    return Err(TunnelError::DuplicateNetwork { network: *network, first, second: name });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}
