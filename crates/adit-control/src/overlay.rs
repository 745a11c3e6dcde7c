//! The life of an overlay on one machine: it is brought up, changed, repaired and closed, each
//! atomically.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use adit_config::{Config, PeerDelta};
use adit_dataplane::DataPlane;
use adit_dataplane::clock::Clock;
use adit_dataplane::kernel::limits::Limit;
use adit_linux::net_scope::NetScope;
use adit_tunnel::Totals;

use crate::carrier::choice::carrier_of;
use crate::carrier::{Carrier, Damage, InUse, Prepared, Repair, Running};
use crate::error::ControlError;
use crate::host::{Host, LinuxHost};
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::{hidden_alias, uses_kernel_plane};
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::forwarding::ForwardingPath;
use crate::reconcile::objects::Actual;
use crate::reconcile::peer_update::PeerUpdate;
use crate::reconcile::{config_diff, foreign_devices, guard_routes, kernel_diff, machine, objects};
use crate::state::path_cache::PathCache;
use crate::state::warning::{Warning, WarningName};
use crate::underlay;

mod here;
mod leftovers;
#[cfg(test)]
mod tests;

pub use here::{Findings, look_here};
pub use leftovers::{has_leftovers, remove_leftovers};

/// What stays when a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// The interface and the routes stay: packets for a peer do not leave unencapsulated, and the
    /// next start takes them over.
    Keep,
    /// Nothing stays.
    Remove,
}

/// An overlay that is up, in the network namespace of the thread that brought it up.
pub struct Overlay {
    config: Config,
    desired: Desired,
    namespaces: Namespaces,
    carrier: Box<dyn Carrier>,
    running: Running,
    path_cache: Option<PathCache>,
    repairs: BTreeMap<Object, u64>,
    /// Our underlay address was missing at the last look.
    is_underlay_missing: bool,
    /// The packet filter is to be set again, because the addresses of this machine are others.
    is_filter_due: bool,
    warnings: Warnings,
}

/// What about the machine keeps traffic from passing.
#[derive(Default)]
struct Warnings {
    /// Routes of others that won at the last look.
    foreign_routes: Vec<Warning>,
    /// The interfaces that must forward, at the last look.
    forwarding_path: ForwardingPath,
    /// Those that do not.
    forwarding: Vec<Warning>,
    /// The last repair failed.
    repair: Option<Warning>,
}

/// How an overlay is brought up.
struct Options {
    host: Arc<dyn Host>,
    /// Whether what is loaded into the kernel stays there when this process ends.
    outlives_process: bool,
    path_cache: Option<PathCache>,
}

impl Overlay {
    /// Makes interface and routes and starts the data plane. When it returns, a packet sent now
    /// goes through. It takes over an interface that an earlier daemon left. What is loaded into
    /// the kernel disappears with this process.
    ///
    /// # Errors
    /// Fails if any step fails; what was made until then is removed.
    pub fn bring_up(config: &Config) -> Result<Self, ControlError> {
        let host = Arc::new(LinuxHost);
        Self::bring_up_with(config, Options { host, outlives_process: false, path_cache: None })
    }

    /// As [`Overlay::bring_up`], but what is loaded into the kernel stays there when this process
    /// ends in whatever way, and replaces what an earlier process left there without a gap. The
    /// state of paths is kept in the file `path_cache` and restored from it. Only the daemon that
    /// holds the overlay's lock may call this.
    ///
    /// # Errors
    /// As [`Overlay::bring_up`].
    pub fn bring_up_to_stay(config: &Config, path_cache: &Path) -> Result<Self, ControlError> {
        let host = Arc::new(LinuxHost);
        let path_cache = Some(PathCache::open(path_cache));
        Self::bring_up_with(config, Options { host, outlives_process: true, path_cache })
    }

