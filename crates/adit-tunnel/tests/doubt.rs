//! Whom to believe: ICMP errors that anybody may have forged, of every type and code, about peers
//! in every state, in virtual time. Floods of them are in `forged_matrix.rs`. Compare `probing.rs`,
//! where routers tell the truth.

mod common;

use adit_tunnel::{PeerIndex, Reachability, UNANSWERED_TIMEOUT};
use adit_wire::icmpv4::Icmpv4Error;
use common::forging::*;
use common::*;

/// What an error does where it is believed: the errors that senders get, and whether the state of
/// the peer changes.
fn believed(error: Icmpv4Error) -> (Option<Icmpv4Error>, bool) {
    match error {
        Icmpv4Error::DestinationUnreachable { code: 3 | 5 | 16.. } => (None, false),
        Icmpv4Error::DestinationUnreachable { .. } | Icmpv4Error::TimeExceeded { .. } => {
            (Some(unreachable(1)), true)
        }
        Icmpv4Error::TooBig { mtu: 1500.. } => (None, false),
        Icmpv4Error::TooBig { mtu } => {
            let told = if mtu == 0 { 1492 } else { mtu.max(552) };
            (Some(Icmpv4Error::TooBig { mtu: told - 20 }), true)
        }
        Icmpv4Error::ParameterProblem { code, pointer: 1 } => {
            (Some(Icmpv4Error::ParameterProblem { code, pointer: 1 }), false)
        }
        Icmpv4Error::ParameterProblem { code, pointer: 29 } => {
            (Some(Icmpv4Error::ParameterProblem { code, pointer: 9 }), false)
        }
        Icmpv4Error::ParameterProblem { .. } | Icmpv4Error::SourceQuench | Icmpv4Error::Redirect { .. } => {
            (None, false)
        }
    }
}

#[test]
fn rfc5927_s7_a_forged_error_harms_no_peer_that_answers_or_is_not_in_use() {
    for pair in [Pair::NeverUsed, Pair::Idle, Pair::Active, Pair::Mute] {
        for error in errors() {
            for quoted in [28, 48, 576] {
                let mut peers = Peers::new(pair, 1, true);
                peers.forge(error, 0, quoted);
                assert!(peers.is_unharmed(), "{pair:?}, {error:?}, at once");
                peers.run(SECOND * 15);
                assert!(peers.is_unharmed(), "{pair:?}, {error:?}, {quoted} bytes: {:?}", peers.told);
            }
        }
    }
}

#[test]
fn an_error_about_a_peer_from_which_nothing_comes_is_believed_after_three_seconds() {
    for error in errors() {
        let (told, changes) = believed(error);
        let mut peers = Peers::new(Pair::OneWay, 1, true);
        // The second one pays for the probe of the first.
        for _ in 0..2 {
            peers.forge(error, 0, 576);
        }
        let after = peers.run_until(SECOND * 9, |peers| !peers.is_unharmed());
        let expected = UNANSWERED_TIMEOUT..UNANSWERED_TIMEOUT + STEP * 4;
        assert_eq!(
            after.is_some_and(|after| expected.contains(&after)),
            told.is_some(),
            "{error:?}: {after:?}"
        );
        assert_eq!(peers.told, Vec::from_iter(told), "{error:?}");
        let state = peers.gateway.tunnel.reachability(PEER_B) != Reachability::Assumed
            || peers.gateway.tunnel.path_mtu(PEER_B).learned.is_some();
        assert_eq!(state, changes, "{error:?}");
    }
}

#[test]
fn without_probes_an_error_is_believed_by_its_quote() {
    for pair in Pair::ALL {
        for error in errors() {
            let mut peers = Peers::new(pair, 1, false);
            peers.forge(error, 0, 576);
            assert_eq!(peers.told, Vec::from_iter(believed(error).0), "{pair:?}, {error:?}");
        }
    }
}

#[test]
fn rfc5927_s7_one_forged_too_big_at_each_of_thousands_of_active_peers_harms_none() {
    let mut peers = Peers::new(Pair::Active, 5000, true);
    for peer in 0..5000 {
        peers.forge(Icmpv4Error::TooBig { mtu: 68 }, peer, 48);
    }
    peers.run(SECOND * 10);
    assert!(peers.is_unharmed());
}

#[test]
fn rfc8899_s4_3_black_holes_are_found_in_six_seconds_with_ten_thousand_active_peers() {
    let mut peers = Peers::new(Pair::Active, 10_000, true);
    let before = peers.probes.0;
    peers.run(SECOND * 10);
    let probes = (peers.probes.0 - before) / 10;
    assert!((4_900..=5_100).contains(&probes), "each is confirmed every two seconds: {probes} a second");
    peers.takes = 1387;
    let found = peers.run_until(SECOND * 20, |peers| {
        (0..10_000).map(PeerIndex::new).all(|peer| peers.gateway.tunnel.path_mtu(peer).learned.is_some())
    });
    assert!(found.is_some_and(|after| after <= SECOND * 6), "{found:?}");
}
