//! Headers, checksums and the encapsulation of RFC 2003, without I/O or allocation.
//!
//! Each header has a file: a checked view of borrowed bytes and, if Adit writes the header, an
//! owned form with `emit`. [`encapsulation`] alone writes outer headers. The crate is compiled for
//! userspace and for eBPF.
//!
//! # Panics
//!
//! Nothing in this crate panics, whatever the bytes. A view exists only after a `parse` that
//! checked the lengths. A function that changes bytes in place returns `None` if there was nothing
//! to change. The lints below enforce it. The only exception is [`fuzz`], whose targets panic to
//! report a fault.
#![no_std]
#![warn(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable
)]

pub mod checksum;
pub mod dscp;
pub mod ecn;
pub mod encapsulation;
pub mod fragment;
#[doc(hidden)]
pub mod fuzz;
pub mod icmpv4;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod print;
pub mod protocol;
pub mod tcp;
pub mod udp;
pub mod validation;

pub use protocol::Protocol;
pub use validation::Validation;
