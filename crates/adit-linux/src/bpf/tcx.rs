//! Which programs stand at an interface's TCX hooks (Linux 6.6). Asked by their numbers alone: to turn a number into a
//! program takes CAP_SYS_ADMIN, which a daemon has not got.

use std::io;
use std::mem::size_of;

use crate::error::{Error, Result};

// linux/bpf.h
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

/// More than anybody puts there: the kernel takes 64.
const MOST: usize = 64;

/// The part of `union bpf_attr` that the query is about, as of Linux 6.6.
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

/// The numbers of the programs that see what leaves by an interface (`egress`), or what comes in, in the calling
/// thread's network namespace.
///
/// # Errors
/// No such interface; a kernel without TCX; no CAP_NET_ADMIN.
pub fn programs(index: u32, egress: bool) -> Result<Vec<u32>> {
    let mut ids = [0u32; MOST];
    let mut query = Query {
        target_ifindex: index,
        attach_type: if egress { BPF_TCX_EGRESS } else { BPF_TCX_INGRESS },
        prog_ids: ids.as_mut_ptr() as u64,
        count: MOST as u32,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes a `union bpf_attr` of the size given, and at most `count` numbers behind
    // `prog_ids`; both outlive the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if done < 0 {
        let what = format!("cannot ask what is attached to interface {index}");
        return Err(Error::new(what, io::Error::last_os_error()).needing("CAP_NET_ADMIN"));
    }
    Ok(ids[..MOST.min(query.count as usize)].to_vec())
}
