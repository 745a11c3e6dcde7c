//! The BPF file system and the TCX hooks of an interface.

pub mod bpffs;
pub mod tcx;
