//! The start of a daemon, up to the moment at which its overlay forwards.

use std::ops::ControlFlow;
use std::time::Duration;

use adit_config::Config;
use adit_dataplane::clock::Clock;

use crate::api::metrics_server::MetricsServer;
use crate::daemon::capabilities::KeptCapabilities;
use crate::daemon::chosen::{Chosen, choose};
use crate::daemon::kept_files::KeptFiles;
use crate::daemon::options::DaemonOptions;
use crate::daemon::signals::EndSignals;
use crate::daemon::waiting::Waiting;
use crate::error::ControlError;
use crate::overlay::{self, OnExit, Overlay};
use crate::state::paths::{RunRecord, RuntimePaths};

/// Between two attempts while the daemon waits for something that is missing.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A start that has made nothing in the kernel yet.
pub(crate) struct Start {
    pub(crate) chosen: Chosen,
    pub(crate) kept_files: KeptFiles,
    pub(crate) options: DaemonOptions,
    pub(crate) paths: RuntimePaths,
    pub(crate) capabilities: KeptCapabilities,
    pub(crate) metrics: MetricsServer,
    /// What stays if the start fails: what it found.
    pub(crate) on_failure: OnExit,
}

impl Start {
    /// Chooses what to run, gives up all capabilities that it does not need, and binds the address
    /// for metrics.
    ///
    /// # Errors
    /// Fails if the capabilities cannot be given up or the address cannot be bound.
    pub(crate) async fn prepare(
        config: &Config,
        options: &DaemonOptions,
        paths: &RuntimePaths,
    ) -> Result<Self, ControlError> {
        let record = RunRecord {
            netns: options.netns.clone(),
            device: config.site.device.to_string(),
            inside: inner_netns(config),
            file: Some(options.file.clone()),
        };
        let kept_files = KeptFiles::of(paths, record, Clock.now());
        let chosen = choose(config, &options.file, paths, Clock.now());
        let config = &chosen.config;
        // Threads inherit capabilities, and there is none yet.
        let returns_to = chosen.pending.iter().map(|pending| &pending.confirmed.config);
        let capabilities = KeptCapabilities::of(returns_to.chain([config]));
        capabilities.give_up_others(config)?;
        // Before anything is made, so that a start that fails here has changed nothing.
        let mut metrics = MetricsServer::new();
        let bound = metrics.listen(config.site.metrics).await;
        // The address may come together with the underlay address; the first tick tries again.
        if !options.wait {
            bound?;
        }
        let on_failure = if has_leftovers(config).unwrap_or(true) { OnExit::Keep } else { OnExit::Remove };
        let (options, paths) = (options.clone(), paths.clone());
        Ok(Self { chosen, kept_files, options, paths, capabilities, metrics, on_failure })
    }

    /// Brings the overlay up; waits for the underlay address, the network namespace, or the VRF if
    /// the options say so. A signal ends the wait, and then says what stays unless an option says
    /// otherwise.
    ///
    /// # Errors
    /// Fails as [`Overlay::bring_up_to_stay`] does.
    pub(crate) async fn bring_up(
        &self,
        signals: &mut EndSignals,
    ) -> Result<ControlFlow<OnExit, Overlay>, ControlError> {
        let mut waiting = None;
        loop {
            match Overlay::bring_up_to_stay(&self.chosen.config, &self.paths.path_cache()) {
                Err(error) if self.options.wait && error.retry_reason().is_some() => {
                    let what = error.retry_reason().unwrap_or_default();
                    let is_first = waiting.is_none();
                    let waiting = waiting.get_or_insert_with(|| {
                        let Chosen { config, file, .. } = &self.chosen;
                        Waiting::begin(config, file, &self.paths.socket())
                    });
                    waiting.tell(what, &error);
                    // Whoever reads this may ask for the status.
                    if is_first {
                        tracing::warn!(%error, "waiting for {what}");
                    }
                }
                brought_up => return brought_up.map(ControlFlow::Continue),
            }
            tokio::select! {
                on_exit = signals.received() => return Ok(ControlFlow::Break(on_exit)),
                () = tokio::time::sleep(RETRY_INTERVAL) => {}
            }
        }
    }
}

/// Returns true if an earlier daemon left something of this overlay in the kernel.
///
/// # Errors
/// Fails if the kernel cannot be asked.
pub(crate) fn has_leftovers(config: &Config) -> Result<bool, ControlError> {
    overlay::has_leftovers(config.site.name.as_str(), inner_netns(config).as_deref())
}

/// The network namespace of the tunnel interface, if it is not the daemon's own.
fn inner_netns(config: &Config) -> Option<String> {
    config.site.netns.as_ref().map(ToString::to_string)
}
