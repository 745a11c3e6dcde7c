//! Both sides of an overlay, which may be in two network namespaces: outside, where the daemon is, the underlay; inside,
//! where the file says, the tunnel's device and what is routed into it.

use adit_config::SiteConfig;
use adit_linux::net_scope::Inside;
use adit_linux::netlink::Netlink;
use adit_linux::netns::NetNs;

use crate::error::ControlError;
use crate::reconcile::desired::Vrf;

/// What is asked of the kernel on either side.
#[derive(Debug)]
pub(crate) struct Sides {
    /// Where the inside is.
    pub(crate) place: Inside,
    pub(crate) inside: Netlink,
    pub(crate) outside: Netlink,
}

impl Sides {
    /// From the calling thread's network namespace.
    pub(crate) fn open(site: &SiteConfig) -> Result<Self, ControlError> {
        let netns = match &site.netns {
            Some(name) => Some(namespace(name.as_str())?),
            None => None,
        };
        let place = Inside { netns, vrf: site.vrf.as_ref().map(ToString::to_string) };
        let inside = place.run(Netlink::open)??;
        Ok(Self { place, inside, outside: Netlink::open()? })
    }

    /// Whether the namespace still has its name. One that has lost it lives as long as we do, and nobody finds it.
    pub(crate) fn is_current(&self, site: &SiteConfig) -> bool {
        match (&self.place.netns, &site.netns) {
            (Some(netns), Some(name)) => NetNs::named(name.as_str()).is_ok_and(|named| named.is_same(netns)),
            (None, None) => true,
            _ => false,
        }
    }

    /// The VRF that the file names, as it is now.
    pub(crate) fn vrf(&mut self) -> Result<Option<Vrf>, ControlError> {
        let Some(name) = &self.place.vrf else { return Ok(None) };
        let link = self
            .inside
            .link(name)?
            .ok_or_else(|| ControlError::NoVrf { name: name.clone(), why: "there is no such interface" })?;
        match link.vrf_table {
            Some(table) => Ok(Some(Vrf { name: name.clone(), index: link.index, table })),
            None => Err(ControlError::NoVrf { name: name.clone(), why: "that interface is no VRF" }),
        }
    }
}

/// One that `ip netns` has named.
pub(crate) fn namespace(name: &str) -> Result<NetNs, ControlError> {
    NetNs::named(name).map_err(|source| match source.errno() {
        Some(adit_linux::ENOENT) => ControlError::NoNetns { name: name.to_owned() },
        _ => source.into(),
    })
}
