//! The changes of a running overlay: apply a file, confirm it, roll it back.
//!
//! They block for as long as the kernel takes, seconds for a large overlay, and so run on the
//! thread of [`ChangeQueue`](crate::daemon::change_queue::ChangeQueue), one at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_config::Config;
use adit_tunnel::Instant;
use tokio::sync::watch;

use crate::api::apply::{Applied, ApplyRequest};
use crate::daemon::capabilities::KeptCapabilities;
use crate::daemon::chosen::{Chosen, rolled_back};
use crate::daemon::kept_files::KeptFiles;
use crate::daemon::shared_overlay::{SharedOverlay, lock};
use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::change::Change;
use crate::retry::Retry;
use crate::state::confirmation::{self, Confirmed, Pending};
use crate::state::daemon_status::{DaemonStatus, Deadline};
use crate::state::paths::RuntimePaths;
use crate::state::snapshot::SnapshotPublisher;
use crate::state::status::Status;
use crate::state::warning::{Warning, WarningName};

/// Changes the overlay that a daemon serves.
pub(crate) struct Changes {
    overlay: SharedOverlay,
    snapshots: Arc<SnapshotPublisher>,
    capabilities: KeptCapabilities,
    paths: RuntimePaths,
    /// The file that the daemon was started with, which a reload reads.
    own_file: PathBuf,
    /// The file that what runs came from.
    file: PathBuf,
    last_parsed: Option<ParsedFile>,
    /// What runs, for readers that do not wait for the overlay's lock.
    running: watch::Sender<Arc<Config>>,
    /// The change that waits to be confirmed. What the disk says of it is read at a start only: a
    /// running daemon keeps its promise whatever happens to the disk.
    pending: Option<Pending>,
    warnings: Warnings,
    rollback: Retry,
    kept_files: KeptFiles,
}

/// What status says about changes.
#[derive(Default)]
struct Warnings {
    reload: Option<Warning>,
    rollback: Option<Warning>,
}

/// A text and what it says.
struct ParsedFile {
    text: String,
    config: Config,
}

impl Changes {
    /// For an overlay that runs `chosen`.
    pub(crate) fn new(
        overlay: SharedOverlay,
        snapshots: Arc<SnapshotPublisher>,
        capabilities: KeptCapabilities,
        paths: RuntimePaths,
        own_file: PathBuf,
        chosen: Chosen,
        kept_files: KeptFiles,
    ) -> Self {
        let Chosen { config, file, pending, warning } = chosen;
        // Lets the first change be parsed incrementally. A file that has been edited since is
        // parsed as a whole.
        let text = adit_config::read_regular_file(&file).unwrap_or_default();
        let parsed = Config::parse("", &text).ok().filter(|parsed| *parsed == config);
        let last_parsed = parsed.map(|config| ParsedFile { text, config });
        let running = watch::Sender::new(Arc::new(config));
        let changes = Self {
            overlay,
            snapshots,
            capabilities,
            paths,
            own_file,
            file,
            last_parsed,
            running,
            pending,
            warnings: Warnings { rollback: warning, ..Warnings::default() },
            rollback: Retry::default(),
            kept_files,
        };
        changes.tell();
        changes
    }

    /// What runs, now and after each change.
    pub(crate) fn running(&self) -> watch::Receiver<Arc<Config>> {
        self.running.subscribe()
    }

    /// Changes the running overlay to what a file says, at the request of a client at the time
    /// `asked`.
    ///
    /// # Errors
    /// Fails if the file has mistakes, needs capabilities that the daemon has given up, or cannot
    /// be applied, or if the promise to roll it back cannot be written. Nothing has changed then.
    pub(crate) fn apply(&mut self, request: &ApplyRequest, asked: Instant) -> Result<Applied, ControlError> {
        let config = self.parse(&request.file, &request.text)?;
        self.capabilities.suffice_for(&config)?;
        let deadline = request.confirm_seconds.map(|time| asked.saturating_add(Duration::from_secs(time)));
        let next = self.pending_after(&config, deadline);
        // Before anything changes. Whoever ends the daemon after this finds the promise.
        confirmation::record(&self.paths, next.as_ref())?;
        let changed = self.change(|overlay| overlay.reload(&config));
        if changed.is_ok() {
            self.pending = next;
            self.file.clone_from(&request.file);
            self.warnings = Warnings::default();
        } else if let Err(error) = confirmation::record(&self.paths, self.pending.as_ref()) {
            // What is written names what runs as what to return to, or as what was not confirmed.
            tracing::warn!(%error, "the record of unconfirmed changes names one that was not made");
        }
        self.tell();
        let confirm_seconds = request.confirm_seconds.filter(|_| self.pending.is_some());
        Ok(Applied { changes: changed?, confirm_seconds })
    }

    /// Applies the file that the daemon was started with, as it is now.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or as [`Changes::apply`] does. Status says so until a
    /// change succeeds.
    pub(crate) fn reload(&mut self, asked: Instant) -> Result<Applied, ControlError> {
        let file = self.own_file.clone();
        let reloaded = adit_config::read_regular_file(&file)
            .map_err(|error| ControlError::not_read(&file, error))
            .and_then(|text| self.apply(&ApplyRequest { file, text, confirm_seconds: None }, asked));
        if let Err(error) = &reloaded {
            let about = self.own_file.display().to_string();
            let what = format!("{about} was read again and not taken, so what ran before runs on: {error}");
            self.warnings.reload = Some(Warning { name: WarningName::ReloadFailed, about, what });
            self.tell();
        }
        reloaded
    }

