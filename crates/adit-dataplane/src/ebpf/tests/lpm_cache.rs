//! The programs' cache of owners: addresses that share an entry keep their own owners.

use std::net::Ipv4Addr;

use adit_fixtures::packet::udp;
use adit_fixtures::site::{A, B, C, HOST_A};
use adit_fixtures::{Direction, Packet, Program, Setup};
use adit_tunnel::{Peer, PeerSet};

use super::gateway::Gateway;
use super::programs::Programs;

/// More than the cache has entries.
const ADDRESSES: u32 = 1500;

#[test(super::ebpf)]
fn addresses_that_share_an_entry_keep_their_own_owners() {
    let mut setup = Setup::default();
    let mut peers = PeerSet::new(Some(A.into()), ["172.16.17.0/24".parse().unwrap()]).unwrap();
    for (name, underlay, network) in [("b", B, "20.0.0.0/8"), ("c", C, "21.0.0.0/8")] {
        let (name, networks) = (name.parse().unwrap(), vec![network.parse().unwrap()]);
        let path = adit_tunnel::PathOptions::default();
        peers.insert(Peer { name, underlay: underlay.into(), networks, path }).unwrap();
    }
    setup.config.peers = peers;
    let mut programs = Programs::load(&Gateway::new(&setup).tunnel, &setup);
    let mut owner = |network: u8, number: u32| {
        let to = Ipv4Addr::from_bits(u32::from(network) << 24 | number.wrapping_mul(0x9e37_79b1) >> 8);
        let ran = programs.run(Direction::Encap, &Packet::from(udp(HOST_A, to, 100))).unwrap();
        (ran.verdict == Program::Carries).then(|| <[u8; 4]>::try_from(&ran.bytes[16..20]).unwrap())
    };
    for number in 0..ADDRESSES {
        // Each is looked up twice in a row, so that the second answer is the cache's.
        for (network, peer) in [(20, Some(B)), (21, Some(C)), (22, None)] {
            for _ in 0..2 {
                assert_eq!(owner(network, number), peer.map(|peer| peer.octets()), "{network}, {number}");
            }
        }
    }
}
