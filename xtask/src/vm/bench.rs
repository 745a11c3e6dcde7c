//! The job of `cargo xtask vm bench`: it measures Adit beside Linux's own ipip driver, which only
//! the guest is sure to have.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::guest::Guest;
use super::job::Job;
use crate::run;

/// How long the guest may live.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// The Debian packages that the benchmark runs.
pub(super) const PACKAGES: &[&str] = &["iperf3"];

/// Builds Adit and the benchmark, and returns the job that runs them. `arguments` go to
/// `adit-bench`, after `--guest`.
pub(super) fn job(guest: &Guest, arguments: &[String]) -> Result<Job, String> {
    run::cargo(&["build", "--release", "--locked", "--package", "adit", "--package", "adit-bench"], &[])?;
    let built = |name: &str| guest.target().join("release").join(name);
    let pinned: Vec<PathBuf> = vec![built("adit"), built("adit-bench")];
    let mut command = vec![built("adit-bench").to_string_lossy().into_owned(), "--guest".to_owned()];
    command.extend(arguments.iter().cloned());
    Ok(Job { command, environment: Vec::new(), directory: run::root(), pinned, timeout: TIMEOUT })
}

/// Prints the files that the guest wrote, and the command that inserts them into the document.
pub(super) fn print_results(guest: &Guest, code: u8) -> ExitCode {
    let files = std::fs::read_dir(guest.out()).into_iter().flatten().flatten();
    for file in files.map(|file| file.path()) {
        println!("from the guest: {}", file.display());
        if file.extension().is_some_and(|extension| extension == "md") {
            println!("into docs/benchmarks.md: cargo xtask bench --insert {}", file.display());
        }
    }
    ExitCode::from(code)
}
