//! The conflicts of address claims: between two owners, or of a claim that is invalid by itself.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::PeerName;
use crate::underlay_addresses::UnderlayAddresses;
use crate::unicast::NotUnicast;

/// Number of addresses that [`Conflict::UnderlayEnclosed`] names at most.
pub const NAMED_ADDRESSES: usize = 3;

/// The owner of an address or network: this site, or the peer `P`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder<P = PeerName> {
    /// This site.
    Site,
    /// A peer.
    Peer(P),
}

impl<P: fmt::Display> fmt::Display for Holder<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site => f.write_str("this site"),
            Self::Peer(peer) => write!(f, "peer {peer}"),
        }
    }
}

/// The reason why a claim breaks the rule of [`AddressPlan`](crate::AddressPlan). `P` identifies a
/// peer: its name, or its place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict<P = PeerName> {
    /// Two peers have one name.
    NameTaken {
        /// The name.
        name: PeerName,
        /// The peer that claims it.
        claimant: P,
        /// The peer that has it.
        holder: P,
    },
    /// No host can have the underlay address.
    NotUnicast {
        /// The address.
        address: IpAddr,
        /// The owner that claims it.
        claimant: Holder<P>,
        /// What it is instead.
        found: NotUnicast,
    },
    /// Two owners have one underlay address.
    UnderlayTaken {
        /// The address.
        address: IpAddr,
        /// The owner that claims it.
        claimant: Holder<P>,
        /// The owner that has it.
        holder: Holder<P>,
    },
    /// The site and a peer have underlay addresses of different families.
    NoCommonFamily {
        /// Those of the site.
        site: UnderlayAddresses,
        /// The peer.
        peer: P,
        /// Those of the peer.
        addresses: UnderlayAddresses,
    },
    /// A prefix has bits set behind its length.
    HostBits {
        /// The prefix.
        network: IpNet,
        /// The owner that claims it.
        claimant: Holder<P>,
    },
    /// No host can have an address of the network.
    NetworkNotUnicast {
        /// The network.
        network: IpNet,
        /// The owner that claims it.
        claimant: Holder<P>,
        /// What it is instead.
        found: NotUnicast,
    },
    /// One owner claims one network twice.
    NetworkRepeated {
        /// The network.
        network: IpNet,
        /// The owner.
        claimant: Holder<P>,
    },
    /// Networks of two owners are equal, or one lies in the other.
    NetworksOverlap {
        /// The network that is claimed.
        network: IpNet,
        /// The owner that claims it.
        claimant: Holder<P>,
        /// The network that it overlaps.
        other: IpNet,
        /// The owner of that one.
        holder: Holder<P>,
    },
    /// Underlay addresses lie in a peer's network, or those of peers in our own.
    UnderlayEnclosed {
        /// The network.
        network: IpNet,
        /// The owner of the network.
        owner: Holder<P>,
        /// The first [`NAMED_ADDRESSES`] of the addresses, ascending, with their owners.
        addresses: Vec<(IpAddr, Holder<P>)>,
        /// How many there are in all.
        count: usize,
    },
}

impl<P: fmt::Display> fmt::Display for Conflict<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NameTaken { name, .. } => {
                write!(f, "two peers are named {name}: give each peer a name of its own")
            }
            Self::NotUnicast { address, claimant, found } => write!(
                f,
                "the underlay address {address} of {claimant} is {found}, not a unicast address: give the \
                 address of one host on the underlay"
            ),
            Self::UnderlayTaken { address, claimant, holder } => write!(
                f,
                "{address} is the underlay address of both {holder} and {claimant}: give each its own"
            ),
            Self::NoCommonFamily { site, peer, addresses } => write!(
                f,
                "the underlay address {site} of this site and {addresses} of peer {peer} are of different \
                 families, and no packet has a source of one and a destination of the other: give either a \
                 second address, of the other family"
            ),
            Self::HostBits { network, claimant } => write!(
                f,
                "network {network} of {claimant} has host bits set (after the first {}): write {}",
                network.prefix_len(),
                network.trunc()
            ),
            Self::NetworkNotUnicast { network, claimant, found } => {
                write!(f, "network {network} of {claimant} is {found}: remove it")
            }
            Self::NetworkRepeated { network, claimant } => {
                write!(f, "{claimant} has the network {network} twice: remove one of the two")
            }
            Self::NetworksOverlap { network, claimant, other, holder } if network == other => write!(
                f,
                "network {network} belongs to both {holder} and {claimant}: a network is behind one site only"
            ),
            Self::NetworksOverlap { network, claimant, other, holder } => write!(
                f,
                "network {network} of {claimant} overlaps {other} of {holder}: remove or narrow one of the two"
            ),
            Self::UnderlayEnclosed { network, owner, addresses, count } => {
                let s = if *count == 1 { "" } else { "es" };
                write!(f, "network {network} of {owner} contains the underlay address{s} ")?;
                for (place, (address, holder)) in addresses.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{address} of {holder}")?;
                }
                match count.saturating_sub(addresses.len()) {
                    0 => {}
                    more => write!(f, " and {more} more")?,
                }
                f.write_str(match owner {
                    Holder::Peer(_) => ": the tunnel would route into itself",
                    Holder::Site => ": a peer's gateway is not behind this site",
                })?;
                f.write_str(
                    "; narrow the network so that it leaves out the addresses that the tunnel itself sends to \
                     or from",
                )
            }
        }
    }
}

impl<P: fmt::Display + fmt::Debug> std::error::Error for Conflict<P> {}