    /// Keeps a change that still waited to be confirmed at the time `asked`. Returns whether there
    /// was one.
    ///
    /// # Errors
    /// Fails if the files about the change cannot be removed. It still waits then.
    pub(crate) fn confirm(&mut self, asked: Instant) -> Result<bool, ControlError> {
        let is_waiting = self.pending.as_ref().is_some_and(|pending| !pending.is_expired_at(asked));
        if is_waiting {
            if let Err(error) = confirmation::record(&self.paths, None) {
                // Half of it may have been removed.
                let _ = confirmation::record(&self.paths, self.pending.as_ref());
                return Err(error);
            }
            self.pending = None;
            self.tell();
        }
        Ok(is_waiting)
    }

    /// Rolls back a change whose time to be confirmed was over at the time `now`. If that fails, it
    /// is tried again and again.
    pub(crate) fn roll_back_if_expired(&mut self, now: Instant) {
        let Some(pending) = self.pending.as_ref().filter(|pending| pending.is_expired_at(now)) else {
            return;
        };
        if !self.rollback.is_due(now) {
            return;
        }
        let Confirmed { config, file } = pending.confirmed.clone();
        let unconfirmed = self.file.display().to_string();
        let warning = |name, what| Some(Warning { name, about: unconfirmed, what });
        self.warnings.rollback = match self.change(|overlay| overlay.reload(&config)) {
            Ok(_) => {
                let what = rolled_back(&self.file, &file);
                // The files stay, so that a start does not run what was not confirmed.
                self.pending = None;
                self.file = file;
                self.rollback.succeeded();
                warning(WarningName::RolledBack, what)
            }
            Err(error) => {
                self.rollback.failed(now);
                let what =
                    format!("a change was not confirmed and cannot be rolled back at present: {error}");
                warning(WarningName::RollbackFails, what)
            }
        };
        self.tell();
    }

    /// Writes what outlives the daemon, if there is anything new.
    pub(crate) fn save_state(&mut self, now: Instant) {
        let save = |kept_files: &mut KeptFiles| {
            kept_files
                .save(&self.paths, now, || lock(&self.overlay).as_mut().map_or(Ok(()), Overlay::remember))
        };
        if save(&mut self.kept_files) {
            self.tell();
        }
    }

    /// Parses a text; only the part that differs from the text before, if that is small.
    fn parse(&mut self, file: &Path, text: &str) -> Result<Config, ControlError> {
        let incremental =
            self.last_parsed.as_ref().and_then(|last| last.config.parse_incremental(&last.text, text));
        let config = match incremental {
            Some(config) => config,
            None => {
                let name = file.display().to_string();
                Config::parse(&name, text).map_err(|problems| ControlError::Mistakes {
                    file: name,
                    problems: problems.to_string(),
                })?
            }
        };
        self.last_parsed = Some(ParsedFile { text: text.to_owned(), config: config.clone() });
        Ok(config)
    }

    /// Does `work` with the overlay locked, and publishes the new state before it is unlocked.
    fn change(
        &self,
        work: impl FnOnce(&mut Overlay) -> Result<Vec<Change>, ControlError>,
    ) -> Result<Vec<Change>, ControlError> {
        let _long_work = self.snapshots.begin_long_work();
        let mut overlay = lock(&self.overlay);
        let Some(overlay) = overlay.as_mut() else { return Ok(Vec::new()) };
        let changed = work(overlay);
        // A change that failed may have made its peers anew.
        self.snapshots.publish(Status::of(overlay));
        if **self.running.borrow() != *overlay.config() {
            self.running.send_replace(Arc::new(overlay.config().clone()));
        }
        let changes = changed?;
        for change in &changes {
            tracing::info!(%change, "applied");
        }
        Ok(changes)
    }

    /// What is to wait to be confirmed after a change to `config`, which has to be confirmed before
    /// `deadline` if there is one.
    fn pending_after(&self, config: &Config, deadline: Option<Instant>) -> Option<Pending> {
        let before = Arc::clone(&self.running.borrow());
        match (&self.pending, deadline) {
            // What was confirmed last runs again.
            (Some(pending), _) if pending.confirmed.config == *config => None,
            (Some(pending), deadline) => Some(pending.followed_by(config, deadline)),
            (None, Some(deadline)) if *before != *config => {
                let confirmed = Confirmed { config: (*before).clone(), file: self.file.clone() };
                Some(Pending::new(confirmed, config, deadline))
            }
            (None, _) => None,
        }
    }

    /// Lets status say how things stand.
    fn tell(&self) {
        let Warnings { reload, rollback } = &self.warnings;
        let warnings = [reload.as_ref(), rollback.as_ref(), self.kept_files.warning()];
        self.snapshots.set_daemon(DaemonStatus {
            file: self.file.clone(),
            pending: self.pending.as_ref().map(Deadline::of),
            warnings: warnings.into_iter().flatten().cloned().collect(),
        });
    }
}
