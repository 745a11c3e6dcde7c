//! Standard error of this process: the file behind it.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Lets standard error lead to `file`, for every thread.
///
/// # Errors
/// The kernel refuses.
pub fn redirect_stderr(file: &File) -> io::Result<()> {
    Ok(nix::unistd::dup2_stderr(file)?)
}

/// The size in bytes of the file behind standard error, if that is the file at `path` still.
#[must_use]
pub fn stderr_size_at(path: &Path) -> Option<u64> {
    let ours = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    let theirs = fs::metadata(path).ok()?;
    ((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())).then_some(ours.len())
}
