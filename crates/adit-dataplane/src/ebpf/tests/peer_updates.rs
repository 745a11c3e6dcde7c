//! Programs whose peers change while they run decide as newly loaded programs do.

use adit_fixtures::packet::{theirs, udp};
use adit_fixtures::site::{B, FLOW_KEY, HOST_A, HOST_B, HOST_C};
use adit_fixtures::{Direction, Packet, Path, Program, Setup};
use adit_policy::DropReason;
use adit_policy::FlowKey;
use adit_tunnel::{Peer, PeerSet, Tunnel, TunnelConfig};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

use super::programs::Programs;
use super::strategies::{over, packets, setup_over};

const CASES: u32 = 8;
const CHANGES: usize = 4;
const PACKETS: usize = 60;
/// The same in every run, unless `PROPTEST_RNG_SEED` says otherwise.
const SEED: u64 = 2003;

/// Successive peers of one site, and packets for each state.
fn lives() -> impl Strategy<Value = Vec<(Setup, Vec<(Direction, Packet)>)>> {
    let setups = |over| {
        let others = proptest::collection::vec(setup_over(over), CHANGES);
        (setup_over(over), others)
    };
    over().prop_flat_map(setups).prop_flat_map(|(first, others)| {
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
    let networks = site.peers.site_networks();
    let mut peers = PeerSet::nested(Some(site.underlay), networks.iter().copied()).expect("no conflict");
    for peer in &other.config.peers {
        let mut peer = Peer::clone(peer);
        peer.networks.retain(|network| !networks.contains(network));
        peers.insert(peer).expect("no conflict");
    }
    let config = TunnelConfig { peers, ..site.clone() };
    let paths = config.peers.iter().map(|_| Path::of(1500)).collect();
    Setup { config, paths, forwards: true }
}

/// A tunnel that labels flows as all others here do.
fn tunnel(setup: &Setup) -> Tunnel {
    let tunnel = Tunnel::new(setup.config.clone()).expect("a valid configuration");
    tunnel.with_flow_key(FlowKey(FLOW_KEY))
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
        let mut tunnel = tunnel(first);
        let mut programs = Programs::load(&tunnel, first);
        // Fills the programs' caches, which must not outlive the change.
        for (direction, packet) in packets {
            programs.run(*direction, packet).map_err(TestCaseError::fail)?;
        }
        for pair in lives.windows(2) {
            let ((_, earlier), (setup, packets)) = (&pair[0], &pair[1]);
            let delta = tunnel.config().peers.delta_to(&setup.config.peers);
            let (amended, steps) = tunnel.with_peers(&delta).expect("no conflict");
            if amended.config().peers.has_ipv6() == tunnel.config().peers.has_ipv6() {
                programs.update_peers(&amended, &steps);
            } else {
                // Another interface: everything is installed again.
                programs = Programs::load(&amended, setup);
            }
            tunnel = amended;
            let mut new = Programs::load(&self::tunnel(setup), setup);
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

/// A program may look up the inner source before a step of the change, and the outer one after it.
/// The pair then looks forged although it is not.
#[test(super::ebpf)]
fn what_programs_refuse_during_a_change_is_left_to_userspace() {
    let setup = Setup::default();
    let mut programs = Programs::load(&tunnel(&setup), &setup);
    let verdict = |programs: &mut Programs, inner_source| {
        let packet = theirs(B, udp(inner_source, HOST_A, 100));
        programs.run(Direction::Decap, &packet.into()).expect("it can be run").verdict
    };
    let drops = |programs: &Programs| programs.totals().drops_of(DropReason::InnerSourceNotFromPeer);
    for changes in 1..3 {
        programs.begin_change();
        assert_eq!(verdict(&mut programs, HOST_B), Program::Carries);
        assert_eq!(verdict(&mut programs, HOST_C), Program::Declines);
        assert_eq!(drops(&programs), changes - 1);
        programs.end_change();
        assert_eq!(verdict(&mut programs, HOST_C), Program::Drops);
        assert_eq!(drops(&programs), changes);
    }
}
