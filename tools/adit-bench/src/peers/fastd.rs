//! fastd, with its null method.

use std::process::Command;

use crate::error::BenchError;
use crate::process::{self, Process};
use crate::testbed::{self, Testbed};

use super::Running;

const DEVICE: &str = "fastd0";
const NETWORK: u8 = 3;
/// The cable's less the outer IPv4 (20), UDP (8) and its type of packet (1).
const MTU: u32 = 1471;
const PORT: u16 = 10_000;

pub(super) fn start(testbed: &Testbed) -> Result<Running, BenchError> {
    let fastd = process::find("fastd", "on Debian: apt-get install fastd")?;
    let directory = testbed.directory();
    let mut keys = Vec::new();
    for side in &testbed.sides {
        let mut generate = Command::new(&fastd);
        generate.args(["--generate-key", "--machine-readable"]);
        let secret = process::output(&side.host, generate)?.trim().to_owned();
        let file = directory.join(format!("{}.secret", side.letter));
        testbed::write(&file, &format!("secret \"{secret}\";\n"))?;
        let mut show = Command::new(&fastd);
        show.arg("--config").arg(&file).args(["--show-key", "--machine-readable"]);
        keys.push(process::output(&side.host, show)?.trim().to_owned());
    }
    let mut processes = Vec::new();
    for (side, other_key) in testbed.sides.iter().zip(keys.iter().rev()) {
        let file = directory.join(format!("{}.conf", side.letter));
        let text = format!(
            "include \"{letter}.secret\";\nmode tun;\ninterface \"{DEVICE}\";\nmethod \"null\";\nmtu {MTU};\n\
             bind {underlay}:{PORT};\nlog level info;\n\
             peer \"{other}\" {{ key \"{other_key}\"; remote {other_underlay}:{PORT}; }}\n",
            letter = side.letter,
            underlay = side.underlay(),
            other = side.other_letter,
            other_underlay = side.other_underlay(),
        );
        testbed::write(&file, &text)?;
        let mut command = Command::new(&fastd);
        command.arg("--config").arg(&file);
        let mut process = Process::start(&side.host, &format!("fastd-{}", side.letter), command, directory)?;
        side.set_up(&mut process, DEVICE, NETWORK, MTU)?;
        processes.push(process);
    }
    let version = process::version(&fastd, "--version");
    Ok(Running::of_programs(testbed.sides[1].inside(NETWORK), MTU, processes, version))
}
