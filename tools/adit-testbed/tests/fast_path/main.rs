//! What every data plane must do alike: a hub between two spokes, and an underlay that changes
//! under a running stream. Each test is there once for each data plane, and says in numbers what it
//! lost.
//!
//! `cargo test -p adit-testbed --test fast_path ebpf` runs those of one of them; `-- --nocapture`
//! shows the figures.

#[macro_use(test)]
extern crate adit_harness;

mod asymmetric;
mod black_hole;
mod churn;
mod forged_icmp;
mod hub;
mod largest;
mod loops;
mod outer_fragments;
mod planes;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod traceroute;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
