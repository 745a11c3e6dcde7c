//! Scenarios of the self-tests of Linux and VPP, on each data plane. Each module is named after the
//! test that it replicates, and its first line gives that test's path.
//!
//! `cargo test -p adit-testbed --test selftests pmtu` runs one of them.

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
mod pmtu_families;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod two_paths;
mod vpp_ipip;

fn main() -> std::process::ExitCode {
    // Tests that need it also need root, and fail without it.
    let _ = adit_testbed::bpf_file_system::mount_own();
    adit_harness::main()
}
