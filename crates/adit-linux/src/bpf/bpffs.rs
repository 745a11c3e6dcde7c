//! The BPF file system, which keeps eBPF objects alive after the process that created them.

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

/// Returns the path of the BPF file system. Mounts it if it is not mounted.
///
/// # Errors
/// It is not mounted and cannot be: a right is missing, or the kernel does not have it.
pub fn root() -> Result<PathBuf> {
    let own = Path::new(MOUNT);
    if is_bpffs(own) {
        return Ok(own.to_owned());
    }
    if let Some(directory) = HOST_BPFFS.get_or_init(open_host_bpffs) {
        return Ok(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())));
    }
    mount(Some("bpf"), own, Some("bpf"), MsFlags::empty(), None::<&str>).map_err(|errno| {
        Error::new(format!("cannot mount the BPF file system on {MOUNT}"), errno.into())
            .with_hint("as root: `mount -t bpf bpf /sys/fs/bpf`")
    })?;
    Ok(own.to_owned())
}

/// The BPF file system of the host. It stays open, because opening it takes rights that are dropped
/// later.
static HOST_BPFFS: OnceLock<Option<File>> = OnceLock::new();

/// Opens the BPF file system of the first process.
///
/// `ip netns exec` mounts another `/sys`. Pins in it would vanish with the process.
fn open_host_bpffs() -> Option<File> {
    let path = Path::new("/proc/1/root").join(MOUNT.trim_start_matches('/'));
    is_bpffs(&path).then(|| File::open(path).ok())?
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == FsType(MAGIC))
}
