//! The facts of a machine that an overlay depends on: our underlay addresses, the addresses of the
//! inner side, and the MTU towards the peers.

use std::collections::HashSet;
use std::net::IpAddr;

use adit_config::{Config, UnderlayAddresses};
use adit_dataplane::UnderlaySources;
use adit_linux::netlink::{Address, Link, Network};
use adit_tunnel::Path;
use ipnet::IpNet;

use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{Machine, Vrf};
use crate::underlay;

/// The underlay MTU, in bytes, where no peer can be reached yet: that of Ethernet.
pub(crate) const DEFAULT_MTU: u16 = 1500;

/// What an overlay that runs has, and keeps if the machine still has it.
#[derive(Default)]
pub(crate) struct InUse {
    /// Our underlay addresses.
    pub(crate) underlay: Option<UnderlayAddresses>,
    /// The MTU of the underlay, in bytes, where no peer has a route at present.
    pub(crate) underlay_mtu: Option<u16>,
    /// The networks of its peers. A foreign route to one of them, which came meanwhile, is no
    /// reason to refuse a change.
    pub(crate) networks: HashSet<IpNet>,
}

impl InUse {
    /// Returns what an overlay with this configuration has.
    pub(crate) fn of(
        config: &Config,
        underlay: Option<UnderlayAddresses>,
        underlay_mtu: Option<u16>,
    ) -> Self {
        let networks = config.peers.iter().flat_map(|peer| peer.networks.iter().copied());
        Self { underlay, underlay_mtu, networks: networks.collect() }
    }
}

/// Looks up what `config` depends on. An underlay address that is `in_use` stays if the machine
/// still has it, and so does the MTU where no peer has a route at present.
///
/// # Errors
/// Fails if an underlay address or the VRF of the file is missing or cannot be used, or if the
/// kernel cannot be asked.
pub(crate) fn look_up(
    namespaces: &mut Namespaces,
    config: &Config,
    in_use: &InUse,
) -> Result<Machine, ControlError> {
    let vrf = namespaces.vrf()?;
    let underlay = underlay::find(namespaces.underlay.as_mut(), config, in_use.underlay)?;
    underlay::refuse_vrf(namespaces.underlay.as_mut(), underlay)?;
    let local = local_addresses(namespaces.inner.as_mut(), underlay, vrf.as_ref())?;
    let sources = UnderlaySources { addresses: underlay, mark: config.site.fwmark };
    let mtu = underlay_mtu(namespaces.underlay.as_mut(), config, sources)?;
    let underlay_mtu = mtu.or(in_use.underlay_mtu).unwrap_or(DEFAULT_MTU);
    Ok(Machine { underlay, local, underlay_mtu, vrf })
}

/// Lists the addresses of the inner side, and our underlay addresses, which may be elsewhere. Those
/// of a VRF other than `vrf` are not the inner side's: the kernel refuses them as a source of its
/// routes.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn local_addresses(
    inner: &mut dyn Network,
    underlay: UnderlayAddresses,
    vrf: Option<&Vrf>,
) -> Result<Vec<IpAddr>, ControlError> {
    let addresses = inner.addresses(None)?;
    let links = inner.links()?;
    let is_inside = |index| vrf_of(&links, index).is_none_or(|of| vrf.is_some_and(|vrf| vrf.index == of));
    let found = addresses.into_iter().filter(|address| is_inside(address.index));
    // A tentative address may be another host's. A link-local one names no host of a network.
    let mut found: Vec<Address> =
        found.filter(|address| !address.is_tentative && !is_link_local(address)).collect();
    // What comes first is preferred as a source (RFC 6724 section 5, rules 3 and 7).
    found.sort_by_key(|address| {
        address.prefix.addr().is_ipv6() && (address.is_deprecated || address.is_secondary)
    });
    let mut local: Vec<IpAddr> = found.iter().map(|address| address.prefix.addr()).collect();
    for address in underlay.iter() {
        if !local.contains(&address) {
            local.push(address);
        }
    }
    Ok(local)
}

fn is_link_local(address: &Address) -> bool {
    matches!(address.prefix.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Returns the index of the VRF that the interface `index` is, or is a port of.
fn vrf_of(links: &[Link], index: u32) -> Option<u32> {
    let by_index = |index| links.iter().find(|link| link.index == index);
    let link = by_index(index)?;
    let of_master = || by_index(link.master?);
    let is_vrf = |link: &&Link| link.vrf_table.is_some();
    Some(link).filter(is_vrf).or_else(|| of_master().filter(is_vrf)).map(|vrf| vrf.index)
}

/// As [`smallest_mtu`], towards all peers of a configuration.
///
/// # Errors
/// As [`smallest_mtu`].
pub(crate) fn underlay_mtu(
    network: &mut dyn Network,
    config: &Config,
    sources: UnderlaySources,
) -> Result<Option<u16>, ControlError> {
    let paths = config.peers.iter().filter_map(|peer| sources.addresses.path_to(&peer.underlay));
    smallest_mtu(network, paths, sources)
}

/// Returns the largest datagram, in bytes, that the interfaces of all of these paths carry. `None`:
/// no path has a route.
///
/// # Errors
/// Fails if the kernel cannot be asked. A path without a route is no error.
pub(crate) fn smallest_mtu(
    network: &mut dyn Network,
    paths: impl Iterator<Item = Path> + Clone,
    sources: UnderlaySources,
) -> Result<Option<u16>, ControlError> {
    let links = network.links()?;
    let mut smallest = None;
    for (source, peers) in sources.group(paths.map(|path| ((), path))) {
        let peers: Vec<IpAddr> = peers.into_iter().map(|((), peer)| peer).collect();
        for route in network.routes_to(&peers, Some(source))?.into_iter().flatten() {
            let link = links.iter().find(|link| link.index == route.device).map(|link| link.mtu);
            smallest = smallest.into_iter().chain(link).min();
        }
    }
    Ok(smallest.map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX)))
}
