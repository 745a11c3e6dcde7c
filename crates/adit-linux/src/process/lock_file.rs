//! A lock file: held by one process at a time, and names that process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

/// A lock that this process holds. It is released when dropped, and by the kernel however the
/// process ends. The file stays.
#[derive(Debug)]
pub struct LockFile(Flock<File>);

/// Why the lock was not acquired.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held {
        /// The process.
        pid: i32,
    },
    /// The file cannot be used.
    Failed(Error),
}

impl std::fmt::Display for LockError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held { pid } => write!(formatter, "process {pid} holds the lock"),
            Self::Failed(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for LockError {}

impl From<Error> for LockError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// How long a lock may be held without a holder that is alive in the file. A holder writes itself
/// into the file right after it has locked it, and the kernel releases the lock of a killed
/// process; both take far less than this.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two attempts. Nothing announces a released lock or a changed file.
const RETRY_INTERVAL: Duration = Duration::from_millis(5);

impl LockFile {
    /// Acquires the lock, and creates the file if it does not exist. A file that its holder has
    /// removed in the meantime is not a lock any more; another file is then created.
    ///
    /// # Errors
    /// A process that is alive holds the lock ([`LockError::Held`]), or the file cannot be created,
    /// locked, read or written.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |error| Error::new(format!("cannot use the lock file {}", path.display()), error);
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.open(path).map_err(failed)?;
            // Whoever may open it may lock it. It may be an earlier version's.
            file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
            Ok::<_, Error>(file)
        };
        let mut file = open()?;
        let deadline = Instant::now() + HOLDER_TIMEOUT;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) if is_at(&locked, path) => {
                    return Self::write_holder(locked).map_err(|error| failed(error).into());
                }
                Ok(_) => open()?,
                Err((file, nix::Error::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(failed(errno.into()).into()),
            };
            // Until the present holder has written itself, the file names an earlier one.
            if let Some(pid) = holder(&mut file).map_err(failed)? {
                return Err(LockError::Held { pid });
            }
            if Instant::now() >= deadline {
                let held = io::Error::from(io::ErrorKind::WouldBlock);
                return Err(failed(held)
                    .with_hint("a process that is not named in the file holds it: `lslocks` shows it")
                    .into());
            }
            thread::sleep(RETRY_INTERVAL);
        }
    }

    /// The process that holds the lock at `path`, if one does. Nothing is locked by the question.
    #[must_use]
    pub fn holder(path: &Path) -> Option<i32> {
        holder(&mut File::open(path).ok()?).ok()?
    }

    /// Releases the lock and removes its file at `path`, unless another one is there by now.
    pub fn remove(self, path: &Path) {
        if is_at(&self.0, path) {
            // If this fails, an empty file stays, which means nothing.
            let _ = fs::remove_file(path);
        }
    }

    /// Acquires the lock. Waits at most `timeout` for its holder to release it.
    ///
    /// # Errors
    /// As [`Self::acquire`].
    pub fn acquire_within(path: &Path, timeout: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + timeout;
        loop {
            match Self::acquire(path) {
                Err(LockError::Held { .. }) if Instant::now() < deadline => thread::sleep(RETRY_INTERVAL),
                result => return result,
            }
        }
    }

    /// Writes this process into the file, and when it started, since its number may be reused.
    fn write_holder(mut file: Flock<File>) -> io::Result<Self> {
        let pid = std::process::id().cast_signed();
        let text = format!("{pid} {}\n", started(pid).unwrap_or_default());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        Ok(Self(file))
    }
}

/// Returns true if the path still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // The next holder must not be mistaken for this process. If this fails, others wait until
        // the next holder has written itself.
        let _ = self.0.set_len(0);
    }
}

/// Returns the process named in the file, if it is alive and not exiting.
fn holder(file: &mut File) -> io::Result<Option<i32>> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (words.next(), words.next()) else { return Ok(None) };
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    Ok(pid.filter(|&pid| started(pid) == Some(start) && !is_ending(pid)))
}

/// Returns when a process started, in clock ticks since boot.
fn started(pid: i32) -> Option<u64> {
    stat(pid, 22)?.parse().ok()
}

/// Returns true if a process has ended or is exiting. While it exits it may still hold locks.
fn is_ending(pid: i32) -> bool {
    // linux/sched.h
    const PF_EXITING: u32 = 0x4;
    let flags = stat(pid, 9).and_then(|flags| flags.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// Returns a field of `/proc/PID/stat` by its number in proc(5), which is at least 3.
fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may contain any characters.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field - 3).map(str::to_owned)
}
