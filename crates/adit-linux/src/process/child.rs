//! What a child process inherits: a descriptor, and its parent's end.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Passes a descriptor to the child that `command` starts, under the same number. The caller keeps
/// it open until then.
pub fn pass_descriptor(command: &mut Command, fd: RawFd) {
    // SAFETY: between fork and exec only fcntl(2) is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(fd, libc::F_SETFD, 0) < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        });
    }
}

/// Takes over the descriptor that the parent passed under this number, by [`pass_descriptor`]. Call
/// it once for a number. The children of this process do not inherit it.
///
/// # Errors
/// There is no such descriptor.
pub fn inherited_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without memory of ours.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, as the call has shown, and the parent opened it for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns true if the process `parent` lives and has started this one.
#[must_use]
pub fn is_child_of(parent: i32) -> bool {
    nix::unistd::getppid().as_raw() == parent
}

/// Makes the kernel kill the child that `command` starts (SIGKILL) when the thread that starts it
/// ends, so that no child outlives a test or a lab that is killed.
pub fn end_with_parent(command: &mut Command) {
    let parent = std::process::id().cast_signed();
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, which are
    // async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                return Err(io::Error::last_os_error());
            }
            // If the parent ended before the call, the kernel sends no signal.
            if libc::getppid() != parent { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
        });
    }
}
