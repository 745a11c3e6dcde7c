//! Giving up rights, for good: what a process keeps once it runs, and what is left of a thread that
//! moves packets.
//!
//! Rights belong to threads, and a thread hands its own on to those that it starts. So a process
//! gives up before it starts any, and a packet thread gives up the rest by itself.

use std::io;

use caps::{CapSet, CapsHashSet, errors::CapsError};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};
use crate::process::Capability;
use crate::process::seccomp;

/// Leaves the calling thread, and all that it starts from now on, these rights and no others,
/// whatever it executes or adopts. Rights that it has not got are not given to it. The process can
/// no longer be looked into by others of its user.
///
/// Locked memory is unlimited from then on, if we may still say so: CAP_IPC_LOCK, which stands for
/// that in root, is among what goes.
///
/// # Errors
/// The kernel refuses; it is not known to.
pub fn keep_only(rights: &[Capability]) -> Result<()> {
    lift_memory_limit();
    restrict(rights)?;
    prctl::set_dumpable(false).map_err(|errno| failed("make the process private", errno.into()))
}

/// What a thread that moves packets keeps: the descriptors it has, and system calls that move
/// packets. With `opens_sockets` also what it takes to open another way out (CAP_NET_RAW).
///
/// # Errors
/// The kernel refuses; of the filter alone where it was built without any.
pub fn confine_packet_thread(opens_sockets: bool) -> Result<()> {
    let rights: &[Capability] = if opens_sockets { &[Capability::NetRaw] } else { &[] };
    restrict(rights)?;
    seccomp::install(opens_sockets).map_err(|error| failed("limit the system calls of a thread", error))
}

/// Root's, or the limit's, whichever we are allowed.
fn lift_memory_limit() {
    let resource = Resource::RLIMIT_MEMLOCK;
    let lifted = setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY);
    if lifted.is_err()
        && let Ok((_, hard)) = getrlimit(resource)
    {
        let _ = setrlimit(resource, hard, hard);
    }
}

fn restrict(rights: &[Capability]) -> Result<()> {
    prctl::set_no_new_privs().map_err(|errno| failed("set no_new_privs", errno.into()))?;
    let wanted: CapsHashSet = rights.iter().map(|right| right.to_caps()).collect();
    set(&wanted).map_err(|error| failed("give up capabilities", io::Error::other(error)))
}

fn set(wanted: &CapsHashSet) -> std::result::Result<(), CapsError> {
    for right in caps::read(None, CapSet::Bounding)?.difference(wanted) {
        // Only who has CAP_SETPCAP may. Who has not cannot gain what is left there either: nothing
        // that is executed brings rights any more.
        if caps::drop(None, CapSet::Bounding, *right).is_err() {
            break;
        }
    }
    // Older than Linux 4.3, there are none to clear.
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

/// Whether the kernel has CAP_BPF and CAP_PERFMON (Linux 5.8); before, CAP_SYS_ADMIN stood for
/// them.
#[must_use]
pub fn has_bpf_capabilities() -> bool {
    caps::has_cap(None, CapSet::Bounding, caps::Capability::CAP_BPF).is_ok()
}
