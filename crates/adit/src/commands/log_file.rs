//! The log of a daemon in the background: a file of bounded size behind standard error, so that it
//! has whatever the process says, panics included.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use adit_control::state::paths::old_log;
use adit_linux::process::privileges::is_confined;
use adit_linux::process::{redirect_stderr, stderr_size_at};
use tracing_subscriber::fmt::MakeWriter;

/// A log that is longer is moved aside, and replaces the one that was moved aside before.
const SIZE_LIMIT: u64 = 1 << 20;

/// Opens a log to read it and to append to it.
///
/// # Errors
/// It cannot be opened or made, or is not ours.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    // It may be an earlier version's.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Logs to standard error at level INFO, behind which `log` is, if there is one. `RUST_LOG` is not
/// read: its filters name Rust modules, which are not part of the interface.
pub(crate) fn log_to_stderr(log: Option<PathBuf>) {
    let _ = tracing_subscriber::fmt()
        .with_writer(LogWriter { path: log })
        .with_target(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .try_init();
}

/// Standard error, behind which the file at `path` is kept.
#[derive(Clone)]
struct LogWriter {
    path: Option<PathBuf>,
}

impl LogWriter {
    /// Begins a new file if this one is too long, or has been moved away by others: they send
    /// SIGHUP then, which is logged. If that fails, the log goes on where it was.
    fn keep(&self) {
        let Some(path) = self.path.as_deref().filter(|_| !is_confined()) else { return };
        let size = stderr_size_at(path);
        if size.is_some_and(|size| size < SIZE_LIMIT) {
            return;
        }
        if size.is_some() {
            let _ = fs::rename(path, old_log(path));
        }
        if let Ok(file) = open(path) {
            let _ = redirect_stderr(&file);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.keep();
        // A disk that is full must not make the logger complain, which panics.
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
