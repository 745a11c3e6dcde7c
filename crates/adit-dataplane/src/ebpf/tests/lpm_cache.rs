//! The programs' caches of owners: addresses that share an entry keep their own owners.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_fixtures::packet::udp;
use adit_fixtures::packet_v6::udp_v6;
use adit_fixtures::site::{A, B, C, HOST_A, HOST_A6};
use adit_fixtures::{Direction, Packet, Program, Setup};
use adit_tunnel::{Peer, PeerSet};

use super::gateway::Gateway;
use super::programs::Programs;

/// More than the cache has entries.
const ADDRESSES: u32 = 1500;

#[test(super::ebpf)]
fn addresses_that_share_an_entry_keep_their_own_owners() {
    // With PREEMPT_RT there is no cache of IPv6.
    for is_preemptible in [false, true] {
        every_address_has_its_owner(is_preemptible);
    }
}

fn every_address_has_its_owner(is_preemptible: bool) {
    let mut setup = Setup::default();
    let ours = ["172.16.17.0/24", "2001:db8:17::/48"].map(|network| network.parse().unwrap());
    let mut peers = PeerSet::new(Some(A.into()), ours).unwrap();
    for (name, underlay, networks) in
        [("b", B, ["32.0.0.0/8", "2020::/16"]), ("c", C, ["33.0.0.0/8", "2021::/16"])]
    {
        let networks = networks.map(|network| network.parse().unwrap()).into();
        let name = name.parse().unwrap();
        let path = adit_tunnel::PathOptions::default();
        peers.insert(Peer { name, underlay: underlay.into(), networks, path }).unwrap();
    }
    setup.config.peers = peers;
    let mut programs = Programs::load_for(&Gateway::new(&setup).tunnel, &setup, is_preemptible);
    let mut owner = |packet: Vec<u8>| {
        let ran = programs.run(Direction::Encap, &Packet::from(packet)).unwrap();
        (ran.verdict == Program::Carries).then(|| <[u8; 4]>::try_from(&ran.bytes[16..20]).unwrap())
    };
    for number in 0..ADDRESSES {
        // Each is looked up twice in a row, so that the second answer is the cache's.
        for (network, peer) in [(0x20_u8, Some(B)), (0x21, Some(C)), (0x22, None)] {
            let peer = peer.map(|peer: Ipv4Addr| peer.octets());
            let scattered = scattered(number);
            let to = Ipv4Addr::from_bits(u32::from(network) << 24 | scattered >> 8);
            // The halves vary apart and together.
            let half = |is_varied: bool| if is_varied { u64::from(scattered) } else { 7 };
            let (high, low) = (half(number % 3 != 0), half(number % 3 != 1));
            let front = (0x2000 | u64::from(network)) << 48;
            let to_v6 = Ipv6Addr::from_bits(u128::from(front | high) << 64 | u128::from(low));
            for _ in 0..2 {
                assert_eq!(owner(udp(HOST_A, to, 100).build()), peer, "{to}");
                assert_eq!(owner(udp_v6(HOST_A6, to_v6, 100).build()), peer, "{to_v6}");
            }
        }
    }
}

/// Not linear, as the caches' hashes are: addresses of both peers then share entries at once.
fn scattered(number: u32) -> u32 {
    let mixed = number.wrapping_mul(0x9e37_79b1);
    (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b)
}
