//! Measures Adit's data planes beside the bare underlay and beside other tunnels, each on hosts of
//! its own, in interleaved rounds. `cargo xtask bench` installs the others and runs this.

mod contenders;
mod document;
mod error;
mod interrupt;
mod iperf3;
mod machine;
mod measure;
mod options;
mod peers;
mod process;
mod programs;
mod report;
mod rounds;
mod samples;
mod soak;
mod startup_time;
mod statistics;
mod tables;
mod targets;
mod testbed;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use contenders::Field;
use error::BenchError;
use machine::Machine;
use measure::Lengths;
use options::{Options, Output};
use peers::{Contender, Tools};
use programs::ProgramTime;
use report::{Report, Run};
use startup_time::Loading;
use testbed::Shape;

const SOAK: Duration = Duration::from_secs(60);
const QUICK_SOAK: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let options = Options::parse();
    match options.insert.as_ref().map_or_else(|| run(&options), |file| insert(file, &options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            note("not everything of Adit and of the bare veth could be measured");
            ExitCode::FAILURE
        }
        Err(BenchError::Interrupted) => {
            note("interrupted; everything is taken down");
            ExitCode::from(interrupt::EXIT)
        }
        Err(error) => {
            note(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// Measures, and returns true if everything required was measured.
fn run(options: &Options) -> Result<bool, BenchError> {
    if !adit_linux::netns::is_privileged() {
        return Err(BenchError::NotRoot);
    }
    interrupt::watch()?;
    let (lengths, rounds) = options.lengths();
    let (contenders, measures) = (options.contenders(), options.measures());
    let machine = Machine::this();
    note(&machine.to_string());

    let tools = options.tools()?;
    let field = Field::start(&contenders, &measures, &tools, &mut note)?;
    let samples = rounds::run(&field, &measures, lengths, rounds, &mut note)?;
    let soak = match field.tunnel(Shape::Pair, Contender::Adit).filter(|_| options.soak) {
        Some(adit) => {
            let time = if options.quick { QUICK_SOAK } else { SOAK };
            note(&format!("{} s of full load", time.as_secs()));
            Some(soak::run(adit, time)?)
        }
        None => None,
    };
    let programs = if options.guest { Vec::new() } else { time_programs(&field, lengths)? };
    let standings = field.end()?;
    let is_up = |contender: &Contender| {
        standings.iter().any(|standing| standing.contender == *contender && standing.mtu.is_some())
    };
    // Most of it is the same for both planes; the target is the first one's.
    let loaded = [Contender::AditEbpf, Contender::Adit].into_iter().find(is_up).filter(|_| !options.guest);
    let loading = match loaded {
        Some(contender) => load(contender, &tools, lengths.starts)?.into_iter().collect(),
        None => Vec::new(),
    };
    let report = Report::new(Run {
        machine,
        samples: &samples,
        standings,
        soak,
        loading,
        programs,
        lengths,
        is_quick: options.quick,
        is_guest: options.guest,
    });
    publish(&report, options)?;
    Ok(report.is_whole())
}

/// A failure to time the programs is reported and does not discard the rounds.
fn time_programs(field: &Field, lengths: Lengths) -> Result<Vec<ProgramTime>, BenchError> {
    let programs = programs::run(field, lengths);
    interrupt::check()?;
    programs.or_else(|error| {
        note(&error.to_string());
        Ok(Vec::new())
    })
}

/// A failure to start with many peers is reported and does not discard the rounds.
fn load(contender: Contender, tools: &Tools, starts: usize) -> Result<Option<Loading>, BenchError> {
    note(&format!("{}: loading 10,000 peers", contender.name()));
    let loading = startup_time::run(contender, tools, starts);
    interrupt::check()?;
    loading.or_else(|error| {
        note(&format!("{}, loading 10,000 peers: {error}", contender.name()));
        Ok(None)
    })
}

/// Puts a guest's tables into the document.
fn insert(file: &std::path::Path, options: &Options) -> Result<bool, BenchError> {
    let tables = std::fs::read_to_string(file).map_err(BenchError::io(format!("read {}", file.display())))?;
    let document = options.document();
    document::write(&document, document::Part::Guest, &tables)?;
    note(&format!("written to {}", document.display()));
    Ok(true)
}

#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
fn publish(report: &Report, options: &Options) -> Result<(), BenchError> {
    let tables = report.markdown();
    let json = serde_json::to_string(report).map_err(|error| BenchError::io("write JSON")(error.into()))?;
    let write = |path: &std::path::Path, text: &str| {
        std::fs::write(path, text).map_err(BenchError::io(format!("write {}", path.display())))
    };
    match options.output() {
        Output::Print => {}
        Output::Document(path) => {
            document::write(&path, document::Part::Machine, &tables)?;
            note(&format!("written to {}", path.display()));
        }
        Output::Guest { tables: path, json: json_path } => {
            write(&path, &tables)?;
            write(&json_path, &json)?;
            note(&format!("written to {} and {}", path.display(), json_path.display()));
        }
    }
    println!("{}", if options.json { &json } else { &tables });
    Ok(())
}

#[expect(clippy::print_stderr, reason = "whoever waits for minutes wants to know what for")]
fn note(text: &str) {
    eprintln!("adit-bench: {text}");
}
