//! The userspace data plane end to end, in networks that each test builds in namespaces of its own.
//!
//! One program for all topics, because linking is what costs; `cargo test -p adit-testbed --test
//! end_to_end icmp::` runs one of them.

mod bad_input;
mod churn;
mod fixtures;
mod icmp;
mod interop;
#[path = "../support/mod.rs"]
mod support;
mod transfer;
