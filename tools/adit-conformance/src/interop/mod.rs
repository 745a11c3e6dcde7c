//! The systems facing each other, in the article's network with real hosts and a real router:
//!
//! ```text
//!   host A ── gateway A (the entrance) ── router ── gateway B (the exit) ── host B
//! ```

mod black_hole;
mod pair;
mod scenarios;

use std::path::Path;

use adit_lab::capture::Tap;
use adit_lab::pcapng::write_interfaces;

use crate::error::Error;
use pair::{Ends, Pair};

/// A scenario, and what is asked of it.
pub(crate) struct Scenario {
    /// In the name of its files of packets.
    pub(crate) name: &'static str,
    /// In a short sentence.
    pub(crate) what: &'static str,
    /// Any of these is asked for.
    pub(crate) asks: &'static [&'static str],
    run: fn(&Pair) -> Result<String, Error>,
    /// It mostly waits, and is played with all pairs at the same time. Such scenarios are the last.
    waits: bool,
}

/// In the order in which they are played with the same tunnel: the last ones leave something behind.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    scenarios::PING,
    scenarios::TCP,
    scenarios::UDP,
    scenarios::TRACEROUTE,
    scenarios::NO_ROUTE,
    scenarios::PATH_MTU,
    black_hole::BLACK_HOLE,
];

/// What was observed of the scenarios with a pair of systems.
pub(crate) struct PairResults {
    pub(crate) pair: Ends,
    pub(crate) cells: Vec<String>,
}

/// Plays scenarios with all pairs of systems there are.
pub(crate) fn observe(
    scenarios: &[&Scenario],
    out: &Path,
    without_linux: bool,
) -> Result<Vec<PairResults>, Error> {
    let pairs: Vec<Ends> = Ends::all().filter(|ends| !without_linux || ends.are_adit()).collect();
    let (waits, quick): (Vec<&Scenario>, Vec<&Scenario>) =
        scenarios.iter().partition(|scenario| scenario.waits);
    let mut columns = two_at_a_time(&pairs, |ends| run_all(&quick, ends, out))?;
    // These take their time and nobody's processor.
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

/// As many as there are processors in the guest.
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

/// Plays scenarios one after the other with the same two tunnels.
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

/// Plays one, and keeps what passed on both sides of the router.
fn run(scenario: &Scenario, pair: &Pair, out: &Path) -> Result<String, Error> {
    let taps = [Tap::start(&pair.network.router, "toA")?, Tap::start(&pair.network.router, "toB")?];
    let observed = (scenario.run)(pair);
    let [a, b] = taps.map(Tap::finish);
    let name = format!("{}-{}.pcapng", scenario.name, pair.ends.name());
    write_interfaces(&out.join(name), &[("toA", &a), ("toB", &b)])?;
    observed
}
