//! Data planes: they move packets between the tunnel interface and the underlay until they are shut
//! down, and ask a [`Tunnel`](adit_tunnel::Tunnel) about each.
//!
//! - [`userspace`] is the complete one: all of RFC 2003, on any kernel.
//! - [`ebpf`] runs programs in front of it that carry ordinary packets inside the kernel.
//! - [`kernel`] uses Linux's own tunnel drivers, with our rules about addresses as tables of
//!   nf_tables.

#[cfg(test)]
#[macro_use(test)]
extern crate adit_harness;

mod capacity;
pub mod clock;
pub mod ebpf;
mod host_rules;
pub mod kernel;
pub mod liveness;
mod next_hop;
mod plane;
mod routes;
mod tunnel_interface;
mod underlay_sources;
pub mod userspace;

pub use host_rules::{HostRules, RelayPath, chains_passed_by};
pub use plane::{CarriedBy, DataPlane, PlaneKind};
pub use tunnel_interface::TunnelInterface;
pub use underlay_sources::UnderlaySources;

#[cfg(test)]
fn main() -> std::process::ExitCode {
    adit_harness::main()
}
