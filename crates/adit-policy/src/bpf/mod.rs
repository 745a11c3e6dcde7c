//! The interface between userspace and the BPF programs: the values of the maps, and which packets
//! the programs carry.

pub(crate) mod fast_path;
pub(crate) mod identification;
pub mod maps;
