//! Processes: what they may do, one at a time by a lock, ending another, passing descriptors on.

pub mod privileges;
mod seccomp;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};

/// A right of `capabilities(7)` that Adit uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capability {
    /// CAP_NET_BIND_SERVICE: listening on ports below 1024.
    NetBindService,
    /// CAP_NET_ADMIN: interfaces, addresses, routes.
    NetAdmin,
    /// CAP_NET_RAW: raw and packet sockets.
    NetRaw,
    /// CAP_SYS_ADMIN: making and entering namespaces.
    SysAdmin,
    /// CAP_PERFMON: programs for the kernel that read packets by pointers.
    Perfmon,
    /// CAP_BPF: maps and programs for the kernel.
    Bpf,
}

impl Capability {
    pub(crate) fn of_caps(self) -> caps::Capability {
        match self {
            Self::NetBindService => caps::Capability::CAP_NET_BIND_SERVICE,
            Self::NetAdmin => caps::Capability::CAP_NET_ADMIN,
            Self::NetRaw => caps::Capability::CAP_NET_RAW,
            Self::SysAdmin => caps::Capability::CAP_SYS_ADMIN,
            Self::Perfmon => caps::Capability::CAP_PERFMON,
            Self::Bpf => caps::Capability::CAP_BPF,
        }
    }
}

/// Whether the calling thread has `capability` in effect, in the user namespace it is in.
#[must_use]
pub fn has_capability(capability: Capability) -> bool {
    caps::has_cap(None, caps::CapSet::Effective, capability.of_caps()).unwrap_or(false)
}

/// A file that one process at a time holds, and that says which. Given up when dropped, and by the
/// kernel when the process ends, however it does. The file stays.
#[derive(Debug)]
pub struct LockFile(Flock<File>);

/// Why a lock could not be had.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held {
        /// That process.
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

/// A holder writes who it is right after it has locked, and one that was killed lets go as soon as the kernel has
/// cleared up after it; this is far longer than either takes.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// Neither locks nor what is in a file can be waited for without being asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl LockFile {
    /// Takes the lock, making the file where there is none. A file that its last holder has removed
    /// meanwhile is nobody's lock any more, and is not taken for one.
    ///
    /// # Errors
    /// [`LockError::Held`], with a process that is alive and holds it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let failed = |error| Error::new(format!("cannot use the lock file {}", path.display()), error);
        let open = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o644).open(path).map_err(failed)
        };
        let mut file = open()?;
        let deadline = Instant::now() + INTRODUCTION;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) if is_at(&locked, path) => {
                    return Self::introduce(locked).map_err(|error| failed(error).into());
                }
                Ok(_) => open()?,
                Err((file, nix::Error::EWOULDBLOCK)) => file,
                Err((_, errno)) => return Err(failed(errno.into()).into()),
            };
            // What is written may be a dead holder's, until the present one has written.
            if let Some(pid) = holder(&mut file).map_err(failed)? {
                return Err(LockError::Held { pid });
            }
            if Instant::now() >= deadline {
                let silent = io::Error::from(io::ErrorKind::WouldBlock);
                return Err(failed(silent)
                    .with_hint("a process holds it that does not say who it is: `lslocks` shows it")
                    .into());
            }
            thread::sleep(ASK_AGAIN);
        }
    }

    /// Takes the lock, waiting for at most `patience` for whoever holds it.
    ///
    /// # Errors
    /// As for [`Self::acquire`].
    pub fn acquire_within(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::acquire(path) {
                Err(LockError::Held { .. }) if Instant::now() < deadline => thread::sleep(ASK_AGAIN),
                result => return result,
            }
        }
    }

    /// Writes who we are: process and, against a number that is used again, when it started.
    fn introduce(mut file: Flock<File>) -> io::Result<Self> {
        let pid = std::process::id().cast_signed();
        let text = format!("{pid} {}\n", started(pid).unwrap_or_default());
        file.set_len(0)?;
        file.rewind()?;
        file.write_all(text.as_bytes())?;
        Ok(Self(file))
    }
}

/// Whether the path still leads to this very file.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), fs::metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // So that nobody takes us for the next holder. A failure costs that one a moment.
        let _ = self.0.set_len(0);
    }
}

/// Who wrote the file, if that is a process that is still alive, and not on its way out.
fn holder(file: &mut File) -> io::Result<Option<i32>> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(pid)), Some(Ok(start))) = (words.next(), words.next()) else { return Ok(None) };
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    Ok(pid.filter(|&pid| started(pid) == Some(start) && !is_ending(pid)))
}

/// When a process started, in clock ticks since the system did.
fn started(pid: i32) -> Option<u64> {
    stat(pid, 22)?.parse().ok()
}

/// Whether a process runs no more: it may hold files and locks for a moment.
fn is_ending(pid: i32) -> bool {
    // linux/sched.h
    const PF_EXITING: u32 = 0x4;
    let flags = stat(pid, 9).and_then(|flags| flags.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & PF_EXITING != 0)
}

/// A field of `/proc/PID/stat` from the third on, by its number in proc(5).
fn stat(pid: i32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second, a name in parentheses, may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(field - 3).map(str::to_owned)
}

/// Asks a process to end (SIGTERM), and ends it (SIGKILL) when it has not after `patience`.
/// Returns when it has ended, at once when there is no such process.
///
/// # Errors
/// It is not ours to end.
pub fn end(pid: i32, patience: Duration) -> Result<()> {
    let failed = |error| Error::new(format!("cannot end process {pid}"), error);
    if pid <= 0 {
        // Zero and below mean groups of processes.
        return Err(failed(io::Error::from_raw_os_error(libc::EINVAL)));
    }
    // A descriptor stays with this process, whatever its number is used for later.
    // SAFETY: a plain system call without memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(failed(error)) };
    }
    // SAFETY: `fd` was just returned by the kernel and belongs to nobody else.
    let process = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    for (signal, patience) in [(libc::SIGTERM, Some(patience)), (libc::SIGKILL, None)] {
        // SAFETY: a plain system call; a null `siginfo` stands for that of kill(2).
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                process.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(failed(error)) };
        }
        if wait(&process, patience).map_err(failed)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Waits until the descriptor can be read; `false` when it could not in time.
pub(crate) fn wait(source: &impl AsFd, patience: Option<Duration>) -> io::Result<bool> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    loop {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                PollTimeout::try_from(left.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut [PollFd::new(source.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if deadline.is_none_or(|deadline| Instant::now() < deadline) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Lets the child that `command` starts have the descriptor, under the same number. It must stay
/// open until then.
pub fn pass_descriptor(command: &mut Command, fd: RawFd) {
    // SAFETY: between fork and exec only fcntl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Has the kernel send SIGKILL to the child that `command` starts when the thread that starts it
/// ends, so that nothing outlives a test or a lab that is killed.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are
    // async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            // It may have ended before the call, and then nobody would be told.
            if libc::getppid() != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        });
    }
}
