//! The underlay addresses of one gateway, and the path between two gateways.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses that one gateway has on the underlay: one, or one of each family. Their order is
/// that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnderlayAddresses {
    first: IpAddr,
    /// Of the other family.
    second: Option<IpAddr>,
}

/// Two underlay addresses of one family, between which outer packets travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Ours: the outer source.
    pub source: IpAddr,
    /// The peer's: the outer destination.
    pub destination: IpAddr,
}

/// The reason why a gateway cannot have these addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnderlayAddressesError {
    /// There are none.
    #[error("there is no address: give one, or one of IPv4 and one of IPv6")]
    Empty,
    /// Two are of one family.
    #[error("{first} and {second} are of one family: give one address of IPv4 and one of IPv6 at most")]
    SameFamily {
        /// The first of them.
        first: IpAddr,
        /// The second.
        second: IpAddr,
    },
}

impl UnderlayAddresses {
    /// These addresses, in this order.
    ///
    /// # Errors
    /// There are none, or two of one family.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, UnderlayAddressesError> {
        let mut addresses = addresses.into_iter();
        let first = addresses.next().ok_or(UnderlayAddressesError::Empty)?;
        addresses.try_fold(Self::from(first), Self::and)
    }

    /// These addresses and one more behind them.
    fn and(self, more: IpAddr) -> Result<Self, UnderlayAddressesError> {
        match self.of_family_of(more) {
            Some(first) => Err(UnderlayAddressesError::SameFamily { first, second: more }),
            None => Ok(Self { second: Some(more), ..self }),
        }
    }

    /// The address that is written first.
    #[must_use]
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + Clone + use<> {
        std::iter::once(self.first).chain(self.second)
    }

    /// Whether `address` is one of them.
    #[inline]
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.first == address || self.second == Some(address)
    }

    /// The address of the family that `other` has.
    #[must_use]
    pub fn of_family_of(&self, other: IpAddr) -> Option<IpAddr> {
        self.iter().find(|address| address.is_ipv4() == other.is_ipv4())
    }

    /// The path that packets to a peer take: to the first of its addresses whose family this
    /// gateway has. `None`: the two have no family in common.
    ///
    /// The destination decides, as for a host that has addresses of both families: the source
    /// follows from it. So each peer may prefer another family, and a gateway whose addresses are
    /// an interface's needs no order of its own.
    #[must_use]
    pub fn path_to(&self, peer: &Self) -> Option<Path> {
        self.paths_to(peer).next()
    }

    /// All paths that packets to a peer could take, the one in use first.
    pub fn paths_to(&self, peer: &Self) -> impl Iterator<Item = Path> + use<> {
        let ours = *self;
        peer.iter().filter_map(move |destination| {
            ours.of_family_of(destination).map(|source| Path { source, destination })
        })
    }
}

impl fmt::Display for UnderlayAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.second.map_or(Ok(()), |second| write!(f, ", {second}"))
    }
}

impl From<IpAddr> for UnderlayAddresses {
    fn from(only: IpAddr) -> Self {
        Self { first: only, second: None }
    }
}

impl From<Ipv4Addr> for UnderlayAddresses {
    fn from(only: Ipv4Addr) -> Self {
        IpAddr::from(only).into()
    }
}

impl From<Ipv6Addr> for UnderlayAddresses {
    fn from(only: Ipv6Addr) -> Self {
        IpAddr::from(only).into()
    }
}

impl From<[u8; 4]> for UnderlayAddresses {
    fn from(only: [u8; 4]) -> Self {
        IpAddr::from(only).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    const OTHER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

    fn addresses(addresses: &[IpAddr]) -> UnderlayAddresses {
        UnderlayAddresses::new(addresses.iter().copied()).unwrap()
    }

    #[test]
    fn there_is_one_address_of_a_family_and_at_least_one() {
        assert_eq!(addresses(&[V6, V4]).iter().collect::<Vec<_>>(), [V6, V4]);
        assert_eq!(UnderlayAddresses::new([]), Err(UnderlayAddressesError::Empty));
        for twice in [&[V4, OTHER_V4][..], &[V4, V6, OTHER_V4], &[V4, V4]] {
            let second = *twice.last().unwrap();
            assert_eq!(
                UnderlayAddresses::new(twice.iter().copied()),
                Err(UnderlayAddressesError::SameFamily { first: V4, second })
            );
        }
    }

    #[test]
    fn the_first_address_of_the_peer_whose_family_is_ours_is_the_destination() {
        for (ours, theirs, expected) in [
            (&[V4][..], &[OTHER_V4][..], Some((V4, OTHER_V4))),
            (&[V4, V6], &[OTHER_V6], Some((V6, OTHER_V6))),
            (&[V4, V6], &[OTHER_V6, OTHER_V4], Some((V6, OTHER_V6))),
            (&[V6, V4], &[OTHER_V4, OTHER_V6], Some((V4, OTHER_V4))),
            (&[V4], &[OTHER_V6, OTHER_V4], Some((V4, OTHER_V4))),
            (&[V4], &[OTHER_V6], None),
            (&[V6], &[OTHER_V4], None),
        ] {
            let path = addresses(ours).path_to(&addresses(theirs));
            assert_eq!(path.map(|path| (path.source, path.destination)), expected, "{ours:?} {theirs:?}");
        }
    }
}
