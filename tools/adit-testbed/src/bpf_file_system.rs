//! A BPF file system of a test program's own: a machine need not have one, and what a failed test
//! pins there is gone with the program.

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Mounts one where only this process and its children see it. Call it before there are threads.
///
/// # Errors
/// The process may not, as an ordinary user, or the kernel has no such file system.
pub fn mount_own() -> nix::Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700"))
}
