//! The BPF file system, and the eBPF programs at the TCX hooks of an interface.

pub mod bpffs;
pub mod tcx;
