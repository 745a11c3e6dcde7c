//! The files of an overlay: its socket, lock, log, run record, and state.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ControlError;

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
}

impl RuntimePaths {
    /// Those of the site `name`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), run: PathBuf::from(RUN), state: PathBuf::from(STATE) }
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

    /// The log of a daemon in the background.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.run.join(format!("{}.log", self.name))
    }

    fn run_record_file(&self) -> PathBuf {
        self.state.join(&self.name).join("run.json")
    }

    /// The change that waits to be confirmed.
    #[must_use]
    pub fn confirmation(&self) -> PathBuf {
        self.state.join(&self.name).join("confirm.json")
    }

    /// What was learned about the paths to the peers.
    #[must_use]
    pub fn path_cache(&self) -> PathBuf {
        self.state.join(&self.name).join("paths.json")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// Fails if one cannot be made.
    pub fn create(&self) -> Result<(), ControlError> {
        for directory in [self.run.clone(), self.state.join(&self.name)] {
            // Whatever the umask is, only the owner may put another socket there.
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&directory)
                .map_err(|error| ControlError::file("make the directory", directory, error))?;
        }
        Ok(())
    }

    /// Writes the run record atomically.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write_run_record(&self, record: &RunRecord) -> Result<(), ControlError> {
        write_whole(&self.run_record_file(), &serde_json::to_string(record).unwrap_or_default())
    }

    /// The run record of the last daemon; `None` if there is none that can be read.
    #[must_use]
    pub fn read_run_record(&self) -> Option<RunRecord> {
        serde_json::from_str(&std::fs::read_to_string(self.run_record_file()).ok()?).ok()
    }

    /// Removes every file of the overlay.
    ///
    /// # Errors
    /// Fails if a file is there and cannot be removed.
    pub fn remove(&self) -> Result<(), ControlError> {
        self.remove_socket()?;
        for file in [self.log(), self.lock()] {
            gone(&file, std::fs::remove_file(&file))?;
        }
        let state = self.state.join(&self.name);
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

/// The identifier of this boot. Times of the boot clock are valid only within one boot.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Writes a file atomically.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<(), ControlError> {
    let fresh = file.with_extension("json.new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, file))
        .map_err(|error| ControlError::file("write", file, error))
}

/// Turns the error of a removal into ours; a file that was not there is none.
fn gone(path: &Path, removed: std::io::Result<()>) -> Result<(), ControlError> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(ControlError::file("remove", path, error))
        }
        _ => Ok(()),
    }
}

/// The names of all overlays that have a socket.
#[must_use]
pub fn running() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(RUN)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.extension()? == "sock").then(|| path.file_stem()?.to_str().map(str::to_owned))?
        })
        .collect();
    names.sort();
    names
}
