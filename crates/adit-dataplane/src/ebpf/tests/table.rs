//! The fixtures of every data plane, on the tunnel and on the programs.

use std::collections::{BTreeMap, BTreeSet};

use adit_fixtures::{Case, Direction, Outcome, Program, table};
use adit_linux::kernel_version::kernel_version;
use adit_tunnel::Totals;

use super::agreement::{combination, compare, normal};
use super::gateway::Gateway;
use super::programs::Programs;

/// Reports all failures of a test at once.
#[track_caller]
fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{} rows fail:\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let cases = table();
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len());
}

/// How many rows there are of each combination: of 4in4, 6in4, 4in6, 6in6.
#[test]
#[expect(clippy::print_stderr, reason = "how many there are is worth reading")]
fn every_combination_of_families_has_rows() {
    let mut counts = BTreeMap::<String, (u32, u32)>::new();
    for case in table() {
        let count = counts.entry(combination(&case.setup, case.direction, &case.packet)).or_default();
        count.0 += 1;
        count.1 += u32::from(case.not_end_to_end.is_none());
    }
    for (combination, (rows, of_them)) in &counts {
        eprintln!("{rows:6} {combination}, of which {of_them} end to end");
    }
    let many = |name| counts.get(name).is_some_and(|(rows, of_them)| *rows >= 100 && *of_them >= 80);
    assert!(["4in4", "6in4", "4in6", "6in6"].into_iter().all(many), "{counts:?}");
}

#[test]
fn the_tunnel_does_what_the_table_says() {
    let failures: Vec<String> = table().iter().filter_map(|case| on_tunnel(case).err()).collect();
    none(&failures);
}

fn on_tunnel(case: &Case) -> Result<(), String> {
    let gateway = Gateway::new(&case.setup);
    let (found, expected) = (normal(gateway.run(case.direction, &case.packet)), normal(case.outcome.clone()));
    if found != expected {
        return Err(format!("{}: expected {expected:?}\nfound {found:?}", case.name));
    }
    let totals = without_last(gateway.totals());
    let expected = case.counts.totals(totals.peers.len());
    if totals != expected {
        return Err(format!("{}: expected {expected:?}\nfound {totals:?}", case.name));
    }
    Ok(())
}

/// The table does not say when the last datagram came, nor with which TTL, nor whose the last drop
/// was.
fn without_last(mut totals: Totals) -> Totals {
    totals.peers.iter_mut().for_each(|peer| (peer.last_rx, peer.last_ttl) = (None, None));
    totals.last_drops.fill(None);
    totals
}

#[test(super::ebpf)]
fn the_programs_do_what_the_table_says() {
    // Loading takes longer than running.
    let mut loaded = BTreeMap::new();
    let mut failures = Vec::new();
    for case in table().into_iter().filter(|case| !is_lost_in_test_run(case)) {
        let tunnel = Gateway::new(&case.setup).tunnel;
        let config = &case.setup.config;
        let programs = loaded
            .entry(format!("{:?}", (config.underlay, &config.peers, &config.relay, &config.local_addresses)))
            .or_insert_with(|| Programs::load(&tunnel, &case.setup));
        programs.take_over(&tunnel, &case.setup);
        if let Err(failure) = on_programs(programs, &case) {
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    none(&failures);
}

fn on_programs(programs: &mut Programs, case: &Case) -> Result<(), String> {
    let seen = compare(programs, &case.setup, case.direction, &case.packet)?;
    let expected = normal(case.outcome.clone());
    if seen.outcome != expected {
        return Err(format!("expected {expected:?}\nfound {:?}", seen.outcome));
    }
    let counts = case.counts.totals(seen.totals.peers.len());
    let totals = without_last(seen.totals);
    if totals != counts {
        return Err(format!("expected {counts:?}\nfound {totals:?}"));
    }
    if seen.program != in_test_run(case) {
        return Err(format!("the program {:?}, and should have {:?}", seen.program, case.program));
    }
    Ok(())
}

/// What the program does in a test run. A GSO packet of a test run has no type, so the kernel
/// refuses to change its length. What the program would have done shows in a relay, in a drop, and
/// end to end.
fn in_test_run(case: &Case) -> Program {
    let relayed = case.direction == Direction::Decap && matches!(case.outcome, Outcome::Sent(_));
    let refused = case.packet.gso_size.is_some() && case.program == Program::Carries && !relayed;
    if refused { Program::Declines } else { case.program }
}

/// Whether the kernel makes a packet of the inner family of it and then refuses to shorten it, as
/// Linux before 6.3 does to a GSO packet without a type. Only a test run has such a packet.
fn is_lost_in_test_run(case: &Case) -> bool {
    let shortens_in_two_steps = kernel_version().is_some_and(|version| version < (6, 3));
    let is_4in6 = combination(&case.setup, case.direction, &case.packet) == "4in6";
    let is_delivered = case.direction == Direction::Decap && matches!(case.outcome, Outcome::Delivered(_));
    shortens_in_two_steps && is_4in6 && is_delivered && case.packet.gso_size.is_some()
}
