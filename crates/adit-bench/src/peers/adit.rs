//! Adit's userspace plane: `adit run` on both sides.

use std::process::Command;
use std::time::Duration;

use adit_config::Config;
use adit_control::places::Places;

use crate::bed::{self, Bed, Side};
use crate::error::BenchError;
use crate::process::{self, Process};

use super::{Tools, Tunnel};

const DEVICE: &str = "adit0";
/// Third octet of its addresses. Private networks are not the devices' but lie behind the sites.
const NETWORK: u8 = 20;
/// The cable's less the 20 bytes of the outer header.
const MTU: u32 = 1480;
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn start(bed: &Bed, tools: &Tools) -> Result<Tunnel, BenchError> {
    if !tools.adit.is_file() {
        return Err(BenchError::Missing {
            program: tools.adit.display().to_string(),
            remedy: "build it: cargo build --release --package adit",
        });
    }
    let directory = bed.directory("adit")?;
    let mut cleanup = Cleanup { names: Vec::new() };
    let mut processes = Vec::new();
    for side in &bed.sides {
        // The private network of a site has to be somewhere: on the loopback it costs nothing.
        side.host.address("lo", bed::net(side.inside(NETWORK + side.number), 32))?;
        let name = site(side.letter);
        let file = directory.join(format!("{name}.toml"));
        bed::write(&file, &configuration(side)?)?;
        cleanup.names.push(name.clone());
        let mut command = Command::new(&tools.adit);
        command.args(["run", "--on-exit", "remove"]).arg(&file);
        processes.push(Process::start(&side.host, &name, command, &directory)?);
    }
    for process in &mut processes {
        process.wait_for_word("ready", PATIENCE)?;
    }
    let server = bed.sides[1].inside(NETWORK + bed.sides[1].number);
    let version = process::version(&tools.adit, "--version");
    Ok(Tunnel { server, processes, mtu: MTU, version, _cleanup: Some(cleanup) })
}

/// The sites' sockets lie in one directory, whatever the network namespace.
fn site(letter: &str) -> String {
    format!("bench-{letter}-{}", std::process::id())
}

fn configuration(side: &Side) -> Result<String, BenchError> {
    let network = |number| bed::net(side.inside(NETWORK + number), 24).trunc();
    let text = format!(
        "[site]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\ndevice = \"{DEVICE}\"\n\
         dataplane = \"userspace\"\n\n[[peer]]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\n",
        site(side.letter),
        side.underlay(),
        network(side.number),
        side.other_letter,
        side.other_underlay(),
        network(side.other_number),
    );
    match Config::parse("bench.toml", &text) {
        Ok(_) => Ok(text),
        Err(problems) => Err(BenchError::Failed {
            name: "the configuration of the bench".to_owned(),
            status: "a mistake in the bench itself".to_owned(),
            said: problems.to_string(),
        }),
    }
}

/// Removes what a site that was killed could not remove. What it made in the network goes with
/// its namespace.
pub(crate) struct Cleanup {
    names: Vec<String>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        for name in &self.names {
            // Nothing is left to do about a failure, and nothing but a small file stays.
            let _ = Places::of(name).remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_has_no_mistakes() -> Result<(), Box<dyn std::error::Error>> {
        if !adit_linux::testing::require_root("its_configuration_has_no_mistakes") {
            return Ok(());
        }
        let host = || adit_lab::host::Host::new("test");
        let side = Side { host: host()?, letter: "a", number: 1, other_letter: "b", other_number: 2 };
        let text = configuration(&side)?;
        assert!(text.contains("networks = [\"10.42.21.0/24\"]"), "{text}");
        Ok(())
    }
}
