//! The two sides of an overlay, which may be in two network namespaces: the underlay, where the
//! daemon runs, and the inner side, where the tunnel's interface and its routes are.

use std::sync::Arc;

use adit_config::SiteConfig;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::Network;
use adit_linux::netns::NetNs;

use crate::error::ControlError;
use crate::host::Host;
use crate::reconcile::desired::Vrf;

/// Both sides, open.
pub(crate) struct Namespaces {
    pub(crate) host: Arc<dyn Host>,
    /// Where the inner side is.
    pub(crate) scope: NetScope,
    pub(crate) inner: Box<dyn Network>,
    pub(crate) underlay: Box<dyn Network>,
}

impl Namespaces {
    /// Opens both, seen from the calling thread's network namespace.
    ///
    /// # Errors
    /// Fails if `site.netns` does not exist, or if netlink cannot be opened.
    pub(crate) fn open(host: &Arc<dyn Host>, site: &SiteConfig) -> Result<Self, ControlError> {
        let netns = match &site.netns {
            Some(name) => Some(named_namespace(name.as_str())?),
            None => None,
        };
        let scope = NetScope { netns, vrf: site.vrf.as_ref().map(ToString::to_string) };
        let inner = host.network(&scope)?;
        let underlay = host.network(&NetScope::default())?;
        Ok(Self { host: Arc::clone(host), scope, inner, underlay })
    }

    /// Returns true if `site.netns` still names the open namespace. A namespace that has lost its
    /// name lives as long as this process, and nobody can find it.
    pub(crate) fn is_current(&self, site: &SiteConfig) -> bool {
        match (&self.scope.netns, &site.netns) {
            (Some(netns), Some(name)) => NetNs::named(name.as_str()).is_ok_and(|named| named.is_same(netns)),
            (None, None) => true,
            _ => false,
        }
    }

    /// Looks up the VRF of `site.vrf` as it is now.
    ///
    /// # Errors
    /// Fails if there is no interface of that name, or if it is not a VRF.
    pub(crate) fn vrf(&mut self) -> Result<Option<Vrf>, ControlError> {
        let Some(name) = &self.scope.vrf else { return Ok(None) };
        let link = self
            .inner
            .link(name)?
            .ok_or_else(|| ControlError::NoVrf { name: name.clone(), why: "there is no such interface" })?;
        match link.vrf_table {
            Some(table) => Ok(Some(Vrf { name: name.clone(), index: link.index, table })),
            None => Err(ControlError::NoVrf { name: name.clone(), why: "that interface is no VRF" }),
        }
    }
}

/// Opens a network namespace that `ip netns` has named.
///
/// # Errors
/// Fails if there is none of that name.
pub(crate) fn named_namespace(name: &str) -> Result<NetNs, ControlError> {
    NetNs::named(name).map_err(|source| match source.errno() {
        Some(adit_linux::ENOENT) => ControlError::NoNetns { name: name.to_owned() },
        _ => source.into(),
    })
}
