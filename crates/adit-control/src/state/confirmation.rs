//! A change that is rolled back unless it is confirmed in time.
//!
//! Two files say so, and both are on the disk before anything changes. A daemon that is killed at
//! any moment keeps the promise when it starts again:
//!
//! - `confirmed.json` is the last configuration that was confirmed: what ran before the change.
//! - `confirm.json` is what was applied since, and until when it has to be confirmed. After a
//!   rollback it stays, so that a start with the file that was not confirmed does not run it. If it
//!   is there and cannot be read, the configuration that was confirmed last runs.

use std::path::{Path, PathBuf};

use adit_config::Config;
use adit_dataplane::clock::Clock;
use adit_tunnel::Instant;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::durable_file;
use crate::state::paths::{RuntimePaths, boot};

/// A configuration and the file that it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Confirmed {
    pub(crate) config: Config,
    pub(crate) file: PathBuf,
}

/// A change that waits to be confirmed, or whose time is over.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pending {
    /// What to return to.
    pub(crate) confirmed: Confirmed,
    change: Unconfirmed,
}

/// The content of `confirmed.json`.
#[derive(Serialize, Deserialize)]
struct ConfirmedFile {
    /// The configuration, as a file with every key.
    config: String,
    /// The file that it came from.
    file: PathBuf,
}

/// The content of `confirm.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unconfirmed {
    /// What was applied since, as files with every key.
    configs: Vec<String>,
    /// When the time is over, in milliseconds of a clock that starts anew with every boot.
    deadline_ms: u64,
    boot: String,
}

/// What the files of an overlay say.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// No change waits.
    Nothing,
    /// A change waits, or its time is over.
    Pending(Pending),
    /// A change waited, and a file about it cannot be read.
    Unreadable {
        /// The file and the reason.
        why: String,
        /// What to return to, if that can be read.
        confirmed: Option<Confirmed>,
    },
}

impl Pending {
    /// The change from `confirmed` to `config`, which has to be confirmed before `deadline`.
    pub(crate) fn new(confirmed: Confirmed, config: &Config, deadline: Instant) -> Self {
        let change = Unconfirmed {
            configs: vec![config.to_toml()],
            deadline_ms: deadline.as_millis(),
            boot: boot().to_owned(),
        };
        Self { confirmed, change }
    }

    /// The same, after another change to `config`. Without a new deadline the time runs on.
    pub(crate) fn followed_by(&self, config: &Config, deadline: Option<Instant>) -> Self {
        let mut next = self.clone();
        let text = config.to_toml();
        if !next.change.configs.contains(&text) {
            next.change.configs.push(text);
        }
        if let Some(deadline) = deadline {
            next.change.deadline_ms = deadline.as_millis();
            boot().clone_into(&mut next.change.boot);
        }
        next
    }

    /// Returns true if the time was over at `now`. It is over after a reboot.
    pub(crate) fn is_expired_at(&self, now: Instant) -> bool {
        self.change.boot != boot() || now.as_millis() >= self.change.deadline_ms
    }

    /// When the time is over, in this boot.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::from_millis(self.change.deadline_ms)
    }

    /// Returns true if `config` was applied and not confirmed.
    pub(crate) fn is_about(&self, config: &Config) -> bool {
        self.change.configs.contains(&config.to_toml())
    }
}

/// Reads the files of an overlay.
pub(crate) fn find(paths: &RuntimePaths) -> Found {
    let confirmed = || {
        let kept: Option<ConfirmedFile> = read(&paths.confirmed())?;
        let kept = kept.ok_or_else(|| format!("{} is missing", paths.confirmed().display()))?;
        let config = Config::parse("the configuration that was confirmed last", &kept.config)
            .map_err(|problems| format!("{}: {problems}", paths.confirmed().display()))?;
        Ok(Confirmed { config, file: kept.file })
    };
    let found = match read::<Unconfirmed>(&paths.confirmation()) {
        Ok(None) => return Found::Nothing,
        Ok(Some(change)) => confirmed().map(|confirmed| Found::Pending(Pending { confirmed, change })),
        Err(why) => Ok(Found::Unreadable { why, confirmed: confirmed().ok() }),
    };
    found.unwrap_or_else(|why| Found::Unreadable { why, confirmed: None })
}

/// Replaces the files by what is to be pending: first what to return to, then the change. Once this
/// returns, the promise is on the disk.
///
/// # Errors
/// Fails if a file cannot be written or removed; the files then say what they said before.
pub(crate) fn record(paths: &RuntimePaths, pending: Option<&Pending>) -> Result<(), ControlError> {
    let Some(Pending { confirmed, change }) = pending else {
        // Without the first file the second says nothing.
        durable_file::remove(&paths.confirmation())?;
        return durable_file::remove(&paths.confirmed()).map(drop);
    };
    paths.create_state()?;
    let kept = ConfirmedFile { config: confirmed.config.to_toml(), file: confirmed.file.clone() };
    durable_file::write(&paths.confirmed(), &serde_json::to_string(&kept).unwrap_or_default())?;
    durable_file::write(&paths.confirmation(), &serde_json::to_string(change).unwrap_or_default())
}

