//! Files of state that survive a crash at any moment: after it, a file has its old content or its
//! new content.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::error::ControlError;

/// Replaces a file. When this returns, the new content is on the disk. Only the owner may read it.
///
/// # Errors
/// Fails if the file cannot be written; the old content is still there.
pub(crate) fn write(file: &Path, text: &str) -> Result<(), ControlError> {
    let fresh = file.with_extension("new");
    let written = write_new(&fresh, text).and_then(|()| {
        step()?;
        std::fs::rename(&fresh, file)
    });
    if written.is_err() {
        let _ = step().and_then(|()| std::fs::remove_file(&fresh));
    }
    written.and_then(|()| sync_directory_of(file)).map_err(|error| ControlError::file("write", file, error))
}

/// Removes a file. Returns whether there was one.
///
/// # Errors
/// Fails if it is there and cannot be removed.
pub(crate) fn remove(file: &Path) -> Result<bool, ControlError> {
    // A read-only file system refuses the removal of a file that is not there too.
    let removed = match file.symlink_metadata() {
        Ok(_) => step().and_then(|()| std::fs::remove_file(file)).and_then(|()| sync_directory_of(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => Err(error),
    };
    removed.map(|()| true).map_err(|error| ControlError::file("remove", file, error))
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    step()?;
    let mut fresh = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    step()?;
    fresh.write_all(text.as_bytes())?;
    step()?;
    fresh.sync_all()
}

/// A rename or a removal is on the disk once its directory is.
fn sync_directory_of(file: &Path) -> io::Result<()> {
    step()?;
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Is called before each system call that changes something.
#[cfg(not(test))]
#[inline]
#[allow(clippy::unnecessary_wraps, reason = "a test lets it fail")]
const fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
use faults::step;

/// Faults of the disk, for tests.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::Cell;
    use std::io;

    /// What happens at one system call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// It fails with this errno. Later calls succeed.
        Fails(i32),
        /// It and all later calls fail, as if the file system had become read-only.
        FailsFromNowOn(i32),
        /// The process is killed: it and all later calls do nothing.
        Kills,
    }

    thread_local! {
        static FAULT: Cell<Option<(usize, Fault)>> = const { Cell::new(None) };
        static HAS_STRUCK: Cell<bool> = const { Cell::new(false) };
    }

    /// Lets the fault strike at the n-th call of this thread, from 1 on.
    pub(crate) fn strike_at(call: usize, fault: Fault) {
        FAULT.set(Some((call, fault)));
        HAS_STRUCK.set(false);
    }

    /// Ends the fault. Returns true if it has struck.
    pub(crate) fn stop() -> bool {
        FAULT.set(None);
        HAS_STRUCK.get()
    }

    /// Returns true if the process has been killed.
    pub(crate) fn is_killed() -> bool {
        HAS_STRUCK.get() && matches!(FAULT.get(), Some((_, Fault::Kills)))
    }

    pub(super) fn step() -> io::Result<()> {
        let Some((left, fault)) = FAULT.get() else { return Ok(()) };
        let is_last = left <= 1;
        if !is_last {
            FAULT.set(Some((left - 1, fault)));
            return Ok(());
        }
        let has_struck = HAS_STRUCK.replace(true);
        match fault {
            Fault::Fails(_) if has_struck => Ok(()),
            Fault::Fails(errno) | Fault::FailsFromNowOn(errno) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Kills => Err(io::Error::other("the process is dead")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_removed() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("state.json");
        for text in ["first", "second"] {
            write(&file, text).expect("it can be written");
            assert_eq!(std::fs::read_to_string(&file).expect("it is there"), text);
        }
        assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).expect("it is there").count(), 1);
        assert!(remove(&file).expect("it can be removed"));
        assert!(!remove(&file).expect("nothing is there"));
    }

    #[test]
    fn a_file_that_cannot_be_replaced_keeps_its_content() {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let file = directory.path().join("state.json");
        write(&file, "first").expect("it can be written");
        // Nothing can be written where a directory is.
        std::fs::create_dir(file.with_extension("new")).expect("it can be made");
        let error = write(&file, "second").expect_err("the new file cannot be made").to_string();
        assert!(error.contains("state.json"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).expect("it is there"), "first");
    }
}
