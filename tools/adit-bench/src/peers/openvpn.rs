//! OpenVPN in its mode without TLS and without a key: point to point, in the clear.

use std::process::Command;

use crate::error::BenchError;
use crate::process::{self, Process};
use crate::testbed::Testbed;

use super::Running;

const DEVICE: &str = "ovpn0";
const NETWORK: u8 = 4;
/// The cable's less the outer IPv4 (20) and UDP (8): in this mode it has no header of its own.
const MTU: u32 = 1472;
const PORT: &str = "1194";

pub(super) fn start(testbed: &Testbed) -> Result<Running, BenchError> {
    let openvpn = process::find("openvpn", "on Debian: apt-get install openvpn")?;
    let directory = testbed.directory();
    let mut processes = Vec::new();
    for side in &testbed.sides {
        let mut command = Command::new(&openvpn);
        command.args(["--dev", DEVICE, "--dev-type", "tun", "--proto", "udp4"]);
        command.args(["--local", &side.underlay().to_string(), "--lport", PORT]);
        command.args(["--remote", &side.other_underlay().to_string(), PORT]);
        // It sets up the device itself, point to point.
        command.args([
            "--ifconfig",
            &side.inside(NETWORK).to_string(),
            &side.other_inside(NETWORK).to_string(),
        ]);
        command.args(["--tun-mtu", &MTU.to_string(), "--mssfix", "0"]);
        command.args(["--cipher", "none", "--data-ciphers", "none", "--auth", "none"]);
        command.args(["--script-security", "0", "--verb", "1"]);
        processes.push(Process::start(&side.host, &format!("openvpn-{}", side.letter), command, directory)?);
    }
    for process in &mut processes {
        // Opened is not yet configured, but the ping that proves the way waits for that.
        process.wait_for_word(&format!("{DEVICE} opened"), super::READY_TIMEOUT)?;
    }
    // Routes and addresses come right after.
    let client = &testbed.sides[0].host;
    let (server, cable) = (testbed.sides[1].inside(NETWORK), client.index(crate::testbed::CABLE)?);
    let mut netlink = client.netlink()?;
    if let Some(process) = processes.first_mut() {
        process.wait_for("make its route", super::READY_TIMEOUT, || {
            Ok(netlink.route_to(server, None).is_ok_and(|route| route.device != cable).then_some(()))
        })?;
    }
    let version = process::version(&openvpn, "--version");
    Ok(Running::of_programs(server, MTU, processes, version))
}
