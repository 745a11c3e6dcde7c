//! A TUN device with the eBPF or the userspace data plane behind it.

use adit_config::Config;
use adit_dataplane::kernel::limits::Limit;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, Network, ROUTE_PROTOCOL};

use super::{Carrier, Damage, Prepared, Repair, Running};
use crate::error::ControlError;
use crate::host::{PlaneRequest, StartedPlane, TunDevice};
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::foreign::ForeignNetworks;
use crate::reconcile::objects::{self, Actual};
use crate::reconcile::peer_update::PeerUpdate;

/// The length of the TUN device's queue, in packets. The kernel's default of 500 is less than two
/// GSO packets of small datagrams.
const QUEUE_LENGTH: u32 = 4096;

/// Carries packets through a TUN device.
pub(crate) struct TunCarrier {
    /// Whether programs in the kernel outlive this process.
    outlives_process: bool,
    /// Whether programs are pinned now.
    is_pinned: bool,
}

impl TunCarrier {
    pub(super) fn new(outlives_process: bool) -> Self {
        Self { outlives_process, is_pinned: false }
    }

    /// Starts the data plane on a device that is set up.
    fn start(
        &self,
        config: &Config,
        prepared: &Prepared,
        tun: Box<dyn TunDevice>,
        device: &Link,
    ) -> Result<StartedPlane, ControlError> {
        tun.start(&PlaneRequest {
            choice: config.site.dataplane,
            tunnel: &prepared.tunnel,
            device: device.index,
            underlay: prepared.desired.underlay,
            pins: self.outlives_process.then(|| config.site.name.as_str()),
        })
    }

    /// Brings everything up on an open device.
    fn bring_up_on(
        &mut self,
        tun: Box<dyn TunDevice>,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError> {
        let link = set_up_device(namespaces, &prepared.desired)?;
        tun.keep()?;
        // Before the data plane starts: its watcher would look up every peer's next hop again and
        // again while routes are installed.
        let desired = &prepared.desired;
        objects::set_routes(namespaces.inner.as_mut(), desired, &[link.index], &ForeignNetworks::default())?;
        let started = self.start(config, prepared, tun, &link)?;
        self.is_pinned = started.is_pinned;
        Ok(Running::new(vec![link.index], started.plane, started.reason))
    }
}

impl Carrier for TunCarrier {
    fn check_scope(&self, _: &NetScope) -> Result<(), ControlError> {
        Ok(())
    }

    fn adapt(&self, _: &mut Desired, _: &str, _: &mut dyn Network) -> Result<(), ControlError> {
        Ok(())
    }

    fn observe(
        &self,
        namespaces: &mut Namespaces,
        _: &str,
        desired: &Desired,
        known: &[u32],
    ) -> Result<Actual, ControlError> {
        let Some(link) = namespaces.inner.link(&desired.device)? else {
            return Ok(Actual { devices: vec![None], ..Actual::default() });
        };
        if !known.is_empty() && known != [link.index] {
            // Another interface has the name of ours, and our routes disappeared together with
            // ours.
            return Ok(Actual { devices: vec![None], ..Actual::default() });
        }
        let routes = namespaces.inner.routes_by(ROUTE_PROTOCOL, link.index, objects::table(desired))?;
        Ok(Actual { devices: vec![Some(link)], routes, ..Actual::default() })
    }

    fn bring_up(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError> {
        let name = &prepared.desired.device;
        let is_taken_over = namespaces.inner.link(name)?.is_some();
        let tun = namespaces.host.open_tun(&namespaces.scope, name)?;
        let result = self.bring_up_on(tun, namespaces, config, prepared);
        // A device that an earlier daemon kept stays: without it, packets for a peer would leave
        // unencapsulated.
        if result.is_err() && !is_taken_over {
            // If it was not kept, it has disappeared already.
            objects::remove_made(namespaces.inner.as_mut(), name, |_| true);
        }
        result
    }

    fn install(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
        running: &mut Running,
    ) -> Result<(), ControlError> {
        let desired = &prepared.desired;
        let tun = namespaces.host.open_tun(&namespaces.scope, &desired.device)?;
        let link = set_up_device(namespaces, desired)?;
        tun.keep()?;
        // Programs in the kernel keep forwarding until the new ones replace them in one step.
        running.plane.shutdown();
        let counts = running.ending_counts(&prepared.tunnel);
        let started = self.start(config, prepared, tun, &link)?;
        running.replace_plane(started.plane, counts);
        (running.plane_reason, self.is_pinned) = (started.reason, started.is_pinned);
        // Only now does the data plane know new peers.
        objects::set_routes(namespaces.inner.as_mut(), desired, &[link.index], &ForeignNetworks::default())?;
        running.devices = vec![link.index];
        Ok(())
    }

    fn follow_renames(&mut self, _: &mut Desired, _: &str, _: &mut dyn Network) -> Result<(), ControlError> {
        Ok(())
    }

    fn check_plane(&self, running: &Running, is_whole: bool) -> Option<Change> {
        // Without its device the data plane fails too, and is started again together with it.
        let damage = is_whole.then(|| running.plane.check().err()).flatten()?;
        Some(Change::new(Kind::Change, Object::DataPlane, damage))
    }

    fn repair(
        &mut self,
        namespaces: &mut Namespaces,
        damage: &Damage<'_>,
        _: &mut Running,
    ) -> Result<Repair, ControlError> {
        if !damage.is_whole {
            return Ok(Repair::NeedsInstall);
        }
        let link = set_up_device(namespaces, damage.desired)?;
        objects::set_routes(namespaces.inner.as_mut(), damage.desired, &[link.index], damage.foreign)?;
        Ok(Repair::Done)
    }

    fn update_peers(&mut self, update: PeerUpdate<'_>) -> Result<Option<Vec<Change>>, ControlError> {
        update.run()
    }

    fn remove(&mut self, namespaces: &Namespaces, site: &str) -> Result<(), ControlError> {
        if self.is_pinned {
            namespaces.host.remove_pins(site)?;
        }
        Ok(())
    }

    fn learns_paths(&self) -> bool {
        true
    }

    fn limits(&self) -> &'static [Limit] {
        &[]
    }
}

/// Configures the TUN device and sets it up.
fn set_up_device(namespaces: &mut Namespaces, desired: &Desired) -> Result<Link, ControlError> {
    let name = &desired.device;
    let link = namespaces.inner.link(name)?.ok_or_else(|| ControlError::vanished(name))?;
    let vrf = desired.vrf.as_ref().map(|vrf| vrf.index);
    if link.master != vrf {
        // This removes all routes of the interface, so they are installed later.
        namespaces.inner.set_master(link.index, vrf)?;
    }
    if let Some(device) = desired.devices.first() {
        objects::configure_device(namespaces, &link, device, desired)?;
    }
    namespaces.inner.set_txqueuelen(link.index, QUEUE_LENGTH)?;
    namespaces.inner.set_up(link.index)?;
    Ok(link)
}