    fn bring_up_with(config: &Config, options: Options) -> Result<Self, ControlError> {
        let Options { host, outlives_process, path_cache } = options;
        let mut carrier = carrier_of(config, outlives_process);
        let path_cache = path_cache.filter(|_| carrier.learns_paths());
        let mut namespaces = Namespaces::open(&host, &config.site)?;
        let prepared = Prepared::survey(carrier.as_ref(), &mut namespaces, config, &InUse::default())?;
        if let Some(path_cache) = &path_cache {
            path_cache.restore(&prepared.tunnel, Clock.now());
        }
        let (metric, inner) = (prepared.desired.guard_metric, namespaces.inner.as_mut());
        let guards_before = guard_routes::Before::look_up(inner, metric)?;
        let running = match carrier.bring_up(&mut namespaces, config, &prepared) {
            Ok(running) => running,
            Err(error) => {
                guards_before.restore(namespaces.inner.as_mut(), metric);
                return Err(error);
            }
        };
        guards_before.remove_from_other_tables(namespaces.inner.as_mut(), &prepared.desired);
        let warnings = Warnings { foreign_routes: prepared.foreign.warnings(), ..Warnings::default() };
        let mut overlay = Self {
            config: config.clone(),
            desired: prepared.desired,
            namespaces,
            carrier,
            running,
            path_cache,
            repairs: BTreeMap::new(),
            is_underlay_missing: false,
            is_filter_due: false,
            warnings,
        };
        // A failure is met again by the next repair.
        let _ = overlay.look_at_forwarding();
        Ok(overlay)
    }

    /// Changes a running overlay to `config`, atomically. What stays the same keeps forwarding.
    /// Returns what has changed.
    ///
    /// # Errors
    /// Fails if any step fails; the previous state is restored.
    pub fn reload(&mut self, config: &Config) -> Result<Vec<Change>, ControlError> {
        let delta = self.config.peers.delta_to(&config.peers);
        // A file has no revision. Peers that stay the same keep theirs.
        let revision = if delta.is_empty() { delta.base } else { delta.revision };
        let peers = config.peers.clone().with_revision(revision);
        self.change_to(&Config { site: config.site.clone(), peers }, &delta)
    }

    /// Changes the peers of a running overlay, atomically. Peers that stay keep forwarding. Returns
    /// what has changed. The cost depends on the size of the change as long as there is room for it
    /// in the data plane.
    ///
    /// # Errors
    /// Fails if the delta is not for the revision that runs or conflicts with other peers, or if
    /// any step fails; the previous state is restored.
    pub fn update_peers(&mut self, delta: &PeerDelta) -> Result<Vec<Change>, ControlError> {
        let peers = self.config.peers.apply(delta)?;
        self.change_to(&Config { site: self.config.site.clone(), peers }, delta)
    }

    /// Changes a running overlay to `config`, whose peers are those that run with `delta` applied.
    fn change_to(&mut self, config: &Config, delta: &PeerDelta) -> Result<Vec<Change>, ControlError> {
        if let Some(changes) = self.update_in_place(config, delta)? {
            return Ok(changes);
        }
        let changes = self.plan(config)?;
        if changes.is_empty() {
            return Ok(changes);
        }
        let metrics = config.site.metrics;
        if changes.len() == 1 && metrics != self.config.site.metrics {
            // Where metrics are served does not concern the data plane.
            self.config.site.metrics = metrics;
            return Ok(changes);
        }
        let before = self.config.clone();
        if let Err(error) = self.install(config) {
            if let Err(error) = self.install(&before) {
                tracing::error!(%error, "the previous configuration cannot be restored");
            }
            return Err(error);
        }
        Ok(changes)
    }

    /// Changes peers while everything else keeps running. `None`: this needs an installation.
    fn update_in_place(
        &mut self,
        config: &Config,
        delta: &PeerDelta,
    ) -> Result<Option<Vec<Change>>, ControlError> {
        if delta.is_empty() || self.config.site != config.site {
            return Ok(None);
        }
        if !self.is_in_namespace() || self.namespaces.vrf()? != self.desired.vrf {
            return Ok(None);
        }
        let changes = self.carrier.update_peers(PeerUpdate {
            namespaces: &mut self.namespaces,
            plane: self.running.plane.as_mut(),
            devices: &self.running.devices,
            desired: &mut self.desired,
            running: &self.config,
            config,
            delta,
        })?;
        if changes.is_some() {
            self.config = config.clone();
        }
        Ok(changes)
    }

