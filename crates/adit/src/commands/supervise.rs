//! `adit supervise`: the process that `adit up` leaves in the background. It runs the daemon, and
//! runs it again when it ends by itself, as the service manager does for the unit.
//!
//! It has one thread and sleeps until the daemon ends. A daemon outlives it: whoever kills the
//! supervisor has a daemon that is not started again.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use adit_control::state::paths::RuntimePaths;
use adit_linux::process::{self, LockError, LockFile, inherited_descriptor, pass_descriptor};

use crate::Failure;
use crate::commands::log_file;
use crate::commands::run::BAD_CONFIGURATION;

/// Before the first new start. It doubles with each daemon that ends soon.
const FIRST_DELAY: Duration = Duration::from_secs(2);
/// The longest time before a new start.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// A daemon that has run for so long has not ended soon.
const SOON: Duration = Duration::from_secs(60);
/// How long another supervisor may take to end.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The variable of the environment with the path of the file. It is no argument, so that whoever
/// looks for the daemon by the file's name finds the daemon alone.
pub(crate) const FILE: &str = "ADIT_SUPERVISED_FILE";

pub(crate) fn supervise(name: &str, ready_fd: i32, netns: Option<&str>) -> Result<ExitCode, Failure> {
    let file = std::env::var_os(FILE).map(PathBuf::from).ok_or_else(|| format!("{FILE} is not set"))?;
    let mut ready = Some(File::from(inherited_descriptor(ready_fd)?));
    let paths = RuntimePaths::of(name);
    log_file::log_to_stderr(Some(paths.log()));
    let lock = replace_supervisor(&paths)?;
    // Its path: after an upgrade the new program runs.
    let daemon = DaemonCommand { program: std::env::current_exe()?, file, netns, log: paths.log() };
    let ended = daemon.run_again_and_again(&mut ready, &paths.lock());
    if let Some(lock) = lock {
        lock.remove(&paths.supervisor_lock());
    }
    // Whoever waits for it goes on: nothing of a start that failed is left.
    drop(ready);
    Ok(exit_code(ended?))
}

/// Ends the supervisor of an overlay. Its daemon runs on.
///
/// # Errors
/// It cannot be ended.
pub(crate) fn end(paths: &RuntimePaths) -> Result<(), Failure> {
    if let Some(pid) = LockFile::holder(&paths.supervisor_lock()) {
        process::end(pid, TERMINATION_TIMEOUT)?;
    }
    Ok(())
}

/// Takes the place of a supervisor that waits to start its daemon again. `None`: there is one whose
/// daemon runs. A daemon that is started then says so, and ends.
fn replace_supervisor(paths: &RuntimePaths) -> Result<Option<LockFile>, Failure> {
    match LockFile::acquire(&paths.supervisor_lock()) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Held { .. }) if LockFile::holder(&paths.lock()).is_some() => Ok(None),
        Err(LockError::Held { .. }) => {
            end(paths)?;
            Ok(Some(LockFile::acquire_within(&paths.supervisor_lock(), TERMINATION_TIMEOUT)?))
        }
        Err(error) => Err(error.into()),
    }
}

/// How the daemon is started.
struct DaemonCommand<'a> {
    program: PathBuf,
    file: PathBuf,
    netns: Option<&'a str>,
    log: PathBuf,
}

impl DaemonCommand<'_> {
    /// Runs it until it has ended for good, or another process holds its lock. The first that is
    /// ready is written to `ready`, which is closed. Returns how the last one ended.
    fn run_again_and_again(&self, ready: &mut Option<File>, lock: &Path) -> io::Result<ExitStatus> {
        let mut restarts = Restarts::default();
        loop {
            let started = Instant::now();
            let (mut child, reader) = match self.start() {
                // A machine that is short of something at this moment may have it later.
                Err(error) if restarts.has_been_ready => {
                    tracing::error!(%error, "the daemon cannot be started, and is tried again");
                    std::thread::sleep(LONGEST_DELAY);
                    continue;
                }
                started => started?,
            };
            let is_ready = says_ready(reader);
            if let Some(mut ready) = ready.take_if(|_| is_ready) {
                // Nobody waits if `adit up` was killed.
                let _ = writeln!(ready, "ready {}", child.id());
            }
            let status = child.wait()?;
            let Some(delay) = restarts.after(status.code(), is_ready, started.elapsed()) else {
                return Ok(status);
            };
            tracing::error!(%status, process = child.id(), "the daemon has ended, and is started again in {delay:?}");
            std::thread::sleep(delay);
            if let Some(pid) = LockFile::holder(lock) {
                tracing::info!("process {pid} serves the overlay now: nothing is left to supervise");
                return Ok(status);
            }
        }
    }

    /// Starts it. What it says of itself comes out of the pipe.
    fn start(&self) -> io::Result<(Child, PipeReader)> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(&self.program);
        command.arg("run").arg(&self.file).env_remove(FILE);
        // It is in the namespace already. It records the name for `adit down`.
        if let Some(netns) = self.netns {
            command.arg("--netns").arg(netns);
        }
        command.arg("--log").arg(&self.log);
        command.arg("--supervisor").arg(std::process::id().to_string());
        pass_descriptor(&mut command, writer.as_raw_fd());
        command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        Ok((child, reader))
    }
}

/// Waits until the daemon is ready (true) or has ended (false).
fn says_ready(mut reader: PipeReader) -> bool {
    let mut text = String::new();
    reader.read_to_string(&mut text).is_ok() && text == "ready\n"
}

/// When a daemon that has ended is started again.
#[derive(Debug, Default)]
struct Restarts {
    /// A daemon was ready once.
    has_been_ready: bool,
    /// How many ended soon, one after another.
    soon: u32,
}

impl Restarts {
    /// When to start it again, after one has ended with `code` (`None`: by a signal) that ran for
    /// `ran`. `None`: not at all, because it was asked to end, or because it would end so again.
    fn after(&mut self, code: Option<i32>, is_ready: bool, ran: Duration) -> Option<Duration> {
        self.has_been_ready |= is_ready;
        // `adit up` reports a first start that fails.
        if !self.has_been_ready || code == Some(0) || code == Some(i32::from(BAD_CONFIGURATION)) {
            return None;
        }
        if is_ready && ran >= SOON {
            self.soon = 0;
        }
        let delay = FIRST_DELAY.saturating_mul(1 << self.soon.min(5)).min(LONGEST_DELAY);
        self.soon = self.soon.saturating_add(1);
        Some(delay)
    }
}

/// The exit code of a process, as a shell tells it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);

    #[test]
    fn a_daemon_that_keeps_ending_is_started_less_and_less_often() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.after(None, true, MOMENT), Some(FIRST_DELAY));
        let later: Vec<_> = (0..7)
            .filter_map(|_| restarts.after(Some(1), false, MOMENT))
            .map(|delay| delay.as_secs())
            .collect();
        assert_eq!(later, [4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(restarts.after(Some(101), true, SOON), Some(FIRST_DELAY), "it has run for long");
    }

    #[test]
    fn what_was_asked_to_end_or_cannot_start_is_not_started_again() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.after(Some(1), false, MOMENT), None, "the first start has failed");
        assert_eq!(restarts.after(None, false, MOMENT), None, "the first start was killed");
        assert_eq!(restarts.after(Some(0), true, MOMENT), None, "it was asked to end");
        assert_eq!(restarts.after(Some(i32::from(BAD_CONFIGURATION)), false, MOMENT), None);
        assert!(restarts.after(Some(1), false, MOMENT).is_some(), "it was ready once");
    }
}
