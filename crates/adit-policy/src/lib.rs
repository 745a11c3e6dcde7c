//! Who may send what through the tunnel, and what a datagram is dropped for: decided here, once, for
//! every data plane. `adit-tunnel` asks with its own tables, the kernel's programs with BPF maps; both
//! run this code, so that they cannot disagree.
//!
//! [`maps`] is what userspace and the programs tell each other.
//!
//! Like [`adit_wire`], it does no I/O, allocates nothing and panics on nothing.
#![no_std]
#![warn(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable
)]

mod admission;
pub mod bpf;
pub mod drop_reason;
mod peer;

pub use admission::{
    Delivery, Origin, PeerLookup, Refusal, check_decap, check_encap, check_outer, decap_ecn,
};
pub use bpf::fast_path::{GsoInfo, GsoShape, gso_shape, transport_header};
pub use bpf::identification::IdRange;
pub use drop_reason::{DropReason, Stage};
pub use peer::{Owner, PeerIndex};