    /// Replaces everything that runs by what `config` asks for.
    fn install(&mut self, config: &Config) -> Result<(), ControlError> {
        // Another namespace may have the name now.
        let mut namespaces = Namespaces::open(&self.namespaces.host, &config.site)?;
        let in_use = self.in_use();
        let prepared = Prepared::survey(self.carrier.as_ref(), &mut namespaces, config, &in_use)?;
        prepared.tunnel.inherit(&self.running.plane.tunnel());
        self.carrier.install(&mut namespaces, config, &prepared, &mut self.running)?;
        let table = objects::table(&prepared.desired);
        if table != objects::table(&self.desired) {
            let (inner, metric) = (namespaces.inner.as_mut(), prepared.desired.guard_metric);
            guard_routes::remove_from_other_tables(inner, metric, table)?;
        }
        self.namespaces = namespaces;
        (self.config, self.desired) = (config.clone(), prepared.desired);
        self.warnings.foreign_routes = prepared.foreign.warnings();
        Ok(())
    }

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
        let local = machine::local_addresses(inner, self.desired.underlay, self.desired.vrf.as_ref())?;
        self.is_filter_due |= self.desired.follow_addresses(&self.config.site, local);
        let foreign = ForeignRoutes::look_up(inner, &site, &self.desired)?;
        self.warnings.foreign_routes = foreign.warnings();
        let (changes, is_whole) = self.find_damage(&site, &foreign)?;
        // The VRF's index and its table are others now, so nothing that was made fits.
        let is_vrf_new = self.namespaces.vrf()? != self.desired.vrf;
        if changes.is_empty() {
            self.is_filter_due = false;
            return Ok(changes);
        }
        let needs_start = |change: &Change| matches!(change.object, Object::DataPlane | Object::Underlay);
        let repair = if is_vrf_new || changes.iter().any(needs_start) {
            Repair::NeedsInstall
        } else {
            let damage = Damage { site: &site, desired: &self.desired, foreign: &foreign, is_whole };
            self.carrier.repair(&mut self.namespaces, &damage, &mut self.running)?
        };
        if repair == Repair::NeedsInstall {
            self.install(&self.config.clone())?;
        }
        self.is_filter_due = false;
        Ok(changes)
    }

    /// Finds what differs from the desired state, except where `foreign` routes have the place of
    /// ours. Also returns whether all interfaces are ours.
    fn find_damage(
        &mut self,
        site: &str,
        foreign: &ForeignRoutes,
    ) -> Result<(Vec<Change>, bool), ControlError> {
        let devices = &self.running.devices;
        let (carrier, namespaces) = (self.carrier.as_ref(), &mut self.namespaces);
        let (mut changes, actual) =
            differences(carrier, namespaces, &self.config, &self.desired, foreign, devices)?;
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
            *self.repairs.entry(change.object).or_default() += 1;
        }
    }

    /// Returns a change if our underlay address is another one now. If it is missing, nothing
    /// changes: it may come back.
    fn find_underlay_move(&mut self) -> Result<Option<Change>, ControlError> {
        let before = self.desired.underlay;
        let found = underlay::find(self.namespaces.underlay.as_mut(), &self.config, Some(before));
        self.is_underlay_missing = found.as_ref().is_err_and(|error| error.retry_reason().is_some());
        let address = match found {
            Err(_) if self.is_underlay_missing => before,
            found => found?,
        };
        Ok((address != before).then(|| self.underlay_move(before, address)))
    }

    fn underlay_move(&self, before: Ipv4Addr, after: Ipv4Addr) -> Change {
        let at = &self.config.site.underlay;
        let what = format!("{at} {before} -> {after}: every peer's file has to name {after}");
        Change::new(Kind::Change, Object::Underlay, what)
    }

    /// Returns what `config` would change. The same as [`plan`], on the host of this overlay.
    fn plan(&self, config: &Config) -> Result<Vec<Change>, ControlError> {
        let running = RunningOverlay { config: &self.config, underlay: self.desired.underlay };
        Ok(plan_on(&self.namespaces.host, Some(running), config)?.changes)
    }

    /// Writes what is known of the paths to the path cache, if that has changed. Call this now and
    /// then; it costs a few reads of memory for each peer.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn remember(&mut self) -> Result<(), ControlError> {
        match &mut self.path_cache {
            Some(path_cache) => path_cache.save(&self.running.plane.tunnel()),
            None => Ok(()),
        }
    }

    /// Stops forwarding, and removes the kernel objects or leaves them.
    ///
    /// # Errors
    /// Fails if something cannot be removed.
    pub fn close(mut self, on_exit: OnExit) -> Result<(), ControlError> {
        self.running.plane.shutdown();
        if on_exit == OnExit::Keep {
            return Ok(());
        }
        let site = self.config.site.name.as_str();
        self.carrier.remove(&self.namespaces, site)?;
        let Namespaces { host, inner, underlay, .. } = &mut self.namespaces;
        leftovers::remove_objects(host.as_ref(), inner.as_mut(), site)?;
        // If its other end was in a namespace that is gone.
        objects::remove_hidden_end(underlay.as_mut(), &hidden_alias(site)).map(drop)
    }

    /// Returns what a change keeps if the machine still has it.
    fn in_use(&self) -> InUse {
        InUse::of(&self.config, Some(self.desired.underlay))
    }

    /// Finds the interfaces that must forward, and reads their settings.
    fn look_at_forwarding(&mut self) -> Result<(), ControlError> {
        let inner = self.namespaces.inner.as_mut();
        let (links, addresses) = (inner.links()?, inner.addresses(None)?);
        self.warnings.forwarding_path =
            ForwardingPath::of(&self.config.site, &self.desired, &links, &addresses);
        self.check_forwarding();
        Ok(())
    }

    /// Reads the settings for forwarding, about which there are no events. It costs a read of a
    /// small file for each interface of the tunnel and of the networks behind this gateway.
    pub(crate) fn check_forwarding(&mut self) {
        let Namespaces { host, scope, .. } = &self.namespaces;
        let is_on = |name: &str| host.forwards(scope, name).ok();
        self.warnings.forwarding = self.warnings.forwarding_path.warnings(is_on);
    }

    /// Returns what about the machine keeps traffic from passing.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let Warnings { foreign_routes, forwarding, repair, .. } = &self.warnings;
        forwarding.iter().chain(foreign_routes).chain(repair).cloned().collect()
    }

    /// Returns true if our underlay address was missing at the last look.
    #[must_use]
    pub fn is_underlay_missing(&self) -> bool {
        self.is_underlay_missing
    }

    /// Returns where the inner side is.
    pub(crate) fn inner_scope(&self) -> &NetScope {
        &self.namespaces.scope
    }

    /// Returns true if that still is what the file names.
    pub(crate) fn is_in_namespace(&self) -> bool {
        self.namespaces.is_current(&self.config.site)
    }

    /// Returns all counts since the overlay was brought up, including those of data planes that
    /// were replaced.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.running.totals()
    }

    /// Returns how often an object of each kind had to be repaired.
    #[must_use]
    pub fn repairs(&self) -> &BTreeMap<Object, u64> {
        &self.repairs
    }

    /// Returns the configuration that runs.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the desired kernel objects.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Returns the indices of the interfaces, in the order of [`Desired::devices`].
    pub(crate) fn devices(&self) -> &[u32] {
        &self.running.devices
    }

    /// Returns the data plane.
    #[must_use]
    pub fn plane(&self) -> &dyn DataPlane {
        self.running.plane.as_ref()
    }

    /// Returns why this data plane runs and not another.
    #[must_use]
    pub fn plane_reason(&self) -> &str {
        &self.running.plane_reason
    }

    /// Returns what this data plane does not do, though others do.
    #[must_use]
    pub fn limits(&self) -> &'static [Limit] {
        self.carrier.limits()
    }
}

