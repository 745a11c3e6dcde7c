//! Floods of forged ICMP errors of every type, about one peer and 5,000 of them, in every state, at
//! 1, 20 and 500 a second, in virtual time: no sender is told, nothing is learned, new connections
//! pass, and nothing is amplified. `cargo test -p adit-tunnel --test forged_matrix -- --nocapture`
//! prints a table.

mod common;

use std::fmt::Write;

use adit_tunnel::Encapsulated;
use adit_wire::icmpv4::Icmpv4Error;
use common::forging::*;
use common::*;

/// Errors per second.
const RATES: [u64; 3] = [1, 20, 500];

/// The types of RFC 792, each with all its codes.
fn types() -> Vec<Vec<Icmpv4Error>> {
    let mut types: Vec<Vec<Icmpv4Error>> = Vec::new();
    for error in errors() {
        let of_type = |errors: &&mut Vec<Icmpv4Error>| {
            let first = errors.first().map(std::mem::discriminant);
            first == Some(std::mem::discriminant(&error))
        };
        match types.iter_mut().find(of_type) {
            Some(errors) => errors.push(error),
            None => types.push(vec![error]),
        }
    }
    assert_eq!(types.len(), 6, "unreachable, too big, quench, redirect, time exceeded, parameter problem");
    types
}

/// Packets and their bytes.
type Amount = (u64, u64);

/// What a flood of all types, one after the other, has led to.
struct Flood {
    forged: Amount,
    probes: Amount,
    /// Errors that senders got.
    told: usize,
    /// New connections, and those whose first datagram did not leave.
    connections: (u64, u64),
    is_harmless: bool,
}

/// Lets `steps` steps pass for each type, with `rate` forged errors a second, about the peers in
/// turn. Ten times a second a host connects to a peer that errors are forged about.
fn flood(pair: Pair, count: u32, rate: u64, steps: u64) -> Flood {
    let mut peers = Peers::new(pair, count, true);
    let before = peers.probes;
    let (mut forged, mut connections) = ((0, 0), (0, 0));
    for (errors, part) in types().iter().zip(0..) {
        for step in part * steps..(part + 1) * steps {
            for _ in 0..(step + 1) * rate / 100 - step * rate / 100 {
                let error = errors[forged.0 as usize % errors.len()];
                forged.1 += peers.forge(error, (forged.0 % u64::from(count)) as u32, 48) as u64;
                forged.0 += 1;
            }
            if step % 10 == 0 {
                connections.0 += 1;
                connections.1 += u64::from(!connects(&peers, (forged.0 % u64::from(count)) as u32));
            }
            peers.run(STEP);
        }
    }
    Flood {
        forged,
        probes: (peers.probes.0 - before.0, peers.probes.1 - before.1),
        told: peers.told.len(),
        connections,
        is_harmless: peers.is_unharmed(),
    }
}

/// Whether a SYN and a full-size datagram to a peer leave as they are.
fn connects(peers: &Peers, peer: u32) -> bool {
    let full = datagram(HOST_A, host(peer)).len(1480).df(true).build();
    [syn(HOST_A, host(peer)).build(), full]
        .iter()
        .all(|inner| matches!(peers.gateway.encapsulate(inner), Encapsulated::Forward { .. }))
}

/// Compares each flood with the same time without, and prints the table.
#[expect(clippy::print_stdout, reason = "the table is for people")]
fn matrix(count: u32, steps: u64) {
    let mut table = String::from(
        "pair       peers  per s |  forged    bytes | probes more    bytes | told | connections refused\n",
    );
    let mut failures = Vec::new();
    for pair in Pair::ALL {
        let without = flood(pair, count, 0, steps);
        for rate in RATES {
            let flood = flood(pair, count, rate, steps);
            let more = (
                flood.probes.0.saturating_sub(without.probes.0),
                flood.probes.1.saturating_sub(without.probes.1),
            );
            let Flood { forged, probes, told, connections, is_harmless } = flood;
            let name = format!("{pair:?}");
            let row = format!(
                "{name:10} {count:5} {rate:6} | {:7} {:8} | {:11} {:8} | {told:4} | {} of {}",
                forged.0, forged.1, more.0, more.1, connections.1, connections.0
            );
            writeln!(table, "{row}").unwrap();
            let is_not_amplified = match pair {
                Pair::NeverUsed | Pair::Idle => probes == (0, 0),
                // An error only brings a confirmation forward, that of each peer by one at most.
                Pair::Active => more.0 <= u64::from(count).min(forged.0),
                Pair::Mute | Pair::OneWay => more.0 <= forged.0 && more.1 <= forged.1,
            };
            // Nothing disproves an error about a peer from which nothing ever comes.
            let is_unharmed = pair == Pair::OneWay || is_harmless && told == 0 && connections.1 == 0;
            if !is_not_amplified || !is_unharmed {
                failures.push(row);
            }
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn rfc5927_s7_a_flood_of_every_type_about_one_peer_is_harmless_and_not_amplified() {
    matrix(1, 300);
}

#[test]
fn rfc5927_s7_a_flood_of_every_type_about_thousands_of_peers_is_harmless_and_not_amplified() {
    matrix(5000, 60);
}
