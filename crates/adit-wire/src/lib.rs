//! Headers, checksums and the encapsulation of RFC 2003, without I/O or allocation.
//!
//! One file a header, each with a checked view of borrowed bytes and, where Adit writes the header,
//! an owned form with `emit`. The outer header is written by [`encapsulation`] and nowhere else.
//!
//! # Panics
//!
//! Nothing in this crate panics, on any bytes: a view is only to be had by a `parse` that checked the
//! lengths, and the functions that change bytes in place say by their return value that there was
//! nothing to change. The lints below hold the library to it.
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
pub mod ipv4;
pub mod print;
pub mod protocol;
pub mod tcp;
pub mod udp;
pub mod validation;

pub use protocol::Protocol;
pub use validation::Validation;
