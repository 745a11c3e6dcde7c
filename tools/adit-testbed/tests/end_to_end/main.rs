//! The userspace data plane end to end, in networks that each test builds in namespaces of its own.
//!
//! One program has all topics, because linking takes long. `cargo test -p adit-testbed --test
//! end_to_end icmp::` runs one of them.

#[macro_use(test)]
extern crate adit_harness;

mod bad_input;
mod churn;
mod fixtures;
mod icmp;
mod interop;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod transfer;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
