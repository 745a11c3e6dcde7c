//! Dropping of privileges, without a way back: those of the process, and those of a packet thread.
//!
//! Privileges belong to threads, and a new thread inherits those of the thread that starts it. So
//! the process drops its own before it starts threads, and a packet thread drops the rest itself.

use std::cell::Cell;
use std::io;

use caps::{CapSet, CapsHashSet, errors::CapsError};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};
use crate::process::Capability;
use crate::process::seccomp;

pub use crate::process::seccomp::PacketThread;

/// Drops all capabilities but these from the calling thread and the threads it starts later.
///
/// No program that they execute regains any. Capabilities that the thread does not have are not
/// added. Other processes of the same user can no longer inspect the process (it is not dumpable).
///
/// AF_XDP's frames are locked memory, which the kernel counts per user: under the usual limit, the
/// second or third daemon of root gets none. So the limit is lifted first. If that is not permitted
/// (CAP_SYS_RESOURCE is missing, as in many containers), the thread keeps CAP_IPC_LOCK, which
/// ignores the limit.
///
/// # Errors
/// The kernel refuses. No case is known.
pub fn keep_only(rights: &[Capability]) -> Result<()> {
    if lift_memory_limit() {
        restrict(rights)?;
    } else {
        restrict(&[rights, &[Capability::IpcLock]].concat())?;
    }
    prctl::set_dumpable(false).map_err(|errno| failed("make the process private", errno.into()))
}

/// Confines the calling thread to moving packets: it keeps its open descriptors, the system calls
/// for packets, and what `thread` needs. One that opens senders also keeps CAP_IPC_LOCK if
/// [`keep_only`] had to keep it.
///
/// # Errors
/// The kernel refuses, for instance because it was built without seccomp filters. The capabilities
/// are dropped even then.
pub fn confine_packet_thread(thread: PacketThread) -> Result<()> {
    let rights: &[Capability] = match thread {
        PacketThread::OpensSenders => &[Capability::NetRaw, Capability::IpcLock],
        PacketThread::Plain | PacketThread::ReadsMaps => &[],
    };
    restrict(rights)?;
    IS_CONFINED.set(true);
    seccomp::install(thread).map_err(|error| failed("limit the system calls of a thread", error))
}

thread_local! {
    static IS_CONFINED: Cell<bool> = const { Cell::new(false) };
}

/// Returns true if the calling thread may move packets only. It can then open no file.
#[must_use]
pub fn is_confined() -> bool {
    IS_CONFINED.get()
}

/// Makes locked memory unlimited and returns true. Without permission, raises the soft limit to
/// the hard one, and returns true if that is no limit.
fn lift_memory_limit() -> bool {
    let resource = Resource::RLIMIT_MEMLOCK;
    if setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
        return true;
    }
    let Ok((_, hard)) = getrlimit(resource) else { return false };
    setrlimit(resource, hard, hard).is_ok() && hard == RLIM_INFINITY
}

fn restrict(rights: &[Capability]) -> Result<()> {
    prctl::set_no_new_privs().map_err(|errno| failed("set no_new_privs", errno.into()))?;
    let wanted: CapsHashSet = rights.iter().map(|right| right.to_caps()).collect();
    set(&wanted).map_err(|error| failed("give up capabilities", io::Error::other(error)))
}

fn set(wanted: &CapsHashSet) -> std::result::Result<(), CapsError> {
    for right in caps::read(None, CapSet::Bounding)?.difference(wanted) {
        // This needs CAP_SETPCAP. Without it the rest of the bounding set is harmless, because with
        // no_new_privs no executed program adds capabilities.
        if caps::drop(None, CapSet::Bounding, *right).is_err() {
            break;
        }
    }
    // Before Linux 4.3 there is no ambient set.
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    caps::clear(None, CapSet::Inheritable)?;
    let kept: CapsHashSet = caps::read(None, CapSet::Permitted)?.intersection(wanted).copied().collect();
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn failed(what: &str, error: io::Error) -> Error {
    Error::new(format!("cannot {what}"), error)
}

/// Returns true if the kernel has CAP_BPF and CAP_PERFMON (Linux 5.8). Before, CAP_SYS_ADMIN
/// covered them.
#[must_use]
pub fn has_bpf_capabilities() -> bool {
    caps::has_cap(None, CapSet::Bounding, caps::Capability::CAP_BPF).is_ok()
}
