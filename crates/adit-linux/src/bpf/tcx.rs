//! The eBPF programs at the TCX hooks of an interface (Linux 6.6), by their numbers.
//!
//! Opening a program by its number takes CAP_SYS_ADMIN, which the daemon does not have.

use std::io;
use std::mem::size_of;

use crate::error::{Error, Result};

// linux/bpf.h
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// The most programs that the kernel attaches to a hook.
const MAX_PROGRAMS: usize = 64;

/// The part of `union bpf_attr` for BPF_PROG_QUERY, as of Linux 6.6.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// Returns the numbers of the programs at an interface's egress hook, or at its ingress hook if
/// `egress` is false, in the calling thread's network namespace.
///
/// # Errors
/// There is no such interface, the kernel has no TCX, or CAP_NET_ADMIN is missing.
pub fn programs(index: u32, egress: bool) -> Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut query = Query {
        target_ifindex: index,
        attach_type: if egress { BPF_TCX_EGRESS } else { BPF_TCX_INGRESS },
        prog_ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes a `union bpf_attr` of the size given, and writes at most
    // `count` numbers to `prog_ids`; both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if done < 0 {
        let what = format!("cannot list the eBPF programs at the TCX hooks of interface {index}");
        return Err(Error::new(what, io::Error::last_os_error()).needing("CAP_NET_ADMIN"));
    }
    Ok(ids[..MAX_PROGRAMS.min(query.count as usize)].to_vec())
}