/// Returns true if the files say that the change to `config` waits to be confirmed or was not
/// confirmed in time, or may say so. Meanwhile it may have been confirmed, and another change made.
#[must_use]
pub fn is_pending(paths: &RuntimePaths, config: &Config) -> bool {
    match find(paths) {
        Found::Nothing => false,
        Found::Pending(pending) => pending.is_about(config),
        Found::Unreadable { .. } => true,
    }
}

/// Returns true if the files say that a change was not confirmed in time, or may have said so.
#[must_use]
pub fn is_overdue(paths: &RuntimePaths) -> bool {
    match find(paths) {
        Found::Nothing => false,
        Found::Pending(pending) => pending.is_expired_at(Clock.now()),
        Found::Unreadable { .. } => true,
    }
}

/// The content of a file; `None` if there is no such file.
fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("{}: {why}", file.display());
    match std::fs::read_to_string(file) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn config(ttl: u8) -> Config {
        let text = include_str!("../../../../examples/a.toml")
            .replace("[tunnel]", &format!("[tunnel]\nttl = {ttl}"));
        Config::parse("a.toml", &text).expect("it is valid")
    }

    fn confirmed(ttl: u8) -> Confirmed {
        Confirmed { config: config(ttl), file: PathBuf::from("/etc/adit/a.toml") }
    }

    #[test]
    fn what_is_recorded_is_found() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let paths = RuntimePaths::below(directory.path(), "a");
        paths.create_state().expect("they can be made");
        assert_eq!(find(&paths), Found::Nothing);
        let now = Clock.now();
        let first = Pending::new(confirmed(64), &config(32), now.saturating_add(Duration::from_secs(60)));
        let moved = first.followed_by(&config(16), Some(now));
        for pending in [&first, &moved, &first] {
            record(&paths, Some(pending)).expect("it can be written");
            assert_eq!(find(&paths), Found::Pending(pending.clone()));
            assert_eq!(is_overdue(&paths), *pending == moved);
            let is_pending = |ttl| is_pending(&paths, &config(ttl));
            assert_eq!((is_pending(32), is_pending(16)), (true, *pending == moved));
            assert!(!is_pending(64), "what it returns to");
        }
        record(&paths, None).expect("it can be removed");
        assert_eq!(find(&paths), Found::Nothing);
    }

    #[test]
    fn the_time_is_over_at_the_deadline_and_after_a_reboot() {
        let now = Clock.now();
        let minute = Duration::from_secs(60);
        let waiting = Pending::new(confirmed(64), &config(32), now.saturating_add(minute));
        assert!(!waiting.is_expired_at(now));
        assert_eq!(waiting.deadline().since(now), minute);
        assert!(waiting.is_expired_at(now.saturating_add(minute)));
        let mut before_the_reboot = waiting;
        before_the_reboot.change.boot = "another".to_owned();
        assert!(before_the_reboot.is_expired_at(now));
    }

    #[test]
    fn another_change_inside_the_time_keeps_what_to_return_to() {
        let now = Clock.now();
        let first = Pending::new(confirmed(64), &config(32), now.saturating_add(Duration::from_secs(60)));
        let second = first.followed_by(&config(16), None);
        assert_eq!(second.confirmed, first.confirmed);
        assert_eq!(second.deadline().since(now), Duration::from_secs(60), "the time runs on");
        assert!(second.is_about(&config(32)) && second.is_about(&config(16)));
        assert!(!second.is_about(&config(8)), "a file that was changed since is another");
        let third = second.followed_by(&config(32), Some(now.saturating_add(Duration::from_secs(90))));
        assert_eq!(third.deadline().since(now), Duration::from_secs(90));
    }

    #[test]
    fn a_file_that_is_broken_is_told_from_one_that_is_missing() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let paths = RuntimePaths::below(directory.path(), "a");
        paths.create_state().expect("they can be made");
        let pending = Pending::new(confirmed(64), &config(32), Clock.now());
        let broken = |break_files: &dyn Fn()| {
            record(&paths, Some(&pending)).expect("it can be written");
            break_files();
            assert!(is_overdue(&paths));
            match find(&paths) {
                Found::Unreadable { why, confirmed } => (why, confirmed),
                found => panic!("a broken file was read: {found:?}"),
            }
        };
        let empty = |file: &Path| std::fs::write(file, "").expect("it can be written");
        let (why, found) = broken(&|| empty(&paths.confirmation()));
        assert!(why.contains("confirm.json"), "{why}");
        assert_eq!(found, Some(confirmed(64)));
        let (why, found) = broken(&|| empty(&paths.confirmed()));
        assert!(why.contains("confirmed.json"), "{why}");
        assert_eq!(found, None);
        let (why, found) = broken(&|| std::fs::remove_file(paths.confirmed()).expect("it is there"));
        assert!(why.contains("confirmed.json is missing"), "{why}");
        assert_eq!(found, None);
        let (_, found) = broken(&|| {
            empty(&paths.confirmation());
            empty(&paths.confirmed());
        });
        assert_eq!(found, None);
        // What was to change never began.
        record(&paths, Some(&pending)).expect("it can be written");
        std::fs::remove_file(paths.confirmation()).expect("it is there");
        assert_eq!(find(&paths), Found::Nothing);
    }
}
