//! `adit-conformance`: the same scenarios before Adit's data planes and before Linux's own ipip,
//! rule by rule; what each was observed to do becomes `docs/reference/conformance.md`, and the
//! packets are kept.
//!
//! `cargo xtask conformance` runs it in a guest whose kernel has ipip.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod document;
mod error;
mod interop;
mod kernel_log;
mod quote;
mod reaction;
mod row;
mod rows;
mod site;
mod system;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};
use std::thread::ScopedJoinHandle;
use std::time::Instant;

use clap::Parser;

use document::Observed;
use error::Error;
use interop::{SCENARIOS, Scenario};
use row::Row;
use system::System;
use testbed::Testbed;

/// Observes what Adit and Linux's ipip do with the same packets.
#[derive(Parser)]
struct Options {
    /// The directory for the document and the packets.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/conformance")]
    out: PathBuf,
    /// Run only rows and scenarios whose names begin so, and write no document.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Leave Linux's driver out, for work on rows where the kernel lacks it.
    #[arg(long)]
    without_linux: bool,
    /// List rows and scenarios, and do nothing else.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("adit-conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Error> {
    let mut rows = rows::all();
    let mut scenarios: Vec<&Scenario> = SCENARIOS.iter().collect();
    if let Some(only) = &options.only {
        rows.retain(|row| row.name.starts_with(only.as_str()));
        scenarios.retain(|scenario| scenario.name.starts_with(only.as_str()));
        if rows.is_empty() && scenarios.is_empty() {
            return Err(Error::NoSuchRow(only.clone()));
        }
    }
    if options.list {
        rows.iter().for_each(|row| println!("{:32} {}", row.name, row.rule));
        scenarios.iter().for_each(|scenario| println!("{:32} {}", scenario.name, scenario.what));
        return Ok(ExitCode::SUCCESS);
    }
    if !adit_linux::netns::is_privileged() {
        return Err(Error::NotRoot);
    }
    if !options.without_linux && !system::has_driver()? {
        return Err(Error::NoDriver);
    }
    let create =
        |path: &Path| std::fs::create_dir_all(path).map_err(Error::io(format!("make {}", path.display())));
    create(&options.out)?;
    let systems: Vec<System> =
        System::ALL.into_iter().filter(|&system| system.is_adit() || !options.without_linux).collect();
    let (rows, gate) = (&rows, &RwLock::new(()));
    let start = Instant::now();
    // Most of the time passes in waits, so running rows in parallel shortens the run.
    let halves = || rows.chunks(rows.len().div_ceil(2).max(1));
    let columns: Vec<Vec<Vec<String>>> = std::thread::scope(|scope| {
        let observers: Vec<Vec<_>> = systems
            .iter()
            .map(|&system| {
                halves().map(|half| scope.spawn(move || observe(half, system, &options.out, gate))).collect()
            })
            .collect();
        let column = |halves: Vec<_>| {
            let halves: Vec<_> = halves.into_iter().map(join).collect::<Result<_, Error>>()?;
            Ok(halves.concat())
        };
        observers.into_iter().map(column).collect::<Result<_, Error>>()
    })?;
    eprintln!("{} rows in {:.1} s", rows.len(), start.elapsed().as_secs_f64());
    let cells_of = |at: usize| columns.iter().filter_map(|column| column.get(at).cloned()).collect();
    let observed: Vec<Observed<'_>> =
        rows.iter().enumerate().map(|(at, row)| Observed { row, cells: cells_of(at) }).collect();
    let mut faults: Vec<String> = observed.iter().flat_map(Observed::faults).collect();
    let start = Instant::now();
    let pair_results = interop::observe(&scenarios, &options.out, options.without_linux)?;
    eprintln!(
        "{} scenarios with {} pairs in {:.1} s",
        scenarios.len(),
        pair_results.len(),
        start.elapsed().as_secs_f64()
    );
    faults.extend(document::interop_faults(&scenarios, &pair_results));
    if options.only.is_none() {
        let path = options.out.join("conformance.md");
        std::fs::write(&path, document::document(&observed, &scenarios, &pair_results))
            .map_err(Error::io(format!("write {}", path.display())))?;
    }
    for fault in &faults {
        eprintln!("not as asked: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn join<T>(observer: ScopedJoinHandle<'_, Result<T, Error>>) -> Result<T, Error> {
    observer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Observes a system row by row. Rows with the same tunnel share a gateway.
fn observe(rows: &[Row], system: System, out: &Path, gate: &RwLock<()>) -> Result<Vec<Vec<String>>, Error> {
    let mut cells: Vec<Option<Vec<String>>> = rows.iter().map(|_| None).collect();
    while let Some(first) = cells.iter().position(Option::is_none) {
        let setup = rows[first].setup;
        let mut testbed = Testbed::build(system, setup)?;
        for (row, cell) in rows.iter().zip(&mut cells) {
            if cell.is_some() || !setup.is_same_testbed(row.setup, system) {
                continue;
            }
            testbed.forget_frames();
            // A panicked thread has failed the run already.
            let (_alone, _together) = match row.is_alone {
                true => (Some(gate.write().unwrap_or_else(PoisonError::into_inner)), None),
                false => (None, Some(gate.read().unwrap_or_else(PoisonError::into_inner))),
            };
            *cell = Some(row.observe(&mut testbed)?);
            testbed.write_frames(&out.join(format!("{}-{}.pcapng", row.name, system.name())))?;
        }
    }
    Ok(cells.into_iter().flatten().collect())
}
