//! The files that outlive the daemon: its run record and what was learned about the paths. Nothing
//! that forwards needs them, so a disk that is full or read-only stops nothing.

use adit_tunnel::Instant;

use crate::error::ControlError;
use crate::retry::Retry;
use crate::state::paths::{RunRecord, RuntimePaths};
use crate::state::warning::{Warning, WarningName};

/// The files, as far as they have been written.
#[derive(Default)]
pub(crate) struct KeptFiles {
    /// The record, until it is written.
    record: Option<RunRecord>,
    retry: Retry,
    warning: Option<Warning>,
}

impl KeptFiles {
    /// Writes the run record at the start of a daemon. If that fails, [`KeptFiles::save`] tries it
    /// again.
    pub(crate) fn of(paths: &RuntimePaths, record: RunRecord, now: Instant) -> Self {
        let mut files = Self { record: Some(record), ..Self::default() };
        files.save(paths, now, || Ok(()));
        files
    }

    /// Writes what has not been written, and by `save_paths` what was learned about the paths.
    /// After a failure it waits before it tries again. Returns true if the warning has changed.
    pub(crate) fn save(
        &mut self,
        paths: &RuntimePaths,
        now: Instant,
        save_paths: impl FnOnce() -> Result<(), ControlError>,
    ) -> bool {
        if !self.retry.is_due(now) {
            return false;
        }
        let written = self.record.as_ref().map_or(Ok(()), |record| paths.write_run_record(record));
        if written.is_ok() {
            self.record = None;
        }
        let warning = match written.and_then(|()| save_paths()) {
            Ok(()) => {
                self.retry.succeeded();
                None
            }
            Err(error) => {
                self.retry.failed(now);
                Some(Warning {
                    name: WarningName::StateNotWritten,
                    about: paths.state().display().to_string(),
                    what: format!(
                        "{error}; forwarding does not need it, but a restart forgets what was learned about the \
                         paths, and `adit apply --confirm` is refused: make room, or make it writable"
                    ),
                })
            }
        };
        let has_changed = warning != self.warning;
        self.warning = warning;
        has_changed
    }

    /// What keeps the files from being written.
    pub(crate) fn warning(&self) -> Option<&Warning> {
        self.warning.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::retry::FIRST_INTERVAL;

    const NOW: Instant = Instant::from_millis(1_000);

    fn record() -> RunRecord {
        RunRecord { netns: None, device: "ipipA".to_owned(), inside: None, file: None }
    }

    #[test]
    fn a_record_that_cannot_be_written_is_written_later() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let paths = RuntimePaths::below(directory.path(), "a");
        // A file where the directory belongs.
        std::fs::write(directory.path().join("lib"), "").expect("it can be written");
        let mut files = KeptFiles::of(&paths, record(), NOW);
        let warning = files.warning().expect("it was not written").clone();
        assert_eq!(warning.name, WarningName::StateNotWritten);
        std::fs::remove_file(directory.path().join("lib")).expect("it is there");
        assert!(!files.save(&paths, NOW, || Ok(())), "it is too soon");
        assert_eq!(files.warning(), Some(&warning));
        assert!(files.save(&paths, NOW.saturating_add(FIRST_INTERVAL), || Ok(())));
        assert_eq!(files.warning(), None);
        assert_eq!(paths.read_run_record(), Some(record()));
    }

    #[test]
    fn a_failure_is_told_once_and_retried() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let paths = RuntimePaths::below(directory.path(), "a");
        let mut files = KeptFiles::of(&paths, record(), NOW);
        assert_eq!(files.warning(), None);
        let full = || Err(ControlError::file("write", "paths.json", std::io::Error::from_raw_os_error(28)));
        assert!(files.save(&paths, NOW, full));
        let what = &files.warning().expect("it failed").what;
        assert!(what.contains("No space left on device"), "{what}");
        let later = NOW.saturating_add(Duration::from_secs(60));
        assert!(!files.save(&paths, later, full), "the same failure is no news");
        assert!(files.save(&paths, later.saturating_add(Duration::from_secs(60)), || Ok(())));
    }
}
