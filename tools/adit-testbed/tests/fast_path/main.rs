//! Behaviour that all data planes share, such as a hub between two spokes and changes of the
//! underlay under a running stream. Each test exists once for each data plane, and prints its
//! losses.
//!
//! `cargo test -p adit-testbed --test fast_path ebpf` runs the tests of one data plane and prints
//! the figures.

#[macro_use(test)]
extern crate adit_harness;

mod asymmetric;
mod black_hole;
mod both_underlays;
mod churn;
mod forged_icmp;
mod hub;
mod ipv6_inside;
mod largest;
mod loops;
mod lost_address;
mod outer_fragments;
mod over_ipv6;
mod planes;
mod reach;
mod router_errors;
mod senders;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod traceroute;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