/// Returns what the data plane of `config` does not do, though others do.
#[must_use]
pub fn limits(config: &Config) -> &'static [Limit] {
    carrier_of(config, false).limits()
}

/// Refuses changes that cannot be made while the overlay runs.
fn refuse_other_device(running: &Config, config: &Config) -> Result<(), ControlError> {
    fn name<T: AsRef<str>>(name: Option<&T>) -> &str {
        name.map_or("off", AsRef::as_ref)
    }
    if uses_kernel_plane(running) != uses_kernel_plane(config) {
        return Err(ControlError::OtherPlane { site: running.site.name.to_string() });
    }
    for (key, old, new) in [
        ("site.name", running.site.name.as_str(), config.site.name.as_str()),
        ("site.device", running.site.device.as_str(), config.site.device.as_str()),
        ("site.netns", name(running.site.netns.as_ref()), name(config.site.netns.as_ref())),
        ("site.vrf", name(running.site.vrf.as_ref()), name(config.site.vrf.as_ref())),
    ] {
        if old != new {
            let site = running.site.name.to_string();
            return Err(ControlError::NotInPlace { site, key, old: old.to_owned(), new: new.to_owned() });
        }
    }
    Ok(())
}

/// An overlay that runs, as another process knows it.
#[derive(Clone, Copy, Debug)]
pub struct RunningOverlay<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// The underlay address in use.
    pub underlay: Ipv4Addr,
}

