//! A peer that is left to the host's stack, for its policies of IPsec: the program declines
//! whatever arrives from it.

use adit_fixtures::packet::{theirs, udp};
use adit_fixtures::site::{B, C, HOST_A, HOST_B, HOST_C};
use adit_fixtures::{Direction, Packet, Program, Setup};
use adit_tunnel::PeerIndex;

use super::gateway::Gateway;
use super::programs::Programs;

#[test(super::ebpf)]
fn what_arrives_from_it_is_declined_as_it_came() {
    let setup = Setup::default();
    let tunnel = Gateway::new(&setup).tunnel;
    tunnel.leave_to_stack(PeerIndex::new(0), true);
    let mut programs = Programs::load(&tunnel, &setup);
    let packets: [Packet; 2] =
        [theirs(B, udp(HOST_B, HOST_A, 100)).into(), theirs(B, udp(HOST_B, HOST_C, 100)).into()];
    for packet in packets {
        let ran = programs.run(Direction::Decap, &packet).expect("it can be run");
        assert_eq!(ran.verdict, Program::Declines, "{packet:?}");
        assert_eq!(ran.bytes, packet.bytes);
    }
    assert_eq!(programs.totals().peers[0].rx_packets, 0);
    let of_another = theirs(C, udp(HOST_C, HOST_A, 100)).into();
    assert_eq!(programs.run(Direction::Decap, &of_another).expect("it can be run").verdict, Program::Carries);
}
