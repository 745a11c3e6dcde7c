//! Our addresses on the underlay as the sources of what leaves.

use std::net::IpAddr;

use adit_linux::family::Family;
use adit_linux::flow_source::FlowSource;
use adit_tunnel::{Path, UnderlayAddresses};

/// An address of each family that the site has, and the firewall mark of what leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlaySources {
    /// Our addresses on the underlay.
    pub addresses: UnderlayAddresses,
    /// The firewall mark (`SO_MARK`); 0 is none.
    pub mark: u32,
}

impl UnderlaySources {
    /// That of the address that is written first.
    #[must_use]
    pub fn first(self) -> FlowSource {
        FlowSource { address: self.addresses.first(), mark: self.mark }
    }

    /// All of them.
    pub fn iter(self) -> impl Iterator<Item = FlowSource> + Clone {
        self.addresses.iter().map(move |address| FlowSource { address, mark: self.mark })
    }

    /// The source of what takes a path.
    #[must_use]
    pub fn of(self, path: Path) -> FlowSource {
        FlowSource { address: path.source, mark: self.mark }
    }

    /// The paths by source, so that the routes of all of a family are looked up together.
    pub fn group<T>(
        self,
        paths: impl Iterator<Item = (T, Path)> + Clone,
    ) -> impl Iterator<Item = (FlowSource, Vec<(T, IpAddr)>)> {
        self.iter().map(move |source| {
            let paths = paths.clone().filter(|(_, path)| path.source == source.address);
            (source, paths.map(|(of, path)| (of, path.destination)).collect())
        })
    }

    /// Whether the site has an address of this family.
    #[must_use]
    pub fn has(self, family: Family) -> bool {
        self.addresses.iter().any(|address| Family::of(address) == family)
    }
}
