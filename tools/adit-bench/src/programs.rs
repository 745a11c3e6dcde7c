//! The time of the eBPF plane's programs for each packet, by the kernel's statistics. They are
//! switched on only for a separate short load, because they cost time themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use adit_lab::throughput;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use crate::contenders::Field;
use crate::error::BenchError;
use crate::interrupt;
use crate::measure::Lengths;
use crate::peers::{Contender, Tunnel};
use crate::statistics::Summary;
use crate::testbed::Shape;

/// How often each contender is measured, by turns.
const TURNS: usize = 5;
/// What the names of Adit's programs begin with.
const OURS: &str = "adit_";

/// Time in a program, of a contender.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProgramTime {
    pub(crate) contender: Contender,
    /// As the kernel lists it.
    pub(crate) program: String,
    /// Mean of each turn.
    pub(crate) nanoseconds: Option<Summary>,
    /// Of all turns.
    pub(crate) runs: u64,
}

/// Measures each contender with programs under a load of small datagrams.
pub(crate) fn run(field: &Field, lengths: Lengths) -> Result<Vec<ProgramTime>, BenchError> {
    let tunnels: Vec<(Contender, &Tunnel)> = [Contender::AditEbpf, Contender::AditMany]
        .into_iter()
        .filter_map(|contender| Some((contender, field.tunnel(Shape::Pair, contender)?)))
        .collect();
    if tunnels.is_empty() {
        return Ok(Vec::new());
    }
    // The statistics stop when this is dropped.
    let _counting = enable_stats(Stats::RunTime).map_err(|error| failed(error.into()))?;
    let mut turns: BTreeMap<(Contender, String), Vec<Spent>> = BTreeMap::new();
    for _ in 0..TURNS {
        for &(contender, tunnel) in &tunnels {
            interrupt::check()?;
            for (program, spent) in under_load(tunnel, lengths.load)? {
                turns.entry((contender, program)).or_default().push(spent);
            }
        }
    }
    Ok(turns.into_iter().map(|((contender, program), turns)| summed(contender, program, &turns)).collect())
}

/// Runs, and the nanoseconds of all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spent {
    runs: u64,
    nanoseconds: u64,
}

fn summed(contender: Contender, program: String, turns: &[Spent]) -> ProgramTime {
    let mean = |spent: &Spent| spent.nanoseconds as f64 / spent.runs as f64;
    ProgramTime {
        contender,
        program,
        nanoseconds: Summary::of(turns.iter().map(mean)),
        runs: turns.iter().map(|spent| spent.runs).sum(),
    }
}

/// The runs and time of each program of Adit during a load of small datagrams in one direction.
fn under_load(tunnel: &Tunnel, time: Duration) -> Result<BTreeMap<String, Spent>, BenchError> {
    let before = counts()?;
    throughput::udp_small(&tunnel.path(), time)?;
    let spent = difference(&before, &counts()?);
    if spent.is_empty() {
        return Err(failed(format!("none whose name begins with {OURS} ran").into()));
    }
    Ok(spent)
}

/// Programs by number: the name, and what they have spent since they were loaded.
type Counts = BTreeMap<u32, (String, Spent)>;

fn counts() -> Result<Counts, BenchError> {
    let mut counts = Counts::new();
    for program in loaded_programs() {
        // A program that was unloaded meanwhile does not carry this load.
        let Ok(program) = program else { continue };
        let Some(name) = program.name_as_str().filter(|name| name.starts_with(OURS)) else { continue };
        let nanoseconds = u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
        let spent = Spent { runs: program.run_count(), nanoseconds };
        counts.insert(program.id(), (name.to_owned(), spent));
    }
    Ok(counts)
}

/// By name, for those that ran: each side of a tunnel has loaded its own.
fn difference(before: &Counts, after: &Counts) -> BTreeMap<String, Spent> {
    let mut spent: BTreeMap<String, Spent> = BTreeMap::new();
    for (id, (name, now)) in after {
        let Some((_, then)) = before.get(id) else { continue };
        if now.runs > then.runs {
            let all = spent.entry(name.clone()).or_default();
            all.runs += now.runs - then.runs;
            all.nanoseconds += now.nanoseconds.saturating_sub(then.nanoseconds);
        }
    }
    spent
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> BenchError {
    BenchError::Io {
        what: "measure the programs in the kernel".to_owned(),
        source: std::io::Error::other(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_meanwhile_is_counted_by_name() {
        let counts = |figures: &[(u32, &str, u64, u64)]| -> Counts {
            let entry = |&(id, name, runs, nanoseconds): &(u32, &str, u64, u64)| {
                (id, (name.to_owned(), Spent { runs, nanoseconds }))
            };
            figures.iter().map(entry).collect()
        };
        let before = counts(&[(1, "adit_encap", 10, 1000), (2, "adit_encap", 0, 0), (3, "adit_decap", 5, 5)]);
        let after = counts(&[
            (1, "adit_encap", 20, 3000),
            (2, "adit_encap", 10, 500),
            (3, "adit_decap", 5, 5),
            (4, "adit_decap", 9, 9),
        ]);
        let spent = difference(&before, &after);
        assert_eq!(spent.len(), 1, "one that did not run and one that is new are none");
        assert_eq!(spent["adit_encap"], Spent { runs: 20, nanoseconds: 2500 });
        let time = summed(Contender::AditEbpf, "adit_encap".to_owned(), &[spent["adit_encap"]]);
        assert_eq!(time.nanoseconds.map(|mean| mean.median), Some(125.0));
    }
}
