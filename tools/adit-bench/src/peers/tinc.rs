//! tinc 1.0.

use std::process::Command;

use crate::error::BenchError;
use crate::process::{self, Process};
use crate::testbed::{self, Testbed};

use super::Running;

const DEVICE: &str = "tinc0";
const NETWORK: u8 = 2;
/// The cable's less the outer IPv4 (20), UDP (8), sequence number (4) and an Ethernet header (14)
/// that it carries even in router mode.
const MTU: u32 = 1454;

pub(super) fn start(testbed: &Testbed) -> Result<Running, BenchError> {
    let tincd = process::find("tincd", "on Debian: apt-get install tinc")?;
    let base = testbed.directory();
    for side in &testbed.sides {
        let directory = testbed.subdirectory(side.letter)?;
        testbed.subdirectory(&format!("{}/hosts", side.letter))?;
        let connect = format!("ConnectTo = {}\n", side.other_letter);
        let configuration = format!(
            "Name = {}\nAddressFamily = ipv4\nMode = router\nInterface = {DEVICE}\n{connect}",
            side.letter
        );
        testbed::write(&directory.join("tinc.conf"), &configuration)?;
        testbed::write(
            &directory.join("hosts").join(side.letter),
            // Without discovery it uses UDP for every size from the first datagram on.
            &format!(
                "Address = {}\nSubnet = {}/32\nCipher = none\nDigest = none\nCompression = 0\nPMTUDiscovery = no\n",
                side.underlay(),
                side.inside(NETWORK),
            ),
        )?;
        // Appends the public key to its own file in `hosts`; asks where to, unless nobody is there.
        let mut keys = Command::new(&tincd);
        keys.arg("-c").arg(&directory).arg("-K2048");
        process::output(&side.host, keys)?;
    }
    for side in &testbed.sides {
        let file = base.join(side.other_letter).join("hosts").join(side.other_letter);
        let copy = base.join(side.letter).join("hosts").join(side.other_letter);
        std::fs::copy(&file, &copy).map_err(BenchError::io(format!("copy {}", file.display())))?;
    }
    let mut processes = Vec::new();
    for side in &testbed.sides {
        let mut command = Command::new(&tincd);
        command.arg("-D").arg("-c").arg(base.join(side.letter));
        command.arg(format!("--pidfile={}", base.join(format!("{}.pid", side.letter)).display()));
        let mut process = Process::start(&side.host, &format!("tinc-{}", side.letter), command, base)?;
        side.set_up(&mut process, DEVICE, NETWORK, MTU)?;
        processes.push(process);
    }
    let version = process::version(&tincd, "--version");
    Ok(Running::of_programs(testbed.sides[1].inside(NETWORK), MTU, processes, version))
}
