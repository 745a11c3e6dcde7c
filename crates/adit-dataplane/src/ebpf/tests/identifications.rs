//! Identifications: the one field that the two planes need not write alike (RFC 6864 section 4).

use adit_fixtures::packet::{a_to_b, tcp, theirs, udp};
use adit_fixtures::site::{B, HOST_A, HOST_B, HOST_C};
use adit_fixtures::{Direction, Packet, Program, Setup};

use super::gateway::Gateway;
use super::programs::Programs;

/// DF and identification of the outer header that a program has written.
fn written(programs: &mut Programs, direction: Direction, packet: impl Into<Packet>) -> (bool, u16) {
    let ran = programs.run(direction, &packet.into()).expect("it can be run");
    assert_eq!(ran.verdict, Program::Carries);
    (ran.bytes[6] & 0x40 != 0, u16::from_be_bytes([ran.bytes[4], ran.bytes[5]]))
}

#[test(super::ebpf)]
fn identifications_of_fragmentable_datagrams_count_up_for_each_peer() {
    let mut setup = Setup::default();
    setup.config.outer.df = false;
    let mut programs = Programs::load(&Gateway::new(&setup).tunnel, &setup);
    let to_c = || udp(HOST_A, HOST_C, 100);
    let (_, first) = written(&mut programs, Direction::Encap, a_to_b());
    assert_eq!(written(&mut programs, Direction::Encap, a_to_b()), (false, first.wrapping_add(1)));
    // Atomic: any will do, and none is used up.
    assert_eq!(written(&mut programs, Direction::Encap, a_to_b().df(true)), (true, 0));
    assert_eq!(written(&mut programs, Direction::Encap, a_to_b()), (false, first.wrapping_add(2)));
    let (_, of_c) = written(&mut programs, Direction::Encap, to_c());
    // Five datagrams. The kernel writes their lengths and identifications when it segments.
    let gso_packet = theirs(B, tcp(HOST_B, HOST_C, 0x10, &[], &[1; 2100])).cut_at(500);
    assert_eq!(written(&mut programs, Direction::Decap, gso_packet), (false, of_c.wrapping_add(1)));
    assert_eq!(written(&mut programs, Direction::Encap, to_c()), (false, of_c.wrapping_add(6)));
}
