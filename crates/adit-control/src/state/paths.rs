//! The files of an overlay: its socket, lock, log, run record, and state.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::durable_file;

const RUN: &str = "/run/adit";
const STATE: &str = "/var/lib/adit";

/// The paths of one overlay's files.
#[derive(Clone, Debug)]
pub struct RuntimePaths {
    name: String,
    run: PathBuf,
    state: PathBuf,
}

/// A record of where a daemon makes its objects, with which `adit down` finds them when the daemon
/// is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The name of the daemon's network namespace, if that has one and is not the machine's own.
    pub netns: Option<String>,
    /// The tunnel interface.
    pub device: String,
    /// The network namespace of the tunnel interface, if the configuration names one.
    #[serde(default)]
    pub inside: Option<String>,
    /// The file that the daemon was started with.
    #[serde(default)]
    pub file: Option<PathBuf>,
}

impl RuntimePaths {
    /// Those of the site `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), run: PathBuf::from(RUN), state: PathBuf::from(STATE) }
    }

    /// Those of the site `name` in a test.
    #[cfg(test)]
    pub(crate) fn below(directory: &Path, name: &str) -> Self {
        Self { name: name.to_owned(), run: directory.join("run"), state: directory.join("lib") }
    }

    /// The site's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join(format!("{}.sock", self.name))
    }

    /// The lock that the daemon holds as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join(format!("{}.lock", self.name))
    }

    /// The lock of the process that starts a daemon in the background again.
    #[must_use]
    pub fn supervisor_lock(&self) -> PathBuf {
        self.run.join(format!("{}.supervisor.lock", self.name))
    }

    /// The log of a daemon in the background.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run.join(format!("{}.log", self.name))
    }

    /// What that log was before it became too long.
    #[must_use]
    pub fn old_log(&self) -> PathBuf {
        old_log(&self.log())
    }

    /// The directory of the files that outlive the daemon.
    pub(crate) fn state(&self) -> PathBuf {
        self.state.join(&self.name)
    }

    fn run_record_file(&self) -> PathBuf {
        self.state().join("run.json")
    }

    /// The change that waits to be confirmed.
    pub(crate) fn confirmation(&self) -> PathBuf {
        self.state().join("confirm.json")
    }

    /// What that change returns to.
    pub(crate) fn confirmed(&self) -> PathBuf {
        self.state().join("confirmed.json")
    }

    /// What was learned about the paths to the peers.
    #[must_use]
    pub fn path_cache(&self) -> PathBuf {
        self.state().join("paths.json")
    }

    /// Makes the directory of the socket and the lock, without which no daemon can run.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub fn create_run(&self) -> Result<(), ControlError> {
        create(&self.run)
    }

    /// Makes the directory of the files that outlive the daemon.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub(crate) fn create_state(&self) -> Result<(), ControlError> {
        create(&self.state())
    }

    /// Writes the run record, unless the file says the same already.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(crate) fn write_run_record(&self, record: &RunRecord) -> Result<(), ControlError> {
        if self.read_run_record().as_ref() == Some(record) {
            return Ok(());
        }
        let text = serde_json::to_string(record).unwrap_or_default();
        self.create_state().and_then(|()| durable_file::write(&self.run_record_file(), &text))
    }

    /// The run record of the last daemon; `None` if there is none that can be read.
    #[must_use]
    pub fn read_run_record(&self) -> Option<RunRecord> {
        serde_json::from_str(&std::fs::read_to_string(self.run_record_file()).ok()?).ok()
    }

    /// Returns true if the overlay has run on this machine and was not taken down since.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.state().exists()
    }

    /// Removes every file of the overlay.
    ///
    /// # Errors
    /// Fails if a file is there and cannot be removed.
    pub fn remove(&self) -> Result<(), ControlError> {
        self.remove_socket()?;
        for file in [self.log(), self.old_log(), self.supervisor_lock(), self.lock()] {
            gone(&file, std::fs::remove_file(&file))?;
        }
        let state = self.state();
        gone(&state, std::fs::remove_dir_all(&state))
    }

    /// Removes only the socket; the other files are about kernel objects that stay.
    ///
    /// # Errors
    /// Fails if it is there and cannot be removed.
    pub fn remove_socket(&self) -> Result<(), ControlError> {
        let socket = self.socket();
        gone(&socket, std::fs::remove_file(&socket))
    }
}

/// Where a log is moved to when it has become too long.
#[must_use]
pub fn old_log(log: &Path) -> PathBuf {
    log.with_added_extension("old")
}

/// The identifier of this boot. Times of the boot clock are valid only within one boot.
///
/// It is read once: a daemon that has no descriptor left must not take this boot for another one.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    match BOOT.get() {
        Some(boot) => boot,
        None => read().map_or("", |boot| BOOT.get_or_init(|| boot.trim().to_owned())),
    }
}

/// Makes a directory. Whatever the umask is, only the owner may put another file there.
fn create(directory: &Path) -> Result<(), ControlError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(|error| ControlError::file("make the directory", directory, error))
}

/// Turns the error of a removal into ours; a file that was not there is none.
fn gone(path: &Path, removed: std::io::Result<()>) -> Result<(), ControlError> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(ControlError::file("remove", path, error)),
        _ => Ok(()),
    }
}

/// The names of all overlays that have a socket.
#[must_use]
pub fn running() -> Vec<String> {
    let is_socket = |path: &Path| path.extension().is_some_and(|extension| extension == "sock");
    names_in(RUN, is_socket)
}

/// The names of all overlays that have run on this machine and were not taken down since, whether
/// or not a daemon serves them.
#[must_use]
pub fn known() -> Vec<String> {
    let mut names = running();
    names.extend(names_in(STATE, Path::is_dir));
    names.sort();
    names.dedup();
    names
}

fn names_in(directory: &str, is_meant: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_meant(path));
    let mut names: Vec<String> =
        paths.filter_map(|path| path.file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    names
}
