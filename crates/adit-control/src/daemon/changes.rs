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
use crate::daemon::shared_overlay::{SharedOverlay, lock};
use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::change::Change;
use crate::state::confirmation::{self, Confirmation};
use crate::state::paths::RuntimePaths;
use crate::state::snapshot::SnapshotPublisher;
use crate::state::status::Status;

/// Changes the overlay that a daemon serves.
pub(crate) struct Changes {
    overlay: SharedOverlay,
    snapshots: Arc<SnapshotPublisher>,
    capabilities: KeptCapabilities,
    paths: RuntimePaths,
    /// The file that a reload reads.
    file: PathBuf,
    last_parsed: Option<ParsedFile>,
    /// What runs, for readers that do not wait for the overlay's lock.
    running: watch::Sender<Arc<Config>>,
    cannot_save_paths: bool,
}

/// A text and what it says.
struct ParsedFile {
    text: String,
    config: Config,
}

impl Changes {
    /// For an overlay that runs `config`, which came from `file`.
    pub(crate) fn new(
        overlay: SharedOverlay,
        snapshots: Arc<SnapshotPublisher>,
        capabilities: KeptCapabilities,
        paths: RuntimePaths,
        file: PathBuf,
        config: &Config,
    ) -> Self {
        // Lets the first change be parsed incrementally. A file that has been edited since is
        // parsed as a whole.
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let parsed = Config::parse("", &text).ok().filter(|parsed| parsed == config);
        let last_parsed = parsed.map(|config| ParsedFile { text, config });
        let running = watch::Sender::new(Arc::new(config.clone()));
        Self { overlay, snapshots, capabilities, paths, file, last_parsed, running, cannot_save_paths: false }
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
    /// be applied; nothing has changed then.
    pub(crate) fn apply(&mut self, request: &ApplyRequest, asked: Instant) -> Result<Applied, ControlError> {
        let config = self.parse(&request.file, &request.text)?;
        self.capabilities.suffice_for(&config)?;
        let time = request.confirm_seconds.map(Duration::from_secs);
        let before = Arc::clone(&self.running.borrow());
        let changes = self.change(|overlay| {
            let changes = overlay.reload(&config)?;
            let file = self.paths.confirmation();
            let noted = match time.filter(|_| !changes.is_empty()) {
                Some(time) => self.confirmation(&before, &config, asked, time).write(&file),
                None => confirmation::remove(&file).map(drop),
            };
            if let Err(error) = noted {
                // What is written now says nothing of this change: it would never be rolled back,
                // or together with the one before.
                if let Err(error) = overlay.reload(&before) {
                    tracing::error!(%error, "cannot restore the previous configuration");
                }
                return Err(error);
            }
            Ok(changes)
        })?;
        self.file.clone_from(&request.file);
        Ok(Applied { changes })
    }

    /// Applies the file that was applied last, as it is now.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or as [`Changes::apply`] does.
    pub(crate) fn reload(&mut self, asked: Instant) -> Result<Applied, ControlError> {
        let file = self.file.clone();
        let text =
            std::fs::read_to_string(&file).map_err(|error| ControlError::unreadable(file.clone(), error))?;
        self.apply(&ApplyRequest { file, text, confirm_seconds: None }, asked)
    }

    /// Keeps a change that still waited to be confirmed at the time `asked`. Returns whether there
    /// was one.
    ///
    /// # Errors
    /// Fails if the file about the change cannot be removed.
    pub(crate) fn confirm(&self, asked: Instant) -> Result<bool, ControlError> {
        let file = self.paths.confirmation();
        let is_waiting =
            Confirmation::read(&file).is_some_and(|confirmation| !confirmation.is_expired_at(asked));
        if is_waiting {
            confirmation::remove(&file)?;
        }
        Ok(is_waiting)
    }

    /// Rolls back a change whose time to be confirmed was over at the time `now`. Costs the attempt
    /// to open a file if there is no such change.
    pub(crate) fn roll_back_if_expired(&mut self, now: Instant) {
        let Some(waiting) = Confirmation::read(&self.paths.confirmation()) else { return };
        let running = Arc::clone(&self.running.borrow());
        let Some(previous) = waiting.rollback_of(&running, now) else { return };
        match self.change(|overlay| overlay.reload(&previous)) {
            Ok(changes) if changes.is_empty() => {}
            Ok(_) => {
                self.file = waiting.file().to_owned();
                tracing::warn!("the change was not confirmed in time: the previous configuration runs again");
            }
            Err(error) => tracing::error!(%error, "cannot roll back the unconfirmed change"),
        }
    }

    /// Writes what was learned about the paths, if there is anything new. A failure is logged once:
    /// a full disk is no reason to stop forwarding.
    pub(crate) fn save_paths(&mut self) {
        let saved = lock(&self.overlay).as_mut().map_or(Ok(()), Overlay::remember);
        if let Err(error) = &saved
            && !self.cannot_save_paths
        {
            tracing::warn!(%error, "a restart will forget what was learned about the paths");
        }
        self.cannot_save_paths = saved.is_err();
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

    /// What to return to unless `after` is confirmed within `time`: to `before`, or, if that still
    /// waits to be confirmed itself, to what ran before it.
    fn confirmation(&self, before: &Config, after: &Config, asked: Instant, time: Duration) -> Confirmation {
        let waiting = Confirmation::read(&self.paths.confirmation());
        let waiting = waiting.filter(|waiting| !waiting.is_expired_at(asked));
        match waiting.as_ref().and_then(|waiting| Some((waiting.previous()?, waiting.file()))) {
            Some((confirmed, file)) => Confirmation::new(&confirmed, file, after, time),
            None => Confirmation::new(before, &self.file, after, time),
        }
    }
}
