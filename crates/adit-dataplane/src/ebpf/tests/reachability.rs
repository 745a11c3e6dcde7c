//! Reachability that a program notes without asking userspace.

use adit_fixtures::packet::{a_to_b, theirs, udp};
use adit_fixtures::site::{B, C, HOST_A, HOST_B, HOST_C};
use adit_fixtures::{Direction, Program, Setup};

use super::gateway::Gateway;
use super::programs::Programs;

/// RFC 2003 section 5: senders are told that a peer is unreachable until a datagram comes from it,
/// and no longer.
#[test(super::ebpf)]
fn a_datagram_from_a_peer_ends_its_unreachability_at_once() {
    let mut setup = Setup::default();
    setup.paths[0].owed = true;
    let mut programs = Programs::load(&Gateway::new(&setup).tunnel, &setup);
    let mut verdict =
        |way, packet: adit_fixtures::Packet| programs.run(way, &packet).expect("it can be run").verdict;
    assert_eq!(verdict(Direction::Encap, a_to_b().into()), Program::Declines, "its sender is owed an answer");
    let of_another = theirs(C, udp(HOST_C, HOST_A, 100));
    assert_eq!(verdict(Direction::Decap, of_another.into()), Program::Carries);
    assert_eq!(verdict(Direction::Encap, a_to_b().into()), Program::Declines, "that was another peer");
    assert_eq!(verdict(Direction::Decap, theirs(B, udp(HOST_B, HOST_A, 100)).into()), Program::Carries);
    assert_eq!(verdict(Direction::Encap, a_to_b().into()), Program::Carries);
}
