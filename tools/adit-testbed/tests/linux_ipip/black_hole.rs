//! A path MTU black hole under a running TCP transfer.

use adit_testbed::needs::ipip;
use std::time::Duration;

use adit_config::DataplaneChoice;
use adit_lab::router::Rule;
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{TwoSites, UNDERLAY_A, UNDERLAY_B};
use adit_testbed::black_hole::{limit_receive_buffer, time_to_recover};
use adit_testbed::transfer::Transfer;

use crate::planes::on_every_plane;
use crate::support::wait_until;
use crate::testbed::{End, Linux, adit, linux};

/// How soon the transfer must continue, so that a user does not give up, with some seconds for the
/// emulated processor.
const RECOVERY_LIMIT: Duration = Duration::from_secs(25);

/// The time after which a transfer without progress counts as hanging. TCP retransmits a few times
/// meanwhile.
const STANDSTILL: Duration = Duration::from_secs(12);

/// Starts a transfer from the host at this end to the other, and opens a black hole under it.
fn start_and_open_hole(network: &TwoSites, from: End) -> (Transfer, Rule) {
    let (client, server) = (from.host(network), from.other().host(network));
    limit_receive_buffer(server).unwrap();
    let path = Flow { client, server, address: from.other().addresses().1.into() };
    let transfer = Transfer::start(&path, None).unwrap();
    wait_until("the transfer runs", || transfer.received() > 1 << 20);
    let port = match from {
        End::A => "toB",
        End::B => "toA",
    };
    let hole = network.router.black_hole(port, 1300, &[UNDERLAY_A, UNDERLAY_B]).unwrap();
    (transfer, hole)
}

/// For comparison, Linux at both ends: neither detects the black hole.
#[test(alone, root, ipip)]
fn a_transfer_between_linux_and_linux_hangs() {
    let network = TwoSites::build().unwrap();
    linux(&network, End::A, Linux::Usual);
    linux(&network, End::B, Linux::Usual);
    // The hole stays open, so the transfer fails by itself.
    let (transfer, _hole) = start_and_open_hole(&network, End::A);
    assert_eq!(time_to_recover(&transfer, STANDSTILL), None, "the transfer recovered by itself");
}

/// Adit encapsulates the transfer and Linux decapsulates it. The peer needs no support for probes.
#[expect(clippy::print_stderr, reason = "the figure is what the test is for")]
fn a_transfer_to_linux_survives_a_black_hole(plane: DataplaneChoice) {
    for end in End::BOTH {
        let network = TwoSites::build().unwrap();
        let _overlay = adit(&network, end, plane);
        linux(&network, end.other(), Linux::Usual);
        let (transfer, hole) = start_and_open_hole(&network, end);
        let took = time_to_recover(&transfer, RECOVERY_LIMIT);
        assert!(took.is_some(), "with Adit at {end:?} the transfer still hangs after {RECOVERY_LIMIT:?}");
        let took = took.unwrap_or_default().as_secs_f64();
        eprintln!("{plane:?} at {end:?}, Linux at the other end: the transfer went on after {took:.1} s");
        transfer.finish().unwrap();
        hole.remove().unwrap();
    }
}

on_every_plane! {
    needs adit_testbed::needs::ipip;
    a_transfer_to_linux_survives_a_black_hole,
}
