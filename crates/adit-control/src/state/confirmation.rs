//! A change that is rolled back unless it is confirmed in time.
//!
//! It is kept in a file, so that a daemon that is killed meanwhile rolls the change back when it
//! starts again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config::Config;
use adit_dataplane::clock::Clock;
use adit_tunnel::Instant;
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::paths::{boot, write_whole};

/// A change that waits to be confirmed, or whose time is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    /// The configuration before the change, as a file with every key.
    previous: String,
    /// The file that it came from.
    file: PathBuf,
    /// The configuration after the change, in the same form.
    unconfirmed: String,
    /// When the time is over, in milliseconds of a clock that starts anew with every boot.
    deadline_ms: u64,
    boot: String,
}

impl Confirmation {
    /// The change from `before`, which came from `file`, to `after`. It has to be confirmed within
    /// `time` from now.
    pub(crate) fn new(before: &Config, file: &Path, after: &Config, time: Duration) -> Self {
        Self {
            previous: before.to_toml(),
            file: file.to_owned(),
            unconfirmed: after.to_toml(),
            deadline_ms: Clock.now().saturating_add(time).as_millis(),
            boot: boot(),
        }
    }

    /// The change that is written in `file`; `None` if there is no file that can be read.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), ControlError> {
        write_whole(file, &serde_json::to_string(self).unwrap_or_default())
    }

    /// Returns true if the time was over at `now`. It is over after a reboot.
    pub(crate) fn is_expired_at(&self, now: Instant) -> bool {
        self.boot != boot() || now.as_millis() >= self.deadline_ms
    }

    /// The configuration to return to from `running`, if that is the unconfirmed one and its time
    /// was over at `now`.
    pub(crate) fn rollback_of(&self, running: &Config, now: Instant) -> Option<Config> {
        (self.is_expired_at(now) && self.unconfirmed == running.to_toml()).then(|| self.previous())?
    }

    /// The file that the configuration before the change came from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The configuration before the change.
    pub(crate) fn previous(&self) -> Option<Config> {
        Config::parse("the previous configuration", &self.previous).ok()
    }
}

/// Returns true if `file` says that a change was not confirmed in time.
#[must_use]
pub fn is_overdue(file: &Path) -> bool {
    Confirmation::read(file).is_some_and(|confirmation| confirmation.is_expired_at(Clock.now()))
}

/// Removes the file. Returns whether there was one.
///
/// # Errors
/// Fails if it is there and cannot be removed.
pub(crate) fn remove(file: &Path) -> Result<bool, ControlError> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(ControlError::file("remove", file, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ttl: u8) -> Config {
        let text = include_str!("../../../../examples/a.toml")
            .replace("[tunnel]", &format!("[tunnel]\nttl = {ttl}"));
        Config::parse("a.toml", &text).expect("it is valid")
    }

    #[test]
    fn an_unconfirmed_change_is_rolled_back_when_its_time_is_over() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("confirm.json");
        let (before, after) = (config(64), config(32));
        let now = Clock.now();
        let waiting = Confirmation::new(&before, Path::new("a.toml"), &after, Duration::from_secs(60));
        waiting.write(&file).expect("it can be written");
        let read = Confirmation::read(&file).expect("it is there");
        assert_eq!(read, waiting);
        assert_eq!(read.rollback_of(&after, now), None, "there is still time");
        assert!(!is_overdue(&file));
        let later = now.saturating_add(Duration::from_secs(61));
        assert_eq!(read.rollback_of(&after, later), Some(before.clone()));

        let over = Confirmation::new(&before, Path::new("a.toml"), &after, Duration::ZERO);
        assert_eq!(over.rollback_of(&after, Clock.now()), Some(before.clone()));
        assert_eq!(
            over.rollback_of(&config(16), Clock.now()),
            None,
            "a file that was changed since is another"
        );
        let of_another_boot = Confirmation { boot: "another".to_owned(), ..waiting };
        assert_eq!(of_another_boot.rollback_of(&after, now), Some(before));

        assert!(remove(&file).expect("it can be removed"));
        assert!(!remove(&file).expect("nothing is there"));
        assert_eq!(Confirmation::read(&file), None);
    }
}
