//! Objects of an overlay that no daemon serves any more: finding and removing them.

use adit_linux::net_scope::NetScope;
use adit_linux::netlink::Network;

use crate::error::ControlError;
use crate::host::{Host, LinuxHost};
use crate::namespaces::named_namespace;
use crate::reconcile::desired::guard_metric;
use crate::reconcile::devices::{HiddenEnd, hidden_alias};
use crate::reconcile::guard_routes;
use crate::reconcile::objects::{self, links_of_site};

/// Removes what an overlay of this name left in the calling thread's network namespace, or in the
/// one that its file named: pinned programs, every interface with its alias, the routes of those,
/// the packet filter, and the guard routes; and, if the name of its tunnel interface is known, a
/// pair that has no alias yet, because its start was killed. Returns the names of what was removed.
///
/// # Errors
/// Fails if the kernel refuses.
pub fn remove_leftovers(
    site: &str,
    netns: Option<&str>,
    device: Option<&str>,
) -> Result<Vec<String>, ControlError> {
    let host = LinuxHost;
    host.remove_pins(site)?;
    let mut removed = match open_inner(&host, netns)? {
        Some(mut inner) => remove_objects(&host, inner.as_mut(), site)?,
        None => Vec::new(),
    };
    let mut underlay = host.network(&NetScope::default())?;
    let hidden = HiddenEnd::of(site, device.unwrap_or_default());
    removed.extend(objects::remove_hidden_ends(underlay.as_mut(), &hidden)?);
    Ok(removed)
}

/// What an overlay has left in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Programs, which forward.
    Programs,
    /// An interface of Linux's driver, which forwards.
    Driver,
    /// Something that keeps packets for a peer from leaving in the open.
    Interface,
}

/// Returns true if there is anything that [`remove_leftovers`] would remove.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub fn has_leftovers(site: &str, netns: Option<&str>) -> Result<bool, ControlError> {
    Ok(LinuxHost.has_filter(site) || what_is_left(site, netns)?.is_some())
}

/// Returns what of an overlay is in the calling thread's network namespace, or in the one that its
/// file named.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn what_is_left(site: &str, netns: Option<&str>) -> Result<Option<Left>, ControlError> {
    let host = LinuxHost;
    if host.has_pins(site) {
        return Ok(Some(Left::Programs));
    }
    let mut links = links_of_site(host.network(&NetScope::default())?.as_mut(), site)?;
    let mut inner = open_inner(&host, netns)?;
    if let (Some(inner), Some(_)) = (&mut inner, netns) {
        links.extend(links_of_site(inner.as_mut(), site)?);
    }
    if links.iter().any(|link| link.tunnel.is_some()) {
        return Ok(Some(Left::Driver));
    }
    if !links.is_empty() {
        return Ok(Some(Left::Interface));
    }
    let Some(mut inner) = inner else { return Ok(None) };
    let guards = guard_routes::list(inner.as_mut(), guard_metric(site))?;
    Ok((!guards.is_empty()).then_some(Left::Interface))
}

/// Removes the programs of an overlay whose network namespace is gone. Returns their name if there
/// were any.
///
/// # Errors
/// Fails if a pin cannot be removed.
pub fn remove_programs(site: &str) -> Result<Vec<String>, ControlError> {
    let had_pins = LinuxHost.has_pins(site);
    LinuxHost.remove_pins(site)?;
    Ok(if had_pins { vec!["programs".to_owned()] } else { Vec::new() })
}

/// Opens the inner side. `None`: there is no namespace of that name, so all that was in it is gone.
fn open_inner(host: &dyn Host, netns: Option<&str>) -> Result<Option<Box<dyn Network>>, ControlError> {
    let netns = match netns.map(named_namespace).transpose() {
        Ok(netns) => netns,
        Err(ControlError::NoNetns { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(host.network(&NetScope { netns, vrf: None })?))
}

/// Removes the interfaces of a site, then the packet filter that guards them, and last the guard
/// routes, in all tables. Returns their names.
pub(super) fn remove_objects(
    host: &dyn Host,
    inner: &mut dyn Network,
    site: &str,
) -> Result<Vec<String>, ControlError> {
    let mut removed = Vec::new();
    let hidden = hidden_alias(site);
    for link in links_of_site(inner, site)? {
        // It goes with the tunnel interface.
        if link.alias.as_deref() != Some(&hidden) {
            inner.delete_link(link.index)?;
            removed.push(link.name);
        }
    }
    if host.remove_filter(site)? {
        removed.push(adit_dataplane::kernel::table_name(site));
    }
    let guards = guard_routes::list(inner, guard_metric(site))?;
    inner.delete_routes(&guards)?;
    if !guards.is_empty() {
        removed.push("guard-routes".to_owned());
    }
    Ok(removed)
}
