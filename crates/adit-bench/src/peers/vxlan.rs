//! The kernel's VXLAN, set up with iproute2.

use std::process::Command;

use crate::bed::{Bed, CABLE};
use crate::error::BenchError;
use crate::process;

use super::Tunnel;

const DEVICE: &str = "vxlan0";
const NETWORK: u8 = 1;
/// The cable's less the outer IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet header (14).
const MTU: u32 = 1450;

pub(super) fn start(bed: &Bed) -> Result<Tunnel, BenchError> {
    let ip = process::find("ip", "on Debian: apt-get install iproute2")?;
    for side in &bed.sides {
        let mut command = Command::new(&ip);
        command.args(["link", "add", DEVICE, "type", "vxlan", "id", "42", "dstport", "4789", "dev", CABLE]);
        command.args(["local", &side.underlay().to_string(), "remote", &side.other_underlay().to_string()]);
        process::output(&side.host, command)?;
        side.configure(DEVICE, NETWORK, MTU)?;
    }
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut tunnel = Tunnel::plain(bed.sides[1].inside(NETWORK), MTU);
    tunnel.version = Some(format!("Linux {}", kernel.trim()));
    Ok(tunnel)
}
