//! Linux's own tunnel drivers, with a packet filter of nf_tables. All of it stays in the kernel, so
//! a start, a change and a repair are the same steps.

use std::sync::Arc;

use adit_config::Config;
use adit_dataplane::kernel::limits::{LIMITS, Limit};
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, Network, Route};
use adit_tunnel::Tunnel;

use super::{Carrier, Damage, Prepared, Repair, Running};
use crate::error::ControlError;
use crate::host::PacketFilter;
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::{DesiredDevice, find_tunnels, has_alias_of, is_half_made};
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::objects::{self, Actual};
use crate::reconcile::peer_update::PeerUpdate;

const REASON: &str = "as configured: Linux's own tunnel drivers";

/// Carries packets through interfaces of the drivers ipip, sit and ip6tnl.
#[derive(Default)]
pub(crate) struct IpTunnelCarrier {
    /// Open from the first start on.
    filter: Option<Box<dyn PacketFilter>>,
}

impl IpTunnelCarrier {
    fn filter(&mut self, namespaces: &Namespaces) -> Result<&dyn PacketFilter, ControlError> {
        let filter = match self.filter.take() {
            Some(filter) => filter,
            None => namespaces.host.open_filter()?,
        };
        Ok(&**self.filter.insert(filter))
    }
}

impl Carrier for IpTunnelCarrier {
    fn check_scope(&self, scope: &NetScope) -> Result<(), ControlError> {
        if !scope.is_separate() {
            return Ok(());
        }
        let why = "which is not made in another network namespace or in a VRF (site.netns, site.vrf)";
        Err(ControlError::PlaneCannot { plane: "kernel", why })
    }

    fn adapt(&self, desired: &mut Desired, site: &str, inner: &mut dyn Network) -> Result<(), ControlError> {
        if desired.shares_ipv6() {
            let why =
                "which shares one interface among more than 64 peers, and that carries IPv4 in IPv4 only";
            return Err(ControlError::PlaneCannot { plane: "kernel", why });
        }
        desired.adapt_to(site, &inner.links()?);
        Ok(())
    }

    fn observe(
        &self,
        namespaces: &mut Namespaces,
        site: &str,
        desired: &Desired,
        known: &[u32],
        routes: &[Route],
    ) -> Result<Actual, ControlError> {
        let mut actual = observe_interfaces(namespaces.inner.as_mut(), site, desired, known)?;
        let devices = actual.devices.iter().flatten().chain(&actual.unwanted);
        let devices: Vec<u32> = devices.map(|link| link.index).collect();
        for link in actual.devices.iter().flatten() {
            actual.ipv6.push(namespaces.host.ipv6(&namespaces.scope, &link.name)?);
        }
        actual.routes = objects::our_routes(routes, &devices).cloned().collect();
        if let Some(filter) = &desired.filter {
            actual.filter = namespaces.host.filter_matches(filter)?;
        }
        Ok(actual)
    }

