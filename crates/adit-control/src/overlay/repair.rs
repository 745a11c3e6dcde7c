//! The repair of an overlay: a look at everything, and what follows from it.

use std::sync::Arc;

use adit_config::UnderlayAddresses;
use adit_dataplane::clock::Clock;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::Route;
use adit_tunnel::{HostFacts, ProbeOptions, TableDelta};

use super::plan::{Look, differences, forwarding_path};
use super::{Overlay, Repairs, Warning, WarningName};
use crate::carrier::{Damage, Repair};
use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::{Desired, Machine, host_facts, mtu_of};
use crate::reconcile::devices::uses_kernel_plane;
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::{foreign_devices, machine, other_overlays};
use crate::underlay;

impl Overlay {
    /// Compares everything with the desired state, and restores what differs. Returns what
    /// differed.
    ///
    /// # Errors
    /// Fails if the kernel cannot be asked or refuses a change. Another attempt may succeed.
    pub fn repair(&mut self) -> Result<Vec<Change>, ControlError> {
        let repaired = if self.is_in_namespace() { self.repair_objects() } else { self.follow_namespace() };
        let repaired = repaired.and_then(|changes| self.look_at_forwarding().map(|()| changes));
        self.warnings.repair = repaired.as_ref().err().map(|error| Warning {
            name: WarningName::RepairFails,
            about: self.config.site.name.to_string(),
            what: format!("something of the overlay was changed and cannot be repaired at present: {error}"),
        });
        // Only what was made counts.
        self.count_repairs(repaired.as_deref().unwrap_or_default());
        repaired
    }

    fn repair_objects(&mut self) -> Result<Vec<Change>, ControlError> {
        let site = self.config.site.name.to_string();
        let inner = self.namespaces.inner.as_mut();
        self.carrier.follow_renames(&mut self.desired, &site, inner)?;
        let machine = self.look_at_machine()?;
        self.is_filter_due |= self.desired.follow(&self.config, &machine);
        let inner = self.namespaces.inner.as_mut();
        // Once for everything: with many peers nothing else of a look takes as long.
        let routes = inner.routes_of(self.desired.table())?;
        let foreign = ForeignRoutes::look_up_in(inner, &site, &self.desired, &routes)?;
        self.warnings.foreign_routes = foreign.warnings();
        let (changes, is_whole) = self.find_damage(&site, &foreign, &routes)?;
        // The VRF's index and its table are others now, so nothing that was made fits.
        let is_vrf_new = self.namespaces.vrf()? != self.desired.vrf;
        // The data plane knows the MTU of the interface that it was started for.
        let started_for = self.running.plane.tunnel().config().underlay_mtu;
        let is_mtu_new = mtu_of(&self.config, self.desired.underlay, started_for) != self.desired.mtu;
        if changes.is_empty() && !is_mtu_new {
            self.is_filter_due = false;
            self.follow_host(&machine)?;
            return Ok(changes);
        }
        let needs_start = |change: &Change| matches!(change.object, Object::DataPlane | Object::Underlay);
        let repair = if is_vrf_new || is_mtu_new || changes.iter().any(needs_start) {
            Repair::NeedsInstall
        } else {
            let desired = &self.desired;
            let damage = Damage { site: &site, desired, foreign: &foreign, routes: &routes, is_whole };
            self.carrier.repair(&mut self.namespaces, &damage, &mut self.running)?
        };
        if repair == Repair::NeedsInstall {
            self.install(&self.config.clone())?;
        } else {
            self.follow_host(&machine)?;
        }
        self.is_filter_due = false;
        Ok(changes)
    }

    /// Looks up what the desired state depends on. Where no peer has a route at present, the MTU of
    /// the underlay stays.
    fn look_at_machine(&mut self) -> Result<Machine, ControlError> {
        let Desired { underlay, vrf, .. } = &self.desired;
        let Namespaces { inner, underlay: outside, .. } = &mut self.namespaces;
        let local = machine::local_addresses(inner.as_mut(), *underlay, vrf.as_ref())?;
        let mtu = machine::underlay_mtu(outside.as_mut(), &self.config, self.desired.sources())?;
        let underlay_mtu = mtu.unwrap_or_else(|| self.running.plane.tunnel().config().underlay_mtu);
        Ok(Machine { underlay: *underlay, local, underlay_mtu, vrf: vrf.clone() })
    }

    /// Passes on to the data plane what it knows of the machine, if that is different now: its
    /// addresses, the source of probes, and the networks of other overlays. Nothing is interrupted.
    fn follow_host(&mut self, machine: &Machine) -> Result<(), ControlError> {
        if uses_kernel_plane(&self.config) {
            // The packet filter follows the addresses, and the kernel knows the rest.
            return Ok(());
        }
        let tunnel = self.running.plane.tunnel();
        let facts = HostFacts {
            other_networks: other_overlays::networks(&mut self.namespaces, self.config.site.name.as_str())?,
            ..host_facts(&self.config, machine, &tunnel)
        };
        let sources = |probe: &Option<ProbeOptions>| probe.as_ref().map(|probe| probe.sources.clone());
        let config = tunnel.config();
        let is_same = config.local_addresses == facts.local_addresses
            && sources(&config.probe) == sources(&facts.probe)
            && tunnel.other_networks() == facts.other_networks;
        if is_same {
            return Ok(());
        }
        let followed = Arc::new(tunnel.on_host(facts));
        if let Err(why) = self.running.plane.update_peers(followed, &TableDelta::default()) {
            tracing::info!(why, "the data plane is started again, because this machine has changed");
            self.install(&self.config.clone())?;
        }
        Ok(())
    }

