//! Scenarios with a system at each end of the tunnel, in the two-site network:
//!
//! ```text
//!   host A ── gateway A (encapsulator) ── router ── gateway B (decapsulator) ── host B
//! ```

mod black_hole;
mod pair;
mod scenarios;

use std::path::Path;

use adit_lab::capture::Tap;
use adit_lab::pcapng::write_interfaces;

use crate::error::Error;
use pair::{Ends, Pair};

/// A scenario and the observations that it asks for.
pub(crate) struct Scenario {
    /// The id, which also names its packet files.
    pub(crate) name: &'static str,
    /// What happens, in one sentence.
    pub(crate) what: &'static str,
    /// Any of these is asked for.
    pub(crate) asks: &'static [&'static str],
    run: fn(&Pair) -> Result<String, Error>,
    /// True if it mostly waits. Such scenarios come last and run with all pairs at the same time.
    waits: bool,
}

/// The scenarios in the order in which they run with the same tunnel. The last ones change its
/// state.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    scenarios::PING,
    scenarios::TCP,
    scenarios::UDP,
    scenarios::TRACEROUTE,
    scenarios::NO_ROUTE,
    scenarios::PATH_MTU,
    black_hole::BLACK_HOLE,
];

/// The observations with one pair of systems.
pub(crate) struct PairResults {
    pub(crate) pair: Ends,
    pub(crate) cells: Vec<String>,
}

/// Runs scenarios with all pairs of systems.
pub(crate) fn observe(
    scenarios: &[&Scenario],
    out: &Path,
    without_linux: bool,
) -> Result<Vec<PairResults>, Error> {
    let pairs: Vec<Ends> = Ends::all().filter(|ends| !without_linux || ends.are_adit()).collect();
    let (waits, quick): (Vec<&Scenario>, Vec<&Scenario>) =
        scenarios.iter().partition(|scenario| scenario.waits);
    let mut columns = two_at_a_time(&pairs, |ends| run_all(&quick, ends, out))?;
    // These scenarios wait and use little processor time.
    std::thread::scope(|scope| {
        let waits = &waits;
        let waiting: Vec<_> =
            pairs.iter().map(|&ends| scope.spawn(move || run_all(waits, ends, out))).collect();
        for (column, waiting) in columns.iter_mut().zip(waiting) {
            column.extend(crate::join(waiting)?);
        }
        Ok::<(), Error>(())
    })?;
    Ok(pairs.into_iter().zip(columns).map(|(pair, cells)| PairResults { pair, cells }).collect())
}

/// Works on two pairs at a time, because the guest has two processors.
fn two_at_a_time<T: Send>(
    pairs: &[Ends],
    work: impl Fn(Ends) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let mut done = Vec::new();
    for two in pairs.chunks(2) {
        let two: Result<Vec<T>, Error> = std::thread::scope(|scope| {
            let work = &work;
            let working: Vec<_> = two.iter().map(|&ends| scope.spawn(move || work(ends))).collect();
            working.into_iter().map(crate::join).collect()
        });
        done.extend(two?);
    }
    Ok(done)
}

/// Runs scenarios one after the other with the same tunnel.
fn run_all(scenarios: &[&Scenario], ends: Ends, out: &Path) -> Result<Vec<String>, Error> {
    if scenarios.is_empty() {
        return Ok(Vec::new());
    }
    let pair = Pair::join(ends)?;
    let ran = scenarios.iter().map(|scenario| {
        run(scenario, &pair, out).map_err(|source| Error::Scenario {
            scenario: scenario.name,
            pair: ends.name(),
            source: Box::new(source),
        })
    });
    ran.collect()
}

/// Runs one scenario, and writes a capture from both sides of the router.
fn run(scenario: &Scenario, pair: &Pair, out: &Path) -> Result<String, Error> {
    let taps = [Tap::start(&pair.network.router, "toA")?, Tap::start(&pair.network.router, "toB")?];
    let observed = (scenario.run)(pair);
    let [a, b] = taps.map(Tap::finish);
    let name = format!("{}-{}.pcapng", scenario.name, pair.ends.name());
    write_interfaces(&out.join(name), &[("toA", &a), ("toB", &b)])?;
    observed
}
