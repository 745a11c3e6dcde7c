//! An applied change that is taken back unless somebody confirms it in time: kept in a file, so that a daemon that is
//! killed meanwhile takes it back when it is started again.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config::Config;
use adit_dataplane::clock::Clock;
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::paths::{boot, write_whole};

/// What waits, or waited in vain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    /// What ran before, as a file with every key.
    previous: String,
    /// The file that it came from.
    file: PathBuf,
    /// What was applied, in the same form.
    unconfirmed: String,
    /// On a clock that begins anew with every boot.
    deadline_ms: u64,
    boot: String,
}

impl Confirmation {
    /// `after` is applied in place of `before`, which came from `file`, and is confirmed within `time` or taken back.
    pub(crate) fn new(before: &Config, file: &Path, after: &Config, time: Duration) -> Self {
        Self {
            previous: before.to_toml(),
            file: file.to_owned(),
            unconfirmed: after.to_toml(),
            deadline_ms: Clock.now().saturating_add(time).as_millis(),
            boot: boot(),
        }
    }

    /// The one in the file, if there is one that can be read.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), ControlError> {
        write_whole(file, &serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether the time is up; after a reboot it is.
    pub(crate) fn is_over(&self) -> bool {
        self.boot != boot() || Clock.now().as_millis() >= self.deadline_ms
    }

    /// What a daemon that is told to run `config` is to run instead: what ran before, if this is what nobody has
    /// confirmed in time.
    pub(crate) fn instead_of(&self, config: &Config) -> Option<Config> {
        (self.is_over() && self.unconfirmed == config.to_toml()).then(|| self.previous())?
    }

    /// The file that what ran before came from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// What ran before.
    pub(crate) fn previous(&self) -> Option<Config> {
        Config::parse("what ran before", &self.previous).ok()
    }
}

/// Whether a change of an overlay waits to be confirmed, and its time is up.
#[must_use]
pub fn is_overdue(file: &Path) -> bool {
    Confirmation::read(file).is_some_and(|confirmation| confirmation.is_over())
}

/// Removes the file; whether there was one.
pub(crate) fn forget(file: &PathBuf) -> Result<bool, ControlError> {
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
    fn what_nobody_confirms_in_time_is_not_run_again() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("confirm.json");
        let (before, after) = (config(64), config(32));
        let waiting = Confirmation::new(&before, Path::new("a.toml"), &after, Duration::from_secs(60));
        waiting.write(&file).expect("it can be written");
        let read = Confirmation::read(&file).expect("it is there");
        assert_eq!(read, waiting);
        assert_eq!(read.instead_of(&after), None, "there is still time");
        assert!(!is_overdue(&file));

        let over = Confirmation::new(&before, Path::new("a.toml"), &after, Duration::ZERO);
        assert_eq!(over.instead_of(&after), Some(before.clone()));
        assert_eq!(over.instead_of(&config(16)), None, "a file that was changed since is another");
        let of_another_boot = Confirmation { boot: "another".to_owned(), ..waiting };
        assert_eq!(of_another_boot.instead_of(&after), Some(before));

        assert!(forget(&file).expect("it can be removed"));
        assert!(!forget(&file).expect("nothing is there"));
        assert_eq!(Confirmation::read(&file), None);
    }
}
