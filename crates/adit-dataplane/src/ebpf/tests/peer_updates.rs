//! Programs whose peers change while they run decide as newly loaded programs do.

use adit_fixtures::{Direction, Packet, Path, Setup};
use adit_policy::bpf::maps::PeerEntry;
use adit_tunnel::{Amendment, Tunnel, TunnelConfig};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};
use std::net::{IpAddr, Ipv4Addr};

use super::programs::Programs;
use super::strategies::{packets, setup};

const CASES: u32 = 8;
const CHANGES: usize = 4;
const PACKETS: usize = 60;
/// The same in every run, unless `PROPTEST_RNG_SEED` says otherwise.
const SEED: u64 = 2003;

/// Successive peers of one site, and packets for each state.
fn lives() -> impl Strategy<Value = Vec<(Setup, Vec<(Direction, Packet)>)>> {
    (setup(), proptest::collection::vec(setup(), CHANGES)).prop_flat_map(|(first, others)| {
        let mut site = first.config.clone();
        // Without DF, identifications would count up and differ.
        site.outer.df = true;
        let setups = std::iter::once(first).chain(others).map(|other| with_peers(&site, &other));
        let lives: Vec<_> = setups
            .map(|setup| {
                let packets = packets(&setup, PACKETS);
                (Just(setup), packets)
            })
            .collect();
        lives
    })
}

/// The site with the peers of another setup, without networks that are its own.
fn with_peers(site: &TunnelConfig, other: &Setup) -> Setup {
    let mut peers = other.config.peers.clone();
    for peer in &mut peers {
        peer.networks.retain(|network| !site.networks.contains(network));
    }
    let config = TunnelConfig { peers, ..site.clone() };
    let paths = config.peers.iter().map(|_| Path::of(1500)).collect();
    Setup { config, paths, forwards: true }
}

fn address(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => panic!("a tunnel over IPv4"),
    }
}

fn between(before: &Setup, after: &Setup) -> Amendment {
    let (before, after) = (&before.config.peers, &after.config.peers);
    let gone = before.iter().filter(|peer| after.iter().all(|other| other.underlay != peer.underlay));
    Amendment {
        removed: gone.map(|peer| address(peer.underlay)).collect(),
        set: after.iter().filter(|peer| !before.contains(peer)).cloned().collect(),
    }
}

#[test(super::ebpf)]
fn programs_with_changed_peers_decide_as_new_ones() {
    let config = ProptestConfig {
        cases: CASES,
        rng_seed: RngSeed::Fixed(SEED),
        failure_persistence: None,
        max_shrink_iters: 50,
        ..ProptestConfig::default()
    };
    let outcome = TestRunner::new(config).run(&lives(), |lives| {
        let (first, packets) = &lives[0];
        let mut tunnel = Tunnel::new(first.config.clone()).expect("a valid configuration");
        let mut programs = Programs::load(&tunnel, first);
        // Fills the programs' caches, which must not outlive the change.
        for (direction, packet) in packets {
            programs.run(*direction, packet).map_err(TestCaseError::fail)?;
        }
        for pair in lives.windows(2) {
            let ((before, earlier), (setup, packets)) = (&pair[0], &pair[1]);
            let Ok((amended, steps)) = tunnel.amended(&between(before, setup)) else {
                // An underlay address lies in a network.
                return Err(TestCaseError::reject("no tunnel that there can be"));
            };
            programs.update_peers(&amended, &steps, |underlay| PeerEntry {
                underlay: underlay.octets(),
                next_hop: underlay.octets(),
                device: super::programs::DEVICE,
                path_mtu: 1500,
                owes_answer: 0,
            });
            tunnel = amended;
            let mut new =
                Programs::load(&Tunnel::new(setup.config.clone()).expect("a valid configuration"), setup);
            for (direction, packet) in earlier.iter().chain(packets) {
                let amended = programs.run(*direction, packet).map_err(TestCaseError::fail)?;
                let new = new.run(*direction, packet).map_err(TestCaseError::fail)?;
                prop_assert_eq!(amended.verdict, new.verdict, "{:?} {:?}", direction, packet);
                prop_assert_eq!(amended.bytes, new.bytes, "{:?} {:?}", direction, packet);
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
