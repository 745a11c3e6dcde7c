//! Runs the workspace's test programs, two at a time.
//!
//! Most tests wait: for a timer, a process, or an answer. Cargo runs one program after another,
//! which leaves half of two processors idle. Tests that ask for it still run alone: adit-harness
//! leaves them out while programs run at the same time, and reports the program, which then runs
//! once more for these tests, with nothing beside it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::artifacts::Artifact;
use crate::timings::Report;

/// How many programs run at the same time. Each runs as many tests as there are processors.
const AT_A_TIME: usize = 2;
/// By this variable adit-harness learns which tests to run: `together` or `alone`.
const WHICH: &str = "ADIT_TESTS";

/// A test program.
#[derive(Debug)]
struct Program {
    /// The names of its package and target.
    name: String,
    path: PathBuf,
    /// The directory to run in: the package's, as with `cargo test`.
    directory: PathBuf,
}

impl Program {
    fn of(artifact: &Artifact) -> Option<Self> {
        let directory = artifact.directory()?;
        let package = directory.file_name()?.to_string_lossy().into_owned();
        let path = artifact.executable.clone().filter(|_| artifact.is_test())?;
        Some(Self { name: format!("{package} {}", artifact.target()), path, directory })
    }

    fn command(&self, which: &str, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(&self.path);
        // Cargo sets this variable to the package's directory, for xtask itself too.
        command.current_dir(&self.directory).env("CARGO_MANIFEST_DIR", &self.directory);
        command.env(WHICH, which).envs(environment.iter().copied()).stdin(Stdio::null());
        command
    }
}

/// Runs all test programs of these artifacts, to the end even if some fail.
///
/// # Errors
/// Fails if one fails or cannot be run.
pub(crate) fn run(
    artifacts: &[Artifact],
    environment: &[(&str, &str)],
    report: &Report,
) -> Result<(), String> {
    let mut programs: Vec<Program> = artifacts.iter().filter_map(Program::of).collect();
    // Cargo's messages come in the order in which it has built. By name, the longest run first:
    // those of `adit`, and the benchmark's.
    programs.sort_by(|one, other| one.name.cmp(&other.name));
    let mut failed = together(&programs, environment, report)?;
    for program in programs.iter().filter(|program| report.is_to_run_alone(&program.path)) {
        println!("\n== {}: tests that run alone", program.name);
        let start = Instant::now();
        let status = program.command("alone", environment).status();
        report.program(&format!("{} (alone)", program.name), start.elapsed());
        failed.extend(failure(program, status));
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// Runs the programs, [`AT_A_TIME`], and returns what failed. Prints the output of each when it
/// has ended, so that the outputs do not mix.
fn together(
    programs: &[Program],
    environment: &[(&str, &str)],
    report: &Report,
) -> Result<Vec<String>, String> {
    let folder =
        tempfile::tempdir().map_err(|error| format!("cannot make a temporary directory: {error}"))?;
    let queue: Mutex<VecDeque<(usize, &Program)>> = Mutex::new(programs.iter().enumerate().collect());
    let failed = Mutex::new(Vec::new());
    let work = || {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some((number, program)) = next() {
            let start = Instant::now();
            let output = folder.path().join(number.to_string());
            let status = run_into(&output, program.command("together", environment));
            report.program(&program.name, start.elapsed());
            let text = fs::read(&output).unwrap_or_default();
            // The lock keeps the outputs of programs apart that end at the same time.
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            println!("\n== {}, {:.1} s", program.name, start.elapsed().as_secs_f64());
            println!("{}", String::from_utf8_lossy(&text).trim());
            failed.extend(failure(program, status));
        }
    };
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(work);
        }
    });
    Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Runs a command that writes both its outputs to a file. A pipe would stay open for as long as a
/// process that a failed test left behind.
fn run_into(output: &PathBuf, mut command: Command) -> io::Result<ExitStatus> {
    let file = File::create(output)?;
    command.stdout(file.try_clone()?).stderr(file).status()
}

fn failure(program: &Program, status: io::Result<ExitStatus>) -> Option<String> {
    match status {
        Ok(status) if status.success() => None,
        Ok(status) => Some(format!("{}: {status}", program.name)),
        Err(error) => Some(format!("{}: cannot run it: {error}", program.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, path: &str) -> Program {
        Program { name: name.to_owned(), path: path.into(), directory: "/".into() }
    }

    #[test]
    fn only_test_programs_run_and_in_the_directory_of_their_package() {
        let artifact = |test: &str, executable: &str| {
            let line = format!(
                r#"{{"manifest_path":"/w/crates/adit-x/Cargo.toml","target":{{"name":"a-b"}},
                   "profile":{{"test":{test}}},"executable":{executable}}}"#
            );
            Artifact::parse(&line).unwrap()
        };
        assert!(Program::of(&artifact("false", r#""/t/a""#)).is_none());
        assert!(Program::of(&artifact("true", "null")).is_none());
        let found = Program::of(&artifact("true", r#""/t/a-1""#)).unwrap();
        assert_eq!((found.name.as_str(), found.directory), ("adit-x a_b", "/w/crates/adit-x".into()));
    }

    #[test]
    fn a_failure_is_named_and_hinders_no_other_program() {
        let report = Report::new().unwrap();
        let programs =
            [program("one", "/bin/false"), program("two", "/no/such"), program("three", "/bin/true")];
        let mut failed = together(&programs, &[], &report).unwrap();
        failed.sort();
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert_eq!(failed[0], "one: exit status: 1");
        assert!(failed[1].starts_with("two: cannot run it"), "{failed:?}");
    }
}