impl<'a> From<&'a (Config, Ipv4Addr)> for RunningOverlay<'a> {
    fn from((config, underlay): &'a (Config, Ipv4Addr)) -> Self {
        Self { config, underlay: *underlay }
    }
}

/// Returns what `config` would change on this machine, in the calling thread's network namespace.
/// `running` is the overlay of that name; `None`: nothing runs.
///
/// # Errors
/// Fails if `config` could not be brought up, or could not replace what runs.
pub fn plan(running: Option<RunningOverlay<'_>>, config: &Config) -> Result<Plan, ControlError> {
    let host: Arc<dyn Host> = Arc::new(LinuxHost);
    plan_on(&host, running, config)
}

/// What a configuration would change.
#[derive(Debug)]
pub struct Plan {
    /// The changes.
    pub changes: Vec<Change>,
    /// What would keep traffic from passing.
    pub warnings: Vec<Warning>,
}

fn plan_on(
    host: &Arc<dyn Host>,
    running: Option<RunningOverlay<'_>>,
    config: &Config,
) -> Result<Plan, ControlError> {
    let mut in_use = InUse::default();
    if let Some(RunningOverlay { config: running, underlay }) = running {
        refuse_other_device(running, config)?;
        in_use = InUse::of(running, Some(underlay));
    }
    let carrier = carrier_of(config, false);
    let mut namespaces = Namespaces::open(host, &config.site)?;
    let Prepared { desired, foreign, .. } =
        Prepared::survey(carrier.as_ref(), &mut namespaces, config, &in_use)?;
    let running = running.map(|running| running.config);
    let mut changes = config_diff::compare(running, config, desired.underlay);
    let (of_kernel, _) = differences(carrier.as_ref(), &mut namespaces, config, &desired, &foreign, &[])?;
    changes.extend(of_kernel);
    let mut warnings = here::warnings_on(host, config, &desired);
    warnings.extend(foreign.warnings());
    Ok(Plan { changes, warnings })
}

/// Compares the desired state with the kernel's, except where `foreign` routes have the place of
/// ours. Both a plan and a repair are made of this, so they never differ. `known` are the indices
/// of the overlay's interfaces if it runs here. Also returns the kernel's state.
fn differences(
    carrier: &dyn Carrier,
    namespaces: &mut Namespaces,
    config: &Config,
    desired: &Desired,
    foreign: &ForeignRoutes,
    known: &[u32],
) -> Result<(Vec<Change>, Actual), ControlError> {
    let mut actual = carrier.observe(namespaces, config.site.name.as_str(), desired, known)?;
    actual.guards = guard_routes::of(namespaces.inner.as_mut(), desired)?;
    let mut changes = kernel_diff::compare(config, desired, &actual);
    changes.retain(|change| !foreign.keep_out(change));
    Ok((changes, actual))
}