    /// Finds what differs from the desired state, except where `foreign` routes have the place of
    /// ours. Also returns whether all interfaces are ours.
    fn find_damage(
        &mut self,
        site: &str,
        foreign: &ForeignRoutes,
        routes: &[Route],
    ) -> Result<(Vec<Change>, bool), ControlError> {
        let devices = &self.running.devices;
        let (carrier, namespaces) = (self.carrier.as_ref(), &mut self.namespaces);
        let look = Look { config: &self.config, desired: &self.desired, foreign, known: devices, routes };
        let (mut changes, actual) = differences(carrier, namespaces, &look)?;
        let is_whole = actual.indices() == *devices;
        if !is_whole {
            foreign_devices::refuse(self.namespaces.inner.as_mut(), site, &self.desired)?;
        }
        changes.extend(self.find_underlay_move()?);
        // Only the data plane knows the rules of the table it has set.
        changes.retain(|change| change.object != Object::Table || self.is_filter_due);
        changes.extend(self.carrier.check_plane(&self.running, is_whole));
        Ok((changes, is_whole))
    }

    /// Makes everything again in the namespace that has the name of `site.netns` now: nobody can
    /// find the old one any more.
    fn follow_namespace(&mut self) -> Result<Vec<Change>, ControlError> {
        self.install(&self.config.clone())?;
        let netns = self.desired.netns.as_deref().unwrap_or_default();
        let what = format!("{} in another network namespace {netns}", self.desired.device);
        Ok(vec![Change::new(Kind::Change, Object::Device, what)])
    }

    fn count_repairs(&mut self, changes: &[Change]) {
        for change in changes {
            tracing::warn!(%change, "repaired");
            let count = self.repairs.get(&change.object).map_or(0, |repairs| repairs.count) + 1;
            let repairs = Repairs { count, what: change.what.clone(), at: Clock.now() };
            self.repairs.insert(change.object, repairs);
        }
    }

    /// Returns a change if our underlay addresses are others now. If one is missing, nothing
    /// changes: it may come back.
    fn find_underlay_move(&mut self) -> Result<Option<Change>, ControlError> {
        let before = self.desired.underlay;
        let network = self.namespaces.underlay.as_mut();
        let found = underlay::find(network, &self.config, Some(before));
        let is_missing = found.as_ref().is_err_and(|error| error.retry_reason().is_some());
        self.missing_underlay = match is_missing {
            true => underlay::missing(network, &self.config, before)?,
            false => Vec::new(),
        };
        let addresses = if is_missing { before } else { found? };
        Ok((addresses != before).then(|| self.underlay_move(before, addresses)))
    }

    fn underlay_move(&self, before: UnderlayAddresses, after: UnderlayAddresses) -> Change {
        let at = &self.config.site.underlay;
        let what = format!("{at} {before} -> {after}: every peer's file has to name {after}");
        Change::new(Kind::Change, Object::Underlay, what)
    }

    /// Finds the interfaces that must forward, and reads their settings.
    pub(super) fn look_at_forwarding(&mut self) -> Result<(), ControlError> {
        self.warnings.forwarding_path = forwarding_path(&mut self.namespaces, &self.config, &self.desired)?;
        self.check_forwarding();
        Ok(())
    }

    /// Returns true if IPv6 was turned on or off on an interface of ours, about which there are no
    /// events. It costs a read of a few small files for each interface.
    pub(crate) fn has_other_ipv6(&self) -> bool {
        let Namespaces { host, scope, .. } = &self.namespaces;
        let differs = |scope: &NetScope, name: &str, wanted| {
            host.ipv6(scope, name).is_ok_and(|found| found.differs_from(wanted))
        };
        let hidden = self.desired.hidden.as_ref();
        hidden.is_some_and(|hidden| differs(&NetScope::default(), &hidden.name, false))
            || self.desired.devices.iter().any(|device| differs(scope, &device.name, device.ipv6))
    }

    /// Reads the settings for forwarding, about which there are no events. It costs a read of a
    /// small file for each interface of the tunnel and of the networks behind this gateway.
    pub(crate) fn check_forwarding(&mut self) {
        let Namespaces { host, scope, .. } = &self.namespaces;
        let is_on = |name: &str| host.forwards(scope, name).ok();
        let ipv6_is_on = || host.forwards_ipv6(scope).ok();
        self.warnings.forwarding = self.warnings.forwarding_path.warnings(is_on, ipv6_is_on);
    }
}
