//! The rules of the tunnel: who may send what, and why a datagram is dropped. Every data plane runs
//! this code, so that they cannot disagree: `adit-tunnel` with its own tables, the kernel's
//! programs with BPF maps, and the kernel plane by rules made after it.
//!
//! [`bpf`] is the interface between userspace and the programs.
//!
//! Like [`adit_wire`], this crate does no I/O, allocates nothing and does not panic.
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
mod flow_label;
mod inner;
mod outer;
mod path_probe;
mod peer;
mod router_error;

pub use admission::{
    Delivery, Origin, OwnerLookup, PeerLookup, Refusal, SenderError, check_decap, check_encap, check_outer,
    decap_ecn, outer_sender,
};
pub use bpf::fast_path::{GsoInfo, GsoShape, gso_shape, gso_shape_v6, transport_header};
pub use bpf::identification::IdRange;
pub use drop_reason::{DropReason, Stage};
pub use flow_label::{FlowAddress, FlowKey, flow_label, has_ports};
pub use inner::{InnerAddress, InnerHeader};
pub use outer::OuterAddress;
pub use path_probe::{PROBE_IDENTIFIER, may_be_probe};
pub use peer::{Owner, PeerIndex};
pub use router_error::{Quoted, may_be_router_error, router_error_decap, router_error_encap};