    fn bring_up(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError> {
        let site = config.site.name.as_str();
        let before = Before::look_up(namespaces, site)?;
        let filter = self.filter(namespaces)?;
        let target = Target { site, desired: &prepared.desired, known: &[], foreign: &prepared.foreign };
        let started = target.make(namespaces, filter).and_then(|devices| {
            let plane = filter.start(prepared.tunnel.clone(), prepared.desired.mark, devices.clone())?;
            Ok(Running::new(devices, plane, REASON.to_owned()))
        });
        if started.is_err() {
            before.restore(namespaces, site);
        }
        started
    }

    fn install(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
        running: &mut Running,
    ) -> Result<(), ControlError> {
        let filter = self.filter(namespaces)?;
        let site = config.site.name.as_str();
        let target =
            Target { site, desired: &prepared.desired, known: &running.devices, foreign: &prepared.foreign };
        let devices = target.make(namespaces, filter)?;
        start_again(filter, prepared.tunnel.clone(), prepared.desired.mark, devices, running)
    }

    fn follow_renames(
        &mut self,
        desired: &mut Desired,
        site: &str,
        inner: &mut dyn Network,
    ) -> Result<(), ControlError> {
        let before = desired.filter.clone();
        self.adapt(desired, site, inner)?;
        match (&self.filter, &desired.filter) {
            (Some(table), Some(filter)) if desired.filter != before => Ok(table.set(filter)?),
            _ => Ok(()),
        }
    }

    fn check_plane(&self, running: &Running, _: bool) -> Option<Change> {
        let damage = running.plane.check().err()?;
        Some(Change::new(Kind::Change, Object::Table, damage))
    }

    fn repair(
        &mut self,
        namespaces: &mut Namespaces,
        damage: &Damage<'_>,
        running: &mut Running,
    ) -> Result<Repair, ControlError> {
        let &Damage { site, desired, foreign, .. } = damage;
        let filter = self.filter(namespaces)?;
        let target = Target { site, desired, known: &running.devices, foreign };
        let devices = target.make(namespaces, filter)?;
        if devices != running.devices {
            start_again(filter, running.plane.tunnel(), desired.mark, devices, running)?;
        }
        Ok(Repair::Done)
    }

    fn update_peers(&mut self, _: PeerUpdate<'_>) -> Result<Option<Vec<Change>>, ControlError> {
        // Nothing is started again for an installation: it touches only what changes.
        Ok(None)
    }

    fn remove(&mut self, _: &Namespaces, _: &str) -> Result<(), ControlError> {
        // The filter is removed after the interfaces that it guards.
        Ok(())
    }

    fn learns_paths(&self) -> bool {
        // The kernel does.
        false
    }

    fn limits(&self) -> &'static [Limit] {
        &LIMITS
    }
}

/// Replaces the plane that counts and checks by one for these interfaces; counts go on.
fn start_again(
    filter: &dyn PacketFilter,
    tunnel: Arc<Tunnel>,
    mark: u32,
    devices: Vec<u32>,
    running: &mut Running,
) -> Result<(), ControlError> {
    let counts = running.ending_counts(&tunnel);
    running.replace_plane(filter.start(tunnel, mark, devices.clone())?, counts);
    running.devices = devices;
    Ok(())
}

/// Lists the interfaces of the drivers that are the site's.
fn observe_interfaces(
    inner: &mut dyn Network,
    site: &str,
    desired: &Desired,
    known: &[u32],
) -> Result<Actual, ControlError> {
    let links = inner.links()?;
    let found = find_tunnels(&desired.devices, site, &links, known);
    let devices: Vec<Option<Link>> = found.into_iter().map(Option::<&Link>::cloned).collect();
    let is_unwanted = |link: &&Link| {
        let is_desired = devices.iter().flatten().any(|device| device.index == link.index);
        link.tunnel.is_some() && has_alias_of(link, site) && !is_desired
    };
    let unwanted: Vec<Link> = links.iter().filter(is_unwanted).cloned().collect();
    Ok(Actual { devices, unwanted, ..Actual::default() })
}

/// The objects to be made.
struct Target<'a> {
    site: &'a str,
    desired: &'a Desired,
    /// The indices of the overlay's interfaces if it runs.
    known: &'a [u32],
    /// Networks whose routes are left as they are.
    foreign: &'a ForeignRoutes,
}

impl Target<'_> {
    /// Makes filter, interfaces and routes in an order that interrupts nothing that stays: first
    /// the filter, so that no interface ever accepts too much; then missing interfaces; then the
    /// routes, each of which changes in one step; and last the interfaces that are not desired are
    /// deleted. Returns the indices of the interfaces.
    fn make(&self, namespaces: &mut Namespaces, table: &dyn PacketFilter) -> Result<Vec<u32>, ControlError> {
        let desired = self.desired;
        if let Some(filter) = &desired.filter {
            table.set(filter)?;
        }
        let actual = observe_interfaces(namespaces.inner.as_mut(), self.site, desired, self.known)?;
        let mut indices = Vec::with_capacity(desired.devices.len());
        for (device, found) in desired.devices.iter().zip(&actual.devices) {
            indices.push(make_device(namespaces, desired, device, found.as_ref())?);
        }
        let unwanted = actual.unwanted.iter().map(|link| link.index);
        let all: Vec<u32> = indices.iter().copied().chain(unwanted.clone()).collect();
        objects::set_routes(namespaces.inner.as_mut(), desired, &all, self.foreign)?;
        for index in unwanted {
            namespaces.inner.delete_link(index)?;
        }
        Ok(indices)
    }
}

