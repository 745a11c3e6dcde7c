//! `cargo xtask vm bench`: Adit beside Linux's own ipip, which only the guest has.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::guest::Home;
use super::job::Job;
use crate::run;

/// How long it may take.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// What it measures with.
pub(super) const PACKAGES: &[&str] = &["iperf3"];

/// Builds what is measured; the job that measures it. `arguments` are those of `adit-bench`, after
/// `--guest`.
pub(super) fn job(home: &Home, arguments: &[String]) -> Result<Job, String> {
    run::cargo(&["build", "--release", "--locked", "--package", "adit", "--package", "adit-bench"], &[])?;
    let built = |name: &str| home.target().join("release").join(name);
    let pinned: Vec<PathBuf> = vec![built("adit"), built("adit-bench")];
    let mut command = vec![built("adit-bench").to_string_lossy().into_owned(), "--guest".to_owned()];
    command.extend(arguments.iter().cloned());
    Ok(Job { command, environment: Vec::new(), directory: run::root(), pinned, timeout: TIMEOUT })
}

/// Says what came out of the guest, and what becomes of it.
pub(super) fn tell(home: &Home, code: u8) -> ExitCode {
    let found = std::fs::read_dir(home.out()).into_iter().flatten().flatten();
    for file in found.map(|file| file.path()) {
        println!("from the guest: {}", file.display());
        if file.extension().is_some_and(|extension| extension == "md") {
            println!("into docs/benchmarks.md: cargo xtask bench --insert {}", file.display());
        }
    }
    ExitCode::from(code)
}
