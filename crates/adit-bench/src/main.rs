//! Measures Adit's userspace plane beside the bare underlay and beside other tunnels, all on one
//! pair of hosts, in interleaved rounds. `cargo xtask bench` installs the others and runs this.

mod bed;
mod document;
mod error;
mod goals;
mod interrupt;
mod iperf3;
mod machine;
mod peers;
mod process;
mod report;
mod rounds;
mod soak;
mod statistics;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use bed::Bed;
use error::BenchError;
use machine::Machine;
use peers::{Contender, Tools, Tunnel};
use report::{Report, Standing};
use rounds::Lengths;

const DOCUMENT: &str = "docs/benchmarks.md";
const ROUNDS: usize = 7;
const SOAK: Duration = Duration::from_secs(60);
const QUICK_SOAK: Duration = Duration::from_secs(1);

/// Measures Adit beside the bare underlay and other tunnels.
#[derive(Debug, Parser)]
#[command(name = "adit-bench", version)]
struct Options {
    /// How many rounds [default: 7, or 1 with --quick].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,

    /// A short round, to see that everything works; writes no document unless told where.
    #[arg(long)]
    quick: bool,

    /// Watch the memory over a minute of full load as well.
    #[arg(long)]
    soak: bool,

    /// Print the report as JSON.
    #[arg(long)]
    json: bool,

    /// The document to put the tables into [default: docs/benchmarks.md].
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// The `adit` to measure [default: the one beside this program].
    #[arg(long, value_name = "FILE")]
    adit: Option<PathBuf>,

    /// Where `cargo install --root` has put vpncloud.
    #[arg(long, value_name = "DIRECTORY", default_value = "target/bench-tools")]
    tools: PathBuf,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(report) if report.is_whole() => ExitCode::SUCCESS,
        Ok(_) => {
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

fn run(options: &Options) -> Result<Report, BenchError> {
    if !adit_linux::netns::is_privileged() {
        return Err(BenchError::NotRoot);
    }
    interrupt::watch()?;
    let (lengths, rounds, soak) =
        if options.quick { (Lengths::QUICK, 1, QUICK_SOAK) } else { (Lengths::FULL, ROUNDS, SOAK) };
    let rounds = options.rounds.map_or(rounds, usize::from);
    let machine = Machine::this();
    note(&machine.to_string());

    let bed = Bed::build()?;
    let tools = tools(options)?;
    let (mut tunnels, standings) = start_all(&bed, &tools)?;
    let samples = rounds::run(&bed, &tunnels, lengths, rounds, &mut note)?;
    let soak = match tunnels.get(&Contender::Adit).filter(|_| options.soak) {
        Some(adit) => {
            note(&format!("{} s of full load", soak.as_secs()));
            Some(soak::run(&bed, adit, soak)?)
        }
        None => None,
    };
    // Adit cleans up after itself when it is asked to end; the others go with their namespaces.
    if let Some(adit) = tunnels.get_mut(&Contender::Adit) {
        for process in &mut adit.processes {
            process.end(Duration::from_secs(5))?;
        }
    }
    let report = Report::new(machine, &samples, standings, soak, (lengths, options.quick));
    publish(&report, options)?;
    Ok(report)
}

/// Starts whoever can be started; whoever cannot is in the report with the reason.
fn start_all(bed: &Bed, tools: &Tools) -> Result<(BTreeMap<Contender, Tunnel>, Vec<Standing>), BenchError> {
    let mut tunnels = BTreeMap::new();
    let mut standings = Vec::new();
    for contender in Contender::ALL {
        let outcome = Tunnel::start(contender, bed, tools);
        interrupt::check()?;
        match outcome {
            Ok(tunnel) => {
                standings.push(Standing::of(contender, &Ok(&tunnel)));
                tunnels.insert(contender, tunnel);
            }
            Err(error) => {
                note(&format!("{} cannot be measured: {error}", contender.name()));
                standings.push(Standing::of(contender, &Err(error.to_string())));
            }
        }
    }
    Ok((tunnels, standings))
}

fn tools(options: &Options) -> Result<Tools, BenchError> {
    let absolute =
        |path: PathBuf| std::path::absolute(&path).map_err(BenchError::io("learn the working directory"));
    let adit = match &options.adit {
        Some(adit) => adit.clone(),
        None => std::env::current_exe()
            .map_err(BenchError::io("learn where this program is"))?
            .with_file_name("adit"),
    };
    Ok(Tools { adit: absolute(adit)?, tools: absolute(options.tools.clone())? })
}

#[expect(clippy::print_stdout, reason = "the report is what this program is for")]
fn publish(report: &Report, options: &Options) -> Result<(), BenchError> {
    let tables = report.markdown();
    let document = options.document.clone().or_else(|| (!options.quick).then(|| PathBuf::from(DOCUMENT)));
    if let Some(path) = document {
        document::write(&path, &tables)?;
        note(&format!("written to {}", path.display()));
    }
    if options.json {
        let json =
            serde_json::to_string(report).map_err(|error| BenchError::io("write JSON")(error.into()))?;
        println!("{json}");
    } else {
        println!("{tables}");
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "whoever waits for minutes wants to know what for")]
fn note(text: &str) {
    eprintln!("adit-bench: {text}");
}
