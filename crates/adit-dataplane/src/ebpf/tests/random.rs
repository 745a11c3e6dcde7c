//! Random tunnels and packets: the two planes never disagree, and the programs carry what is
//! ordinary.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_fixtures::{Direction, Outcome, Packet, Program, Setup};
use adit_policy::OwnerLookup;
use adit_wire::Protocol;
use adit_wire::Validation;
use adit_wire::ipv4::{HEADER_LEN, Ipv4Packet};
use adit_wire::ipv6::{self, Ipv6Packet, is_ipv6};
use adit_wire::tcp::TcpFlags;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};

use super::agreement::{Seen, combination, compare};
use super::gateway::{Gateway, is_for_a_peer};
use super::programs::{MTU, Programs};
use super::strategies::{packets, setup};

/// Number of tunnels, unless `PROPTEST_CASES` says otherwise.
const TUNNELS: u32 = 64;
/// Packets for each tunnel. Loading programs takes as long as running them on hundreds.
const PACKETS: usize = 225;
/// The same packets in every run, unless `PROPTEST_RNG_SEED` says otherwise.
const SEED: u64 = 2003;

#[test(super::ebpf)]
fn the_two_planes_never_disagree() {
    let seen = RefCell::new(BTreeMap::<String, u32>::new());
    let loaded = Cell::new(0);
    let tunnels = setup().prop_flat_map(|setup| {
        let packets = packets(&setup, PACKETS);
        (Just(setup), packets)
    });
    let outcome = runner().run(&tunnels, |(setup, packets)| {
        // Every second tunnel counts as on a kernel with PREEMPT_RT.
        let is_preemptible = loaded.replace(loaded.get() + 1) % 2 == 1;
        let mut programs = Programs::load_for(&Gateway::new(&setup).tunnel, &setup, is_preemptible);
        for (direction, packet) in &packets {
            let found = examine(&mut programs, &setup, *direction, packet).map_err(TestCaseError::fail)?;
            let kind = format!("{}, {}", combination(&setup, *direction, packet), kind(*direction, &found));
            *seen.borrow_mut().entry(kind).or_default() += 1;
        }
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (setup, _))) => panic!("{why}\non {setup:#?}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    let seen = seen.into_inner();
    tell(&seen);
    // Agreement proves nothing about cases that never occur.
    for combination in ["4in4", "6in4", "4in6", "6in6", "4in4 or 6", "6in4 or 6"] {
        // What arrives has one family.
        let is_either = combination.ends_with("or 6");
        let least = if is_either { 10 } else { 20 };
        for expected in EXPECTED.into_iter().filter(|case| !is_either || case.starts_with("Encap")) {
            let count = seen.get(&format!("{combination}, {expected}"));
            assert!(
                count.is_some_and(|count| *count >= least),
                "{combination}, hardly ever: {expected}: {seen:#?}"
            );
        }
    }
}

/// Cases that must occur with each combination of families.
const EXPECTED: [&str; 8] = [
    "Encap, carried: sent",
    "Encap, dropped: dropped",
    "Encap, declined: sent",
    "Encap, declined: answered",
    "Decap, carried: delivered",
    "Decap, carried: sent",
    "Decap, dropped: dropped",
    "Decap, declined: dropped",
];

#[expect(clippy::print_stderr, reason = "how often what came up is worth reading")]
fn tell(seen: &BTreeMap<String, u32>) {
    for (kind, count) in seen {
        eprintln!("{count:6} {kind}");
    }
}

fn runner() -> TestRunner {
    let given = ProptestConfig::default();
    let rng_seed = match given.rng_seed {
        RngSeed::Random => RngSeed::Fixed(SEED),
        fixed => fixed,
    };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { given.cases } else { TUNNELS };
    let config =
        ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 400, ..given };
    TestRunner::new(config)
}

fn kind(direction: Direction, seen: &Seen) -> String {
    let program = match seen.program {
        Program::Carries => "carried",
        Program::Drops => "dropped",
        Program::Declines => "declined",
    };
    let outcome = match &seen.outcome {
        Outcome::Sent(_) => "sent",
        Outcome::Delivered(_) => "delivered",
        Outcome::Dropped(_) => "dropped",
        Outcome::Answered { .. } | Outcome::AnsweredV6 { .. } => "answered",
    };
    format!("{direction:?}, {program}: {outcome}")
}

fn examine(
    programs: &mut Programs,
    setup: &Setup,
    direction: Direction,
    packet: &Packet,
) -> Result<Seen, String> {
    let seen = compare(programs, setup, direction, packet)?;
    if seen.program != Program::Carries && is_ordinary(setup, direction, packet, &seen.outcome) {
        return Err(format!("{direction:?}: ordinary, and not carried: {packet:?}\n{:?}", seen.outcome));
    }
    Ok(seen)
}

