//! The life of an overlay on one machine: it is brought up, changed, repaired and closed, each
//! atomically.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use adit_config::{Config, PeerDelta};
use adit_dataplane::DataPlane;
use adit_dataplane::clock::Clock;
use adit_dataplane::kernel::limits::Limit;
use adit_linux::net_scope::NetScope;
use adit_tunnel::{Instant, Totals};

use crate::carrier::choice::carrier_of;
use crate::carrier::{Carrier, Prepared, Running};
use crate::error::ControlError;
use crate::host::{Host, LinuxHost};
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::HiddenEnd;
use crate::reconcile::forwarding::ForwardingPath;
use crate::reconcile::machine::InUse;
use crate::reconcile::peer_update::PeerUpdate;
use crate::reconcile::{guard_routes, objects};
use crate::state::path_cache::PathCache;
use crate::state::peer_state::PeerStates;
use crate::state::warning::{Warning, WarningName};

mod here;
mod leftovers;
mod plan;
mod repair;
#[cfg(test)]
pub(crate) mod tests;

pub use here::{Findings, look_here};
pub(crate) use leftovers::{Left, what_is_left};
pub use leftovers::{has_leftovers, remove_leftovers, remove_programs};
pub use plan::{Plan, RunningOverlay, plan};

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
    repairs: BTreeMap<Object, Repairs>,
    /// Those of our underlay addresses that were missing at the last look.
    missing_underlay: Vec<IpAddr>,
    /// The packet filter is to be set again, because the addresses of this machine are others.
    is_filter_due: bool,
    warnings: Warnings,
    peer_states: PeerStates,
}

/// The repairs of objects of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repairs {
    /// How many there were.
    pub count: u64,
    /// What the last one found.
    pub what: String,
    /// When it was, on the boot clock.
    pub at: Instant,
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
            missing_underlay: Vec::new(),
            is_filter_due: false,
            warnings,
            peer_states: PeerStates::default(),
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

    /// Returns what `config` would change. The same as [`plan`], on the host of this overlay.
    fn plan(&self, config: &Config) -> Result<Vec<Change>, ControlError> {
        let Desired { underlay, mtu, .. } = self.desired;
        let running = RunningOverlay { config: self.config.clone(), underlay, mtu };
        Ok(plan::plan_on(&self.namespaces.host, Some(&running), config)?.changes)
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
        let hidden = HiddenEnd::of(site, self.config.site.device.as_str());
        objects::remove_hidden_ends(underlay.as_mut(), &hidden).map(drop)
    }

    /// Returns what a change keeps if the machine still has it.
    fn in_use(&self) -> InUse {
        let underlay_mtu = self.running.plane.tunnel().config().underlay_mtu;
        InUse::of(&self.config, Some(self.desired.underlay), Some(underlay_mtu))
    }

    /// Returns what about the machine keeps traffic from passing.
    #[must_use]
    pub fn warnings(&self) -> Vec<Warning> {
        let Warnings { foreign_routes, forwarding, repair, .. } = &self.warnings;
        forwarding.iter().chain(foreign_routes).chain(repair).cloned().collect()
    }

    /// Returns what each look at the peers leaves for the next.
    pub(crate) fn peer_states(&mut self) -> &mut PeerStates {
        &mut self.peer_states
    }

    /// Returns those of our underlay addresses that were missing at the last look.
    #[must_use]
    pub fn missing_underlay(&self) -> &[IpAddr] {
        &self.missing_underlay
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

    /// Returns how often an object of each kind had to be repaired, and the last time.
    #[must_use]
    pub fn repairs(&self) -> &BTreeMap<Object, Repairs> {
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
