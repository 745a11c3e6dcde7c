//! The file system that keeps BPF objects alive when the process that made them is gone.

use std::path::{Path, PathBuf};

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
    // Under `ip netns exec`, `/sys` is another: pins there would go with the process. The first
    // process sees the machine's own.
    let own = Path::new(MOUNT);
    let machines = Path::new("/proc/1/root").join("sys/fs/bpf");
    for place in [own, &machines] {
        if is_bpffs(place) {
            return Ok(place.to_owned());
        }
    }
    mount(Some("bpf"), own, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|errno| {
        Error::new(format!("cannot mount the BPF file system on {MOUNT}"), errno.into())
            .with_hint("as root: `mount -t bpf bpf /sys/fs/bpf`")
    })?;
    Ok(own.to_owned())
}

fn is_bpffs(place: &Path) -> bool {
    statfs(place).is_ok_and(|found| found.filesystem_type() == FsType(MAGIC))
}