/// Makes one interface as desired: changes the one that was `found`, or creates it. Returns its
/// index.
fn make_device(
    namespaces: &mut Namespaces,
    desired: &Desired,
    device: &DesiredDevice,
    found: Option<&Link>,
) -> Result<u32, ControlError> {
    let Some(tunnel) = &device.tunnel else { return Err(ControlError::vanished(&device.name)) };
    let link = match found {
        Some(link) => link.clone(),
        None => find_or_create(namespaces, desired, device)?,
    };
    if link.tunnel != Some(*tunnel) {
        namespaces.inner.change_tunnel(link.index, tunnel)?;
    }
    let has_other_ipv6 = namespaces.host.ipv6(&namespaces.scope, &link.name)?.differs_from(device.ipv6);
    let has_other_settings =
        link.alias.as_deref() != Some(&device.alias) || link.mtu != u32::from(desired.mtu);
    if has_other_settings || has_other_ipv6 || !link.up {
        objects::configure_device(namespaces, &link, device, desired)?;
    }
    if !link.up {
        namespaces.inner.set_up(link.index)?;
    }
    Ok(link.index)
}

/// Takes over the interface that a start had just created when it died, or creates one.
fn find_or_create(
    namespaces: &mut Namespaces,
    desired: &Desired,
    device: &DesiredDevice,
) -> Result<Link, ControlError> {
    let existing = namespaces.inner.link(&device.name)?;
    if let Some(half_made) = existing.filter(|link| is_half_made(link, device)) {
        return Ok(half_made);
    }
    create(namespaces, desired, device)?;
    let inner = namespaces.inner.as_mut();
    let marked = mark(inner, device);
    if marked.is_err() {
        // Without our alias nothing else would know that it is ours.
        objects::remove_made(inner, &device.name, |link| is_half_made(link, device));
    }
    marked
}

/// Marks an interface that was just created as ours.
fn mark(inner: &mut dyn Network, device: &DesiredDevice) -> Result<Link, ControlError> {
    let link = inner.link(&device.name)?.ok_or_else(|| ControlError::vanished(&device.name))?;
    inner.set_alias(link.index, &device.alias)?;
    Ok(link)
}

/// Creates an interface. The kernel loads the driver itself if `/proc/sys/kernel/modprobe` says
/// how; if that does not help, this loads it once by hand.
fn create(
    namespaces: &mut Namespaces,
    desired: &Desired,
    device: &DesiredDevice,
) -> Result<(), ControlError> {
    let Some(tunnel) = &device.tunnel else { return Ok(()) };
    let mut attempt = || namespaces.inner.add_tunnel(&device.name, u32::from(desired.mtu), tunnel);
    let is_missing = |error: &adit_linux::error::Error| error.errno() == Some(adit_linux::EOPNOTSUPP);
    match attempt() {
        Err(error) if is_missing(&error) => {
            let modprobe = namespaces.host.load_driver(tunnel.driver);
            let driver = tunnel.driver.kind();
            attempt().map_err(|error| match is_missing(&error) {
                true => ControlError::NoDriver { driver, error, modprobe },
                false => error.into(),
            })
        }
        result => Ok(result?),
    }
}

/// The objects of a site before a start.
struct Before {
    devices: Vec<u32>,
    has_filter: bool,
}

impl Before {
    fn look_up(namespaces: &mut Namespaces, site: &str) -> Result<Self, ControlError> {
        let links = objects::links_of_site(namespaces.inner.as_mut(), site)?;
        let devices = links.iter().map(|link| link.index).collect();
        Ok(Self { devices, has_filter: namespaces.host.has_filter(site) })
    }

    /// Removes what a failed start has made. What an earlier daemon kept stays.
    fn restore(&self, namespaces: &mut Namespaces, site: &str) {
        if let Err(error) = self.remove_others(namespaces, site) {
            tracing::error!(%error, site, "cannot remove what a failed start had made");
        }
    }

    fn remove_others(&self, namespaces: &mut Namespaces, site: &str) -> Result<(), ControlError> {
        for link in objects::links_of_site(namespaces.inner.as_mut(), site)? {
            if !self.devices.contains(&link.index) {
                namespaces.inner.delete_link(link.index)?;
            }
        }
        if !self.has_filter {
            namespaces.host.remove_filter(site)?;
        }
        Ok(())
    }
}
