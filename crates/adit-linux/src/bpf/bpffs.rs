//! The file system that keeps BPF objects alive when the process that made them is gone.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};

use crate::error::{Error, Result};

const MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: i64 = 0xcafe_4a11;

/// Where it is mounted; mounts it where nobody has yet.
///
/// # Errors
/// It is not mounted, and we may not, or the kernel has none.
pub fn root() -> Result<PathBuf> {
    let own = Path::new(MOUNT);
    if is_bpffs(own) {
        return Ok(own.to_owned());
    }
    if let Some(machines) = MACHINES.get_or_init(of_the_machine) {
        return Ok(PathBuf::from(format!("/proc/self/fd/{}", machines.as_raw_fd())));
    }
    mount(Some("bpf"), own, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|errno| {
        Error::new(format!("cannot mount the BPF file system on {MOUNT}"), errno.into())
            .with_hint("as root: `mount -t bpf bpf /sys/fs/bpf`")
    })?;
    Ok(own.to_owned())
}

/// Held open: to look into the first process takes rights that are given up later.
static MACHINES: OnceLock<Option<File>> = OnceLock::new();

/// Under `ip netns exec`, `/sys` is another: pins there would go with the process. The first process sees the
/// machine's own.
fn of_the_machine() -> Option<File> {
    let place = Path::new("/proc/1/root").join(MOUNT.trim_start_matches('/'));
    is_bpffs(&place).then(|| File::open(place).ok())?
}

fn is_bpffs(place: &Path) -> bool {
    statfs(place).is_ok_and(|found| found.filesystem_type() == FsType(MAGIC))
}
