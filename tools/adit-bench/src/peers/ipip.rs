//! Linux's own IP in IP, where the kernel has the driver.

use std::process::Command;

use crate::error::BenchError;
use crate::process;
use crate::testbed::{CABLE, Testbed};

use super::Running;

const DEVICE: &str = "ipip1";
const NETWORK: u8 = 6;
/// The cable's less the outer IPv4 (20).
const MTU: u32 = 1480;

pub(super) fn start(testbed: &Testbed) -> Result<Running, BenchError> {
    let ip = process::find("ip", "on Debian: apt-get install iproute2")?;
    for side in &testbed.sides {
        let mut command = Command::new(&ip);
        command.args(["link", "add", DEVICE, "type", "ipip", "dev", CABLE]);
        command.args(["local", &side.underlay().to_string(), "remote", &side.other_underlay().to_string()]);
        process::output(&side.host, command).map_err(no_driver)?;
        side.configure(DEVICE, NETWORK, MTU)?;
        side.host.route(side.other_private_network(), None, Some(DEVICE))?;
    }
    Ok(Running { version: Some(super::kernel()), ..Running::plain(testbed.sides[1].private(), MTU) })
}

/// What iproute2 says of a kind of device that the kernel neither has nor can load.
fn no_driver(error: BenchError) -> BenchError {
    match error {
        BenchError::Failed { said, .. } if said.contains("Unknown device type") => {
            BenchError::NoDriver { what: "ipip" }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_driver_is_told_from_other_failures() {
        let failed = |said: &str| {
            no_driver(BenchError::Failed {
                name: "ip".to_owned(),
                status: "2".to_owned(),
                said: said.to_owned(),
            })
        };
        assert_eq!(failed("Error: Unknown device type.").to_string(), "this kernel has no ipip driver");
        assert!(matches!(failed("RTNETLINK answers: File exists"), BenchError::Failed { .. }));
    }
}
