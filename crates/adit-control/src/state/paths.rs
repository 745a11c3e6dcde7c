//! Where a running overlay keeps what: socket, lock, notes about what it made.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ControlError;

const RUN: &str = "/run/adit";
const STATE: &str = "/var/lib/adit";

/// The paths of one overlay.
#[derive(Clone, Debug)]
pub struct RuntimePaths {
    name: String,
    run: PathBuf,
    state: PathBuf,
}

/// What a daemon notes down, so that `adit down` finds what it made even after its death.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The network namespace by name, if it has one and is not the machine's own.
    pub netns: Option<String>,
    /// The tunnel's interface.
    pub device: String,
    /// The network namespace that it is in, if the file names one.
    #[serde(default)]
    pub inside: Option<String>,
}

impl RuntimePaths {
    /// Where the contract puts them.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::under(name, Path::new(RUN), Path::new(STATE))
    }

    /// The same below other directories, for tests.
    #[must_use]
    pub fn under(name: &str, run: &Path, state: &Path) -> Self {
        Self { name: name.to_owned(), run: run.to_owned(), state: state.to_owned() }
    }

    /// The site's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the daemon answers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run.join(format!("{}.sock", self.name))
    }

    /// What the daemon holds as long as it lives.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.run.join(format!("{}.lock", self.name))
    }

    /// What a daemon in the background says.
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

    /// What was learned of the paths to the peers.
    #[must_use]
    pub fn path_cache(&self) -> PathBuf {
        self.state.join(&self.name).join("paths.json")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn create(&self) -> Result<(), ControlError> {
        for directory in [self.run.clone(), self.state.join(&self.name)] {
            // Nobody but the owner may put another socket in its place, whatever the umask allows.
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&directory)
                .map_err(|error| ControlError::file("make the directory", directory, error))?;
        }
        Ok(())
    }

    /// Writes the notes, whole or not at all.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn write_run_record(&self, notes: &RunRecord) -> Result<(), ControlError> {
        write_whole(&self.run_record_file(), &serde_json::to_string(notes).unwrap_or_default())
    }

    /// The notes of the last daemon, if it left any that can be read.
    #[must_use]
    pub fn read_run_record(&self) -> Option<RunRecord> {
        serde_json::from_str(&std::fs::read_to_string(self.run_record_file()).ok()?).ok()
    }

    /// Removes every file of the overlay; what is not there is no mistake.
    ///
    /// # Errors
    /// A file is there and cannot be removed.
    pub fn remove(&self) -> Result<(), ControlError> {
        self.remove_socket()?;
        for file in [self.log(), self.lock()] {
            gone(&file, std::fs::remove_file(&file))?;
        }
        let state = self.state.join(&self.name);
        gone(&state, std::fs::remove_dir_all(&state))
    }

    /// Removes the socket alone: the rest is about what stays.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove_socket(&self) -> Result<(), ControlError> {
        let socket = self.socket();
        gone(&socket, std::fs::remove_file(&socket))
    }
}

/// Names this boot of the machine: what a file says in times of its clock is of no use in another.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Writes a file, whole or not at all.
pub(crate) fn write_whole(file: &Path, text: &str) -> Result<(), ControlError> {
    let fresh = file.with_extension("json.new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, file))
        .map_err(|error| ControlError::file("write", file, error))
}

/// What was not there to be removed is gone as well.
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
