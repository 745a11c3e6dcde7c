//! Whether runs of the programs on one processor may interrupt each other, as with PREEMPT_RT.

use aya_ebpf::Global;

/// Not 0 if they may. The loader sets it, and the kernel's verifier removes the code for the other
/// case.
#[unsafe(no_mangle)]
static IS_PREEMPTIBLE: Global<u8> = Global::new(0);

/// See the module.
#[inline(always)]
pub fn may_interrupt_programs() -> bool {
    IS_PREEMPTIBLE.load() != 0
}
