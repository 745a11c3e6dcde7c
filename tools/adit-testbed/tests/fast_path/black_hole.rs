//! A path MTU black hole under a running TCP transfer: the tunnel finds the path's MTU by probes
//! (RFC 8899).

use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_B, TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::black_hole::{limit_receive_buffer, time_to_recover};
use adit_testbed::transfer::Transfer;

use crate::planes::{bring_up_on, on_every_plane};
use crate::support::wait_until;

/// How soon the transfer must continue, so that a user does not give up.
const RECOVERY_LIMIT: Duration = Duration::from_secs(15);

#[expect(clippy::print_stderr, reason = "the figure is what the test is for")]
fn a_transfer_survives_a_black_hole(plane: DataplaneChoice) {
    let network = TwoSites::build().unwrap();
    let _tunnels = bring_up_on(&network, plane);
    limit_receive_buffer(&network.host_b).unwrap();
    let path = Flow { client: &network.host_a, server: &network.host_b, address: HOST_B.into() };
    let transfer = Transfer::start(&path, None).unwrap();
    wait_until("the transfer runs", || transfer.received() > 4 << 20);
    let hole = network.router.black_hole("toB", 1300, &[UNDERLAY_A, UNDERLAY_B]).unwrap();
    let took = time_to_recover(&transfer, RECOVERY_LIMIT);
    assert!(took.is_some(), "the transfer still hangs after {RECOVERY_LIMIT:?}");
    eprintln!("{plane:?}: the transfer went on after {:.1} s", took.unwrap_or_default().as_secs_f64());
    eprintln!("{}", transfer.finish().unwrap());
    hole.remove().unwrap();
}

on_every_plane! {
    alone;
    a_transfer_survives_a_black_hole,
}
