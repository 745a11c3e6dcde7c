//! The BPF file system, and the eBPF programs at the TCX hooks of an interface.

pub mod bpffs;
pub mod tcx;

/// Returns true if programs for packets may interrupt each other on one processor: the kernel is
/// built with PREEMPT_RT, or there is no `/proc` that says that it is not. From Linux 6.18 on, such
/// a kernel no longer excludes that by a lock (`PREEMPT_RT_NEEDS_BH_LOCK`).
#[must_use]
pub fn programs_are_preemptible() -> bool {
    // What `uname -v` prints.
    std::fs::read_to_string("/proc/sys/kernel/version").map_or(true, |version| version.contains("PREEMPT_RT"))
}

/// Waits until every program that runs now has ended. Takes some milliseconds.
pub fn wait_for_programs() {
    // linux/membarrier.h. The kernel waits for an RCU grace period, which a running program holds
    // up.
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: numbers only.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Refused where processors run without a clock tick (`nohz_full`). A program takes
        // microseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
