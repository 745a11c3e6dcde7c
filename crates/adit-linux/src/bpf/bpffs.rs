//! The BPF file system, which keeps eBPF objects alive after the process that created them.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::geteuid;

use crate::error::{Error, Result};

const MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of linux/magic.h.
const MAGIC: i64 = 0xcafe_4a11;
/// Adit's directory in it.
const DIRECTORY: &str = "adit";
/// Only its owner may read or change what is pinned.
const MODE: u32 = 0o700;
/// How often a directory of somebody else is replaced, who may make it again meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// Returns Adit's directory in the BPF file system, which nobody else may read or change. Mounts
/// the file system and makes the directory if they are missing.
///
/// Returns `None` if there is no file system that outlives this process. `ip netns exec`, for
/// example, runs its command with a `/sys` of its own, and what is mounted there ends with the
/// command.
///
/// # Errors
/// It cannot be mounted or made: a right is missing, the kernel does not have it, or somebody else
/// keeps making the directory.
pub fn directory() -> Result<Option<PathBuf>> {
    let Some(root) = root()? else { return Ok(None) };
    let directory = root.join(DIRECTORY);
    own(&directory)?;
    Ok(Some(directory))
}

/// Returns the path of the BPF file system.
fn root() -> Result<Option<PathBuf>> {
    let own = Path::new(MOUNT);
    if is_bpffs(own) {
        return Ok(Some(own.to_owned()));
    }
    if let Some(directory) = HOST_BPFFS.get_or_init(open_host_bpffs) {
        return Ok(Some(PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))));
    }
    if !is_mount_namespace_of_init() {
        return Ok(None);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), own, Some("bpf"), flags, Some("mode=0700")).map_err(|errno| {
        Error::new(format!("cannot mount the BPF file system on {MOUNT}"), errno.into())
            .with_hint("as root: `mount -t bpf -o mode=0700,nosuid,nodev,noexec bpf /sys/fs/bpf`")
    })?;
    Ok(Some(own.to_owned()))
}

/// Makes a directory that is ours alone. One of somebody else is replaced: where the file system
/// has the kernel's default mode, any user may have made it first.
fn own(directory: &Path) -> Result<()> {
    let failed = |error| Error::new(format!("cannot make the directory {}", directory.display()), error);
    for _ in 0..MAX_ATTEMPTS {
        match DirBuilder::new().mode(MODE).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
            Ok(()) => {}
        }
        let found = fs::symlink_metadata(directory).map_err(failed)?;
        if found.is_dir() && found.uid() == geteuid().as_raw() {
            if found.mode() & 0o777 != MODE {
                fs::set_permissions(directory, fs::Permissions::from_mode(MODE)).map_err(failed)?;
            }
            return Ok(());
        }
        tracing::warn!(
            directory = %directory.display(),
            uid = found.uid(),
            "a directory of another user stood where programs are pinned, and is removed"
        );
        let removed = if found.is_dir() { fs::remove_dir_all(directory) } else { fs::remove_file(directory) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(error).with_hint("it belongs to another user: remove it as root"));
            }
            _ => {}
        }
    }
    Err(failed(io::Error::from_raw_os_error(libc::EEXIST)).with_hint("another user makes it again and again"))
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

/// Whether what this process mounts stays: it is in the mount namespace of the first process, which
/// may be that of a container. False if that cannot be told.
fn is_mount_namespace_of_init() -> bool {
    let namespace = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|found| found.ino());
    matches!((namespace("self"), namespace("1")), (Ok(own), Ok(first)) if own == first)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    const NOBODY: u32 = 65_534;

    #[test(root)]
    fn a_directory_of_somebody_else_is_replaced_by_one_of_ours() {
        let place = tempfile::tempdir().expect("a directory");
        let directory = place.path().join("adit");
        let check = |what: &str| {
            own(&directory).expect(what);
            let found = fs::symlink_metadata(&directory).expect(what);
            assert!(found.is_dir(), "{what}");
            assert_eq!((found.uid(), found.mode() & 0o777), (0, MODE), "{what}");
        };
        check("nothing was there");
        fs::write(directory.join("kept"), "").expect("it can be written");
        check("ours was there");
        assert!(directory.join("kept").exists());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("it can be set");
        check("ours was open to others");
        chown(&directory, Some(NOBODY), None).expect("it can be given away");
        check("that of another user was there");
        assert!(!directory.join("kept").exists(), "nothing of it is used");
        fs::remove_dir(&directory).expect("it is empty");
        symlink("/", &directory).expect("it can be made");
        check("a symbolic link was there");
    }
}
