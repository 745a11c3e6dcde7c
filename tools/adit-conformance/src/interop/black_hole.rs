//! A path MTU black hole under a running transfer.

use std::time::{Duration, Instant};

use adit_lab::LabError;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_B, UNDERLAY_A};
use adit_testbed::transfer::Transfer;

use super::{Pair, Scenario};
use crate::error::Error;

pub(super) const BLACK_HOLE: Scenario = Scenario {
    name: "facing-black-hole",
    what: "Under a running TCP transfer from host A, the router's link to gateway B shrinks to 1,300 bytes and the router drops longer datagrams in silence. (Hangs: no progress in 20 s.)",
    asks: &["heals within 10 s"],
    run: black_hole,
    waits: true,
};

/// The observation if the transfer fails even without a black hole.
const NO_TRANSFER: &str = "no transfer, black hole or not";
/// Bits a second. The rate is low, so bytes in flight before the hole do not count as progress.
const RATE: u64 = 8_000_000;
/// Bytes of progress that show that the transfer runs.
const PROGRESS: u64 = 512 * 1024;
/// The time that the scenario asks for.
const HEALS: Duration = Duration::from_secs(10);
/// The transfer's own timeout.
const HANGS: Duration = Duration::from_secs(20);

fn black_hole(pair: &Pair) -> Result<String, Error> {
    let network = &pair.network;
    let path = Flow { client: &network.host_a, server: &network.host_b, address: HOST_B.into() };
    let transfer = match Transfer::start(&path, Some(RATE)) {
        Ok(transfer) => transfer,
        Err(LabError::Io { .. }) => return Ok(NO_TRANSFER.to_owned()),
        Err(error) => return Err(error.into()),
    };
    if !progresses(&transfer, HEALS) {
        return Ok(NO_TRANSFER.to_owned());
    }
    let _hole = network.router.black_hole("toB", 1300, &[UNDERLAY_A])?;
    let start = Instant::now();
    if !progresses(&transfer, HANGS) {
        return Ok("hangs".to_owned());
    }
    let within = if start.elapsed() < HEALS { "heals within 10 s" } else { "heals within 20 s" };
    Ok(match transfer.finish() {
        Ok(_) => within.to_owned(),
        Err(_) => format!("{within}, and breaks"),
    })
}

/// Waits until the transfer makes progress, and returns false if it does not.
fn progresses(transfer: &Transfer, timeout: Duration) -> bool {
    let (before, deadline) = (transfer.received(), Instant::now() + timeout);
    while transfer.received() < before + PROGRESS {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}
