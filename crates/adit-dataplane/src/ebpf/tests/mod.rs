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

/// The kernel takes the programs from this process.
fn ebpf() -> Result<(), String> {
    let tunnel = adit_tunnel::Tunnel::new(adit_fixtures::Setup::default().config).expect("it is good");
    super::probe(&tunnel).map_err(|error| format!("eBPF: {error}"))
}
