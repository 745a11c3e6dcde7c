//! The path MTU between Adit and Linux, with a narrow link at the router.

use adit_config::DataplaneChoice;
use adit_lab::ping::{Answer, ping};
use adit_lab::throughput::Flow;
use adit_lab::two_sites::{HOST_B, INSIDE_A, TwoSites};
use adit_testbed::transfer::Transfer;
use adit_tunnel::PeerIndex;
use adit_wire::icmpv4::Icmpv4Error;

use crate::planes::on_every_plane;
use crate::support::{ATTEMPT_TIMEOUT, snmp, wait_until};
use crate::testbed::{End, Linux, adit, linux};

const TOO_BIG: Answer = Answer::Refused { by: INSIDE_A, error: Icmpv4Error::TooBig { mtu: 1380 } };

fn narrow() -> TwoSites {
    let network = TwoSites::build().unwrap();
    network.router.mtu("toB", 1400).unwrap();
    network.gateway_b.mtu("underlayB", 1400).unwrap();
    network
}

fn ask(network: &TwoSites, size: usize) -> Answer {
    network.host_a.run(|| ping(HOST_B, size, 64, 4 * ATTEMPT_TIMEOUT)).unwrap()
}

fn transfer(network: &TwoSites) {
    let path = Flow { client: &network.host_a, server: &network.host_b, address: HOST_B.into() };
    let transfer = Transfer::start(&path, None).unwrap();
    wait_until("1 MiB has arrived", || transfer.received() > 1 << 20);
    transfer.finish().unwrap();
    assert_eq!(snmp(&network.router, "Ip", "FragCreates"), 0);
}

/// The sender of the refused datagram receives the error.
fn adit_learns_the_path_mtu_and_reports_it(plane: DataplaneChoice) {
    let network = narrow();
    let overlay = adit(&network, End::A, plane);
    linux(&network, End::B, Linux::Usual);
    assert_eq!(ask(&network, 1480), TOO_BIG);
    let learned = overlay.plane().tunnel().path_mtu(PeerIndex::new(0));
    assert_eq!((learned.mtu, learned.learned.is_some()), (1400, true));
    assert!(ask(&network, 1380).is_reply());
    transfer(&network);
}

/// The first sender receives nothing, and the next one receives the error. Adit at the other end
/// accepts the datagrams that fit.
fn linux_learns_the_path_mtu_with_adit_as_its_peer(plane: DataplaneChoice) {
    let network = narrow();
    linux(&network, End::A, Linux::Usual);
    let _overlay = adit(&network, End::B, plane);
    assert_eq!(ask(&network, 1480), Answer::Silence, "the driver only stores the MTU");
    assert_eq!(ask(&network, 1480), TOO_BIG);
    assert!(ask(&network, 1380).is_reply());
    transfer(&network);
}

on_every_plane! {
    needs adit_testbed::needs::ipip;
    adit_learns_the_path_mtu_and_reports_it,
    linux_learns_the_path_mtu_with_adit_as_its_peer,
}
