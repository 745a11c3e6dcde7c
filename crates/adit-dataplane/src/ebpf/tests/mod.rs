//! The programs against the tunnel and the userspace plane, packet by packet: [`table`] by the fixtures of
//! every data plane, [`random`] by whatever comes.
//!
//! A test run needs the right to load programs, and no network: nothing is sent.

mod agreement;
mod amended;
mod gateway;
mod heard;
mod identifications;
mod programs;
mod random;
mod strategies;
mod table;

use adit_linux::testing;

/// Whether this process may load the programs.
fn require_ebpf(test: &str) -> bool {
    let tunnel = adit_tunnel::Tunnel::new(adit_fixtures::Setup::default().config).expect("it is good");
    let answer = super::probe(&tunnel);
    let lacks = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
    testing::require(test, answer.is_ok(), &format!("eBPF: {lacks}"))
}
