//! Interfaces of others that have the names of ours. Adit never touches them: a start and a change
//! are refused.

use adit_linux::netlink::{IpTunnel, Link, Network};

use crate::error::ControlError;
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::{DesiredDevice, has_alias_of, is_half_made, site_of};

/// Refuses names of interfaces that are taken by others, or by an interface of this site that is of
/// another kind.
///
/// # Errors
/// Fails if one is taken, or if the kernel cannot be asked.
pub(crate) fn refuse(network: &mut dyn Network, site: &str, desired: &Desired) -> Result<(), ControlError> {
    desired.devices.iter().try_for_each(|device| refuse_device(network, site, device))
}

/// Refuses a name of the hidden end that is taken by others: by an interface which is neither the
/// other end of the tunnel interface nor left by this site.
///
/// # Errors
/// Fails if it is taken, or if the kernel cannot be asked.
pub(crate) fn refuse_hidden_end(
    inner: &mut dyn Network,
    underlay: &mut dyn Network,
    desired: &Desired,
) -> Result<(), ControlError> {
    let Some(hidden) = &desired.hidden else { return Ok(()) };
    let Some(link) = underlay.link(&hidden.name)? else { return Ok(()) };
    let visible = inner.link(&desired.device)?;
    let is_other_end = visible.is_some_and(|it| it.lower == Some(link.index) && link.lower == Some(it.index));
    if is_other_end || link.alias.as_deref() == Some(&hidden.alias) || hidden.is_half_made(&link) {
        return Ok(());
    }
    Err(is_taken(&link))
}

fn refuse_device(network: &mut dyn Network, site: &str, desired: &DesiredDevice) -> Result<(), ControlError> {
    let Some(link) = network.link(&desired.name)? else { return Ok(()) };
    if !has_alias_of(&link, site) {
        return match is_half_made(&link, desired) {
            true => Ok(()),
            false => Err(is_taken(&link)),
        };
    }
    if link.tunnel.is_some() != desired.tunnel.is_some() {
        return Err(ControlError::OtherKind {
            device: desired.name.clone(),
            kind: link.kind.unwrap_or_default(),
            site: site.to_owned(),
        });
    }
    Ok(())
}

/// Refuses endpoints of interfaces that others have: each of Linux's tunnel drivers has one
/// interface for each pair of addresses, and IPv4 in IPv4 goes to one of ipip even if there is one
/// of sit for it.
///
/// # Errors
/// Fails if there is one, or if the kernel cannot be asked.
pub(crate) fn refuse_pairs(
    network: &mut dyn Network,
    site: &str,
    desired: &Desired,
) -> Result<(), ControlError> {
    let links = network.links()?;
    for device in &desired.devices {
        let Some(wanted) = device.tunnel else { continue };
        let has_pair = |link: &&Link| {
            let is_same = link.tunnel.is_some_and(|it| {
                let is_in_the_way = it.driver == wanted.driver || takes_ipv4(it) && takes_ipv4(wanted);
                is_in_the_way && (it.local, it.remote) == (wanted.local, wanted.remote)
            });
            let is_left_over = link.name == device.name && is_half_made(link, device);
            is_same && !has_alias_of(link, site) && !is_left_over
        };
        let Some(link) = links.iter().find(has_pair) else { continue };
        let what = match link.alias.as_deref().and_then(site_of) {
            Some(site) => format!("of overlay `{site}`"),
            None => describe_link(link),
        };
        let (local, device) = (wanted.local, link.name.clone());
        let remote = wanted.remote.map_or_else(|| "any address".to_owned(), |remote| remote.to_string());
        let kind = link.tunnel.map_or(wanted.driver, |found| found.driver).kind();
        return Err(ControlError::PairTaken { kind, local, remote, device, what });
    }
    Ok(())
}

/// Returns true if an interface takes IPv4 from its peer.
fn takes_ipv4(tunnel: IpTunnel) -> bool {
    const ANY: u8 = 0;
    const IPIP: u8 = 4;
    matches!(tunnel.protocol, ANY | IPIP)
}

/// The error about an interface of others that has a name of ours.
fn is_taken(link: &Link) -> ControlError {
    let device = link.name.clone();
    match link.alias.as_deref().and_then(site_of) {
        Some(overlay) => ControlError::DeviceOfOverlay { device, overlay: overlay.to_owned() },
        None => ControlError::ForeignDevice { device, what: describe_link(link) },
    }
}

fn describe_link(link: &Link) -> String {
    match (&link.alias, &link.kind) {
        (Some(alias), _) => format!("its alias is `{alias}`"),
        (None, Some(kind)) => format!("a device of kind `{kind}` without our alias"),
        (None, None) => "a device without our alias".to_owned(),
    }
}
