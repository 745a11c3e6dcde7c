//! The programs against the tunnel and the userspace plane, packet by packet: [`table`] with the
//! fixtures of every data plane, [`random`] with generated packets.
//!
//! A test run needs the right to load programs and no network: it sends nothing.

mod agreement;
mod gateway;
mod identifications;
mod left_to_stack;
mod lpm_cache;
mod peer_updates;
mod programs;
mod random;
mod reachability;
mod strategies;
mod table;

/// Needs that the kernel accepts the programs from this process.
fn ebpf() -> Result<(), String> {
    let tunnel =
        adit_tunnel::Tunnel::new(adit_fixtures::Setup::default().config).expect("a valid configuration");
    super::probe(&tunnel).map_err(|error| format!("eBPF: {error}"))
}
