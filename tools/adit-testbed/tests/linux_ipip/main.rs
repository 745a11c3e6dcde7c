//! Interoperation with Linux's drivers ipip, sit and ip6tnl: Adit at one end and Linux at the
//! other, for each data plane and from both sides. The build machine's kernel may lack the drivers,
//! so these run in the guest: `cargo xtask vm test adit-testbed:linux_ipip`.

#[macro_use(test)]
extern crate adit_harness;

mod black_hole;
mod fragments;
mod ip6tnl;
mod kernel_plane;
mod path;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../fast_path/planes.rs"]
mod planes;
mod sit;
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../support/mod.rs"]
mod support;
mod testbed;
mod traffic;

fn main() -> std::process::ExitCode {
    adit_harness::main()
}
