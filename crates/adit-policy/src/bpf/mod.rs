//! The interface between userspace and the BPF programs: the maps' values and what the programs
//! carry themselves.

pub(crate) mod fast_path;
pub(crate) mod identification;
pub mod maps;
