//! The system calls of a thread that moves packets.
//!
//! Another call is refused (`EPERM`) and noted by the kernel (`dmesg`, or the audit log), and the
//! thread goes on: whoever has taken it over gets no further than if it were killed, while a call
//! that nobody thought of (another C library, a rare path) costs that call and not everybody's
//! traffic.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Whatever their arguments: an empty list of rules matches every call.
const CALLS: &[libc::c_long] = &[
    // Packets.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_close,
    // Time, and waiting for others.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    // Memory: what is mapped anew is below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Signals, a panic, and a thread's end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // That a descriptor is one, which the standard library asserts.
    libc::SYS_fcntl,
];

/// What only some machines have as calls of their own.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// To set up a socket that leads out by another interface.
const OPENING: &[libc::c_long] = &[libc::SYS_bind, libc::SYS_setsockopt];
const AF_XDP: u64 = 44;

/// Limits the calling thread for good. It must have given up gaining rights.
pub(crate) fn install(opens_sockets: bool) -> io::Result<()> {
    let program = program(opens_sockets).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The same four fields, of another crate.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies the program, which outlives the call, and leaves it as it is.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_LOG,
            &raw const program,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn program(opens_sockets: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let opening = if opens_sockets { OPENING } else { &[] };
    let calls = CALLS.iter().chain(OLDER).chain(opening);
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
    // No memory that code could be written to.
    let is_data = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![is_data()?]);
    }
    if opens_sockets {
        let families = [libc::AF_PACKET as u64, AF_XDP];
        let families = families.map(|family| argument(0, SeccompCmpOp::Eq, family));
        rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, machine)?.try_into()
}

fn argument(number: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, compare, value)?;
    SeccompRule::new(vec![condition])
}
