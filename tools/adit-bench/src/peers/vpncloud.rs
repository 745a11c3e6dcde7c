//! vpncloud, with its algorithm `plain`.

use std::net::Ipv4Addr;
use std::process::Command;

use crate::error::BenchError;
use crate::process::{self, Process};
use crate::testbed::{self, CABLE, Testbed};

use super::{Running, Tools};

const DEVICE: &str = "vpncloud0";
const NETWORK: u8 = 5;
/// The cable's less the outer IPv4 (20), UDP (8) and what it puts before the datagram, rounded
/// down.
const MTU: u32 = 1470;
const PORT: u16 = 3210;
/// It learns its own address by asking for the route to here, and gives up where there is none.
/// A whole default route would lead everything that misses its tunnel over the cable.
const ASKED_FOR: Ipv4Addr = Ipv4Addr::new(8, 8, 8, 8);

pub(super) fn start(testbed: &Testbed, tools: &Tools) -> Result<Running, BenchError> {
    let installed = tools.tools.join("bin/vpncloud");
    let vpncloud = if installed.is_file() {
        installed
    } else {
        process::find("vpncloud", "cargo install --root target/bench-tools vpncloud")?
    };
    let directory = testbed.directory();
    let mut processes = Vec::new();
    for side in &testbed.sides {
        side.host.route(testbed::net(ASKED_FOR, 32), None, Some(CABLE))?;
        let mut command = Command::new(&vpncloud);
        command.args(["--device", DEVICE, "--type", "tun", "--mode", "router", "--no-port-forwarding"]);
        command.args(["--listen", &format!("{}:{PORT}", side.underlay())]);
        command.args(["--peer", &format!("{}:{PORT}", side.other_underlay())]);
        command.args(["--claim", &format!("{}/32", side.inside(NETWORK))]);
        command.args(["--password", "bench", "--algo", "plain"]);
        let mut process =
            Process::start(&side.host, &format!("vpncloud-{}", side.letter), command, directory)?;
        side.set_up(&mut process, DEVICE, NETWORK, MTU)?;
        processes.push(process);
    }
    let version = process::version(&vpncloud, "--version");
    Ok(Running::of_programs(testbed.sides[1].inside(NETWORK), MTU, processes, version))
}
