//! The kernel's VXLAN, set up with iproute2.

use std::process::Command;

use crate::error::BenchError;
use crate::process;
use crate::testbed::{CABLE, Testbed};

use super::Running;

const DEVICE: &str = "vxlan0";
const NETWORK: u8 = 1;
/// The cable's less the outer IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet header (14).
const MTU: u32 = 1450;

pub(super) fn start(testbed: &Testbed) -> Result<Running, BenchError> {
    let ip = process::find("ip", "on Debian: apt-get install iproute2")?;
    for side in &testbed.sides {
        let mut command = Command::new(&ip);
        command.args(["link", "add", DEVICE, "type", "vxlan", "id", "42", "dstport", "4789", "dev", CABLE]);
        command.args(["local", &side.underlay().to_string(), "remote", &side.other_underlay().to_string()]);
        process::output(&side.host, command)?;
        side.configure(DEVICE, NETWORK, MTU)?;
    }
    Ok(Running { version: Some(super::kernel()), ..Running::plain(testbed.sides[1].inside(NETWORK), MTU) })
}
