//! What a running daemon can be asked to do: apply a file, take that back, confirm it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_config::Config;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::daemon::capabilities::KeptCapabilities;
use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::change::Change;
use crate::state::confirmation::{self, Confirmation};
use crate::state::paths::RuntimePaths;

/// A file to be applied.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRequest {
    /// Its path: what a reload reads from now on.
    pub file: PathBuf,
    /// What is in it.
    pub text: String,
    /// Seconds until it is taken back unless it is confirmed.
    pub confirm_seconds: Option<u64>,
}

/// What became of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// What has changed; nothing, if everything was so already.
    pub changes: Vec<Change>,
}

/// The overlay that a daemon serves, and the file it came from.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) overlay: Arc<Mutex<Option<Overlay>>>,
    paths: RuntimePaths,
    file: Arc<Mutex<PathBuf>>,
    read: Arc<Mutex<Option<Read>>>,
    rights: KeptCapabilities,
}

/// A text that was read, and what it says.
struct Read {
    text: String,
    config: Config,
}

impl Service {
    pub(crate) fn new(overlay: Overlay, paths: &RuntimePaths, file: &Path, rights: KeptCapabilities) -> Self {
        // For the first change to be read beside; whoever has changed the file since has it read as a whole.
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let read = Config::parse("", &text).ok().filter(|config| config == overlay.config());
        let read = read.map(|config| Read { text, config });
        Self {
            overlay: Arc::new(Mutex::new(Some(overlay))),
            paths: paths.clone(),
            file: Arc::new(Mutex::new(file.to_owned())),
            read: Arc::new(Mutex::new(read)),
            rights,
        }
    }

    /// The file that a reload reads.
    fn file(&self) -> MutexGuard<'_, PathBuf> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What runs, as a file with every key written out.
    pub(crate) fn config(&self) -> Option<String> {
        let overlay = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        overlay.as_ref().map(|overlay| overlay.config().to_toml())
    }

    /// What a text says. Of one that differs little from the one before only that is read.
    fn read(&self, file: &Path, text: &str) -> Result<Config, ControlError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let beside = read.as_ref().and_then(|read| read.config.parse_incremental(&read.text, text));
        let config = match beside {
            Some(config) => config,
            None => {
                let name = file.display().to_string();
                Config::parse(&name, text).map_err(|problems| ControlError::Mistakes {
                    file: name,
                    problems: problems.to_string(),
                })?
            }
        };
        *read = Some(Read { text: text.to_owned(), config: config.clone() });
        Ok(config)
    }

    /// Makes a running overlay what a file says, all of it or nothing.
    pub(crate) fn apply(&self, request: &ApplyRequest) -> Result<Applied, ControlError> {
        let config = self.read(&request.file, &request.text)?;
        self.rights.suffice_for(&config)?;
        let time = request.confirm_seconds.map(Duration::from_secs);
        let changes = self.change(|overlay| {
            let before = overlay.config().clone();
            let changes = overlay.reload(&config)?;
            self.note(&before, &config, time.filter(|_| !changes.is_empty()))?;
            // From now on this is what a reload reads.
            *self.file() = request.file.clone();
            Ok(changes)
        })?;
        Ok(Applied { changes })
    }

    /// Reads the file again.
    pub(crate) fn reload(&self) -> Result<Applied, ControlError> {
        let file = self.file().clone();
        let text =
            std::fs::read_to_string(&file).map_err(|error| ControlError::unreadable(file.clone(), error))?;
        self.apply(&ApplyRequest { file, text, confirm_seconds: None })
    }

    /// Keeps a change that waits; whether one did.
    pub(crate) fn confirm(&self) -> Result<bool, ControlError> {
        let file = self.paths.confirmation();
        let waits = Confirmation::read(&file).is_some_and(|confirmation| !confirmation.is_over());
        if waits {
            confirmation::forget(&file)?;
        }
        Ok(waits)
    }

    /// Takes back what nobody has confirmed in time. To be called now and then.
    pub(crate) fn take_back(&self) {
        let Some(waiting) = Confirmation::read(&self.paths.confirmation()) else { return };
        let taken_back = self.change(|overlay| match waiting.instead_of(overlay.config()) {
            Some(previous) => overlay.reload(&previous),
            None => Ok(Vec::new()),
        });
        match taken_back {
            Ok(changes) if changes.is_empty() => {}
            Ok(_) => {
                *self.file() = waiting.file().to_owned();
                tracing::warn!("nobody has confirmed the change: what ran before runs again");
            }
            Err(error) => tracing::error!(%error, "an unconfirmed change cannot be taken back"),
        }
    }

    fn change(
        &self,
        work: impl FnOnce(&mut Overlay) -> Result<Vec<Change>, ControlError>,
    ) -> Result<Vec<Change>, ControlError> {
        let mut overlay = self.overlay.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = overlay.as_mut().map_or(Ok(Vec::new()), work)?;
        for change in &changes {
            tracing::info!(%change, "applied");
        }
        Ok(changes)
    }

    /// RunRecord what to return to; what was not confirmed before is still what was confirmed last.
    fn note(&self, before: &Config, after: &Config, time: Option<Duration>) -> Result<(), ControlError> {
        let file = self.paths.confirmation();
        let Some(time) = time else { return confirmation::forget(&file).map(drop) };
        let waiting = Confirmation::read(&file).filter(|waiting| !waiting.is_over());
        let (before, from) =
            match waiting.and_then(|waiting| Some((waiting.previous()?, waiting.file().to_owned()))) {
                Some(confirmed) => confirmed,
                None => (before.clone(), self.file().clone()),
            };
        Confirmation::new(&before, &from, after, time).write(&file)
    }
}
