//! What a start runs: the file, or what ran before it if the file was not confirmed in time.

use std::path::{Path, PathBuf};

use adit_config::Config;
use adit_tunnel::Instant;

use crate::state::confirmation::{self, Confirmed, Found, Pending};
use crate::state::paths::RuntimePaths;
use crate::state::warning::{Warning, WarningName};

/// What is to run.
pub(crate) struct Chosen {
    pub(crate) config: Config,
    /// The file that it came from.
    pub(crate) file: PathBuf,
    /// The change that waits to be confirmed.
    pub(crate) pending: Option<Pending>,
    /// Why it is not what the file says.
    pub(crate) warning: Option<Warning>,
}

/// Chooses what runs: what `file` says, unless that was applied and not confirmed in time.
///
/// What the disk says of a change is brought up to date. If that fails, the next start finds what
/// this one has found.
pub(crate) fn choose(config: &Config, file: &Path, paths: &RuntimePaths, now: Instant) -> Chosen {
    let record = |pending: Option<&Pending>| {
        if let Err(error) = confirmation::record(paths, pending) {
            tracing::warn!(%error, "the record of unconfirmed changes is not up to date");
        }
    };
    let as_the_file_says =
        || Chosen { config: config.clone(), file: file.to_owned(), pending: None, warning: None };
    let instead = |confirmed: Confirmed, what: String| {
        let about = file.display().to_string();
        let warning = Some(Warning { name: WarningName::RolledBack, about, what });
        Chosen { config: confirmed.config, file: confirmed.file, pending: None, warning }
    };
    match confirmation::find(paths) {
        Found::Nothing => as_the_file_says(),
        Found::Pending(Pending { confirmed, .. }) | Found::Unreadable { confirmed: Some(confirmed), .. }
            if confirmed.config == *config =>
        {
            record(None);
            as_the_file_says()
        }
        Found::Pending(pending) if !pending.is_expired_at(now) => {
            let pending = pending.followed_by(config, None);
            record(Some(&pending));
            Chosen { pending: Some(pending), ..as_the_file_says() }
        }
        Found::Pending(pending) if pending.is_about(config) => {
            let what = rolled_back(file, &pending.confirmed.file);
            instead(pending.confirmed, what)
        }
        // It was changed since.
        Found::Pending(_) => {
            record(None);
            as_the_file_says()
        }
        Found::Unreadable { why, confirmed: Some(confirmed) } => {
            let what = format!(
                "a change may wait to be confirmed, but its record cannot be read ({why}), so the configuration \
                 that was confirmed last runs, which came from {}; apply a file to run another",
                confirmed.file.display()
            );
            // The next start then knows a file that was changed since.
            record(Some(&Pending::new(confirmed.clone(), config, now)));
            instead(confirmed, what)
        }
        Found::Unreadable { why, confirmed: None } => {
            let what = format!(
                "a change may wait to be confirmed, but its record cannot be read ({why}), nor what ran before it, \
                 so {} runs; apply the file that shall run",
                file.display()
            );
            let about = file.display().to_string();
            let warning = Some(Warning { name: WarningName::RollbackFails, about, what });
            Chosen { warning, ..as_the_file_says() }
        }
    }
}

/// Says that a change was not confirmed.
pub(crate) fn rolled_back(unconfirmed: &Path, confirmed: &Path) -> String {
    format!(
        "{} was applied and not confirmed in time, so the configuration before it runs, which came from {}; \
         apply a file to run another",
        unconfirmed.display(),
        confirmed.display()
    )
}
