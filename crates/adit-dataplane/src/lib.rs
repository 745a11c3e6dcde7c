//! What moves the packets. A data plane takes a [`Tunnel`](adit_tunnel::Tunnel), which decides,
//! and a device, and forwards between that device and the underlay until it is shut down.
//!
//! [`userspace`] is the complete one: all of RFC 2003, on any kernel that has TUN. [`ebpf`] is a fast path
//! in front of it. [`kernel`] is Linux's own driver, with our rules about addresses.

#[cfg(test)]
#[macro_use(test)]
extern crate adit_harness;

mod capacity;
pub mod clock;
pub mod ebpf;
pub mod kernel;
pub mod next_hop;
pub mod plane;
pub mod userspace;

pub use plane::{DataPlane, PlaneKind};

#[cfg(test)]
fn main() -> std::process::ExitCode {
    adit_harness::main()
}
