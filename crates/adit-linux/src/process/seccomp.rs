//! The seccomp filter of a packet thread: the system calls it may make.
//!
//! The kernel refuses any other call (`EPERM`) and logs it (`dmesg`, or the audit log), and the
//! thread continues. An attacker who controls the thread gets no further than if it were killed. A
//! call that is missing here by mistake (another C library, a rare path) costs that call only, and
//! not all traffic.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What a packet thread does besides moving packets by descriptors that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketThread {
    /// Nothing.
    Plain,
    /// It opens another sender (CAP_NET_RAW).
    OpensSenders,
    /// It reads BPF maps, for which it needs no right since Linux 5.19.
    ReadsMaps,
}

/// Calls allowed with any arguments: an empty list of rules matches every call.
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
    libc::SYS_getsockname,
    libc::SYS_ppoll,
    libc::SYS_close,
    // Time, and waiting for other threads.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_restart_syscall,
    // Memory. New mappings are below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_getrandom,
    // Signals, panics, and the end of a thread.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // The standard library asserts by it that a descriptor is open.
    libc::SYS_fcntl,
];

/// Calls that only some architectures have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// Calls that set up a sender on another interface.
const OPENING: &[libc::c_long] = &[libc::SYS_bind, libc::SYS_setsockopt];
const AF_XDP: u64 = 44;
// linux/bpf.h
const BPF_MAP_LOOKUP_ELEM: u64 = 1;

/// Installs the filter for the calling thread, without a way back. It needs no_new_privs.
pub(crate) fn install(thread: PacketThread) -> io::Result<()> {
    let program = program(thread).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort,
        // The crate's instruction has the same four fields as `sock_filter`.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies the program, which outlives the call, and does not change it.
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

fn program(thread: PacketThread) -> Result<BpfProgram, seccompiler::BackendError> {
    let opening = if thread == PacketThread::OpensSenders { OPENING } else { &[] };
    let calls = CALLS.iter().chain(OLDER).chain(opening);
    let mut rules: Rules = calls.map(|call| (*call, Vec::new())).collect();
    // No executable memory.
    let is_data = || argument(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![is_data()?]);
    }
    // A panic that aborts signals the own process. The number is the same as long as it runs.
    let own = argument(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?;
    rules.insert(libc::SYS_tgkill, vec![own]);
    match thread {
        PacketThread::Plain => {}
        PacketThread::OpensSenders => {
            let families = [libc::AF_PACKET as u64, AF_XDP];
            let families = families.map(|family| argument(0, SeccompCmpOp::Eq, family));
            rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
        }
        PacketThread::ReadsMaps => {
            rules.insert(libc::SYS_bpf, vec![argument(0, SeccompCmpOp::Eq, BPF_MAP_LOOKUP_ELEM)?]);
        }
    }
    let refused = SeccompAction::Errno(libc::EPERM as u32);
    let machine = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, refused, SeccompAction::Allow, machine)?.try_into()
}

fn argument(number: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(number, SeccompCmpArgLen::Dword, compare, value)?;
    SeccompRule::new(vec![condition])
}
