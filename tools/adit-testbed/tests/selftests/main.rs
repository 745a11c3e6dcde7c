//! Scenarios of the self-tests of Linux and of others, as tests of ours: each is named after what it replicates, and
//! its first words say where that is. On each data plane.
//!
//! `cargo test -p adit-testbed --test selftests pmtu` runs those of one of them.

#[macro_use(test)]
extern crate adit_harness;

mod conntrack_ipip_mtu;
mod flowtable;
mod forwarding_ipip;
mod gro;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../fast_path/planes.rs"]
mod planes;
mod pmtu;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod two_paths;
mod vpp_ipip;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
