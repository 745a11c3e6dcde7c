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
