//! How many descriptors this process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Raises the number of descriptors that this process may have open to what the service manager
/// allows at most, and returns it. Service managers start processes with 1,024, for programs that
/// use `select(2)`.
///
/// # Errors
/// The kernel refuses.
pub fn raise_descriptor_limit() -> Result<u64> {
    let failed = |error: nix::Error| Error::new("cannot raise the number of descriptors", error.into());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(failed)?;
    }
    Ok(hard)
}