/// Whether a packet is one that the programs must carry: without options, not fragmented, to a peer
/// whose next hop is known and whose senders are owed nothing, no ICMP of a gateway's, and no SYN
/// whose MSS is not its first option. Of GSO packets only relayed ones: the kernel does not let a
/// test run change the length of others.
fn is_ordinary(setup: &Setup, direction: Direction, packet: &Packet, outcome: &Outcome) -> bool {
    let bytes = &packet.bytes;
    let over_ipv6 = is_ipv6(bytes);
    let outer_len = header_len(bytes);
    let (outer, inner) = match direction {
        Direction::Encap => (None, Some(&bytes[..])),
        Direction::Decap => (Some(bytes), bytes.get(outer_len..)),
    };
    let is_plain = |inner: &&[u8]| match inner.first() {
        Some(0x45) => true,
        Some(first) => first >> 4 == 6 && inner.get(6).is_some_and(|next| !EXTENSIONS.contains(next)),
        None => false,
    };
    let Some(inner) = inner.filter(is_plain) else { return false };
    let unoptioned = outer.is_none_or(|outer| {
        if over_ipv6 { !EXTENSIONS.contains(&outer[6]) } else { outer.first() == Some(&0x45) }
    });
    let open = setup.paths.iter().all(|path| path.known && !path.owed);
    let ends = match outcome {
        Outcome::Sent(frames) if packet.gso_size.is_none() => frames.len() == 1,
        Outcome::Sent(frames) => {
            direction == Direction::Decap && !frames.iter().any(|frame| is_fragment(frame, header_len(frame)))
        }
        // Of IPv6, what the visible end does not take is dropped.
        Outcome::Delivered(inner) => {
            let fits = !is_ipv6(inner) || inner.len() <= usize::from(MTU);
            packet.gso_size.is_none() && fits && !is_for_a_peer(&Gateway::new(setup).tunnel, inner)
        }
        Outcome::Dropped(_) | Outcome::Answered { .. } | Outcome::AnsweredV6 { .. } => false,
    };
    // A hub does not replace an outer header by one of the other family.
    let is_relayed_as_it_came = match outcome {
        Outcome::Sent(frames) => {
            direction == Direction::Encap || frames.iter().all(|frame| is_ipv6(frame) == over_ipv6)
        }
        _ => true,
    };
    // An inner fragment is for userspace, because its siblings may be.
    let in_pieces = direction == Direction::Decap && is_fragment(bytes, outer_len);
    let is_answer = direction == Direction::Decap && is_of_gateways(setup, inner);
    unoptioned
        && open
        && ends
        && is_relayed_as_it_came
        && !in_pieces
        && !is_answer
        && !has_odd_mss(inner)
        && has_owner(setup, inner)
}

/// Bytes of the outer header of a packet without options.
fn header_len(outer: &[u8]) -> usize {
    if is_ipv6(outer) { ipv6::HEADER_LEN } else { HEADER_LEN }
}

/// Extension headers of IPv6, which are for userspace.
const EXTENSIONS: [u8; 4] = [0, 43, 44, 60];

/// Whether it is ICMP from a peer's gateway, or to ours: perhaps a probe, for userspace.
fn is_of_gateways(setup: &Setup, inner: &[u8]) -> bool {
    let (source, destination, is_icmp): (IpAddr, IpAddr, bool) = if is_ipv6(inner) {
        let Ok(packet) = Ipv6Packet::parse(inner, Validation::Datapath) else { return false };
        (packet.source().into(), packet.destination().into(), packet.next_header() == Protocol::ICMPV6)
    } else {
        let Ok(packet) = Ipv4Packet::parse(inner, Validation::Datapath) else { return false };
        (packet.source().into(), packet.destination().into(), packet.protocol() == Protocol::ICMP)
    };
    let is_from_one = setup.config.peers.iter().any(|peer| peer.underlay.contains(source));
    is_icmp && (is_from_one || setup.config.underlay.contains(destination))
}

/// Whether the source is in somebody's networks. Userspace admits a router's error without.
fn has_owner(setup: &Setup, inner: &[u8]) -> bool {
    let tunnel = Gateway::new(setup).tunnel;
    if is_ipv6(inner) {
        let source = inner.get(8..24).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        return source.is_some_and(|source| tunnel.owner(Ipv6Addr::from(source)).is_some());
    }
    let source = inner.get(12..16).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    source.is_some_and(|source| tunnel.owner(Ipv4Addr::from(source)).is_some())
}

/// Whether the inner datagram is a fragment, or the outer packet is a fragment of IPv6.
fn is_fragment(outer: &[u8], outer_len: usize) -> bool {
    if is_ipv6(outer) && outer.get(6) == Some(&Protocol::FRAGMENT.0) {
        return true;
    }
    if outer.get(outer_len..).is_some_and(is_ipv6) {
        return false;
    }
    outer.get(outer_len + 6..outer_len + 8).is_some_and(|rest| rest[0] & 0x3f != 0 || rest[1] != 0)
}

/// Whether something looks like an MSS option and is not the first option.
fn has_odd_mss(inner: &[u8]) -> bool {
    let (header_len, protocol, is_first) = if is_ipv6(inner) {
        (40, inner[6], true)
    } else {
        (HEADER_LEN, inner[9], inner[6] & 0x1f == 0 && inner[7] == 0)
    };
    let Some(segment) = inner.get(header_len..) else { return false };
    if Protocol(protocol) != Protocol::TCP || !is_first || segment.len() < 20 {
        return false;
    }
    let header = usize::from(segment[12] >> 4) * 4;
    let options = segment.get(21..header).unwrap_or_default();
    TcpFlags(segment[13]).contains(TcpFlags::SYN) && options.windows(2).any(|pair| pair == [2, 4])
}
