//! `cargo xtask vm`: a QEMU guest with Debian 12's kernel 6.1. It has what a build machine's kernel
//! may lack (ipip, netem, fou, ESP), and is the oldest that Adit promises to run on.
//!
//! ```text
//! cargo xtask vm run [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS...]
//! cargo xtask vm test [PACKAGE[:TARGET]]... the project's kernel tests
//! cargo xtask vm bench [ARGS...]   adit-bench --guest, beside Linux's ipip
//! ```
//!
//! **The guest's files are this machine's.** Its root is `/` as it is here, read over 9p; what is
//! written goes to a memory file system above it and is gone with the guest. So every program,
//! library, Python module and test binary is there under its own path, and COMMAND runs in the
//! directory where `cargo xtask` was called. Only `/out` is written through, to `target/vm/out`,
//! emptied at each start.
//!
//! The command's stdout and stderr come out of ours, byte for byte and apart; its stdin is empty;
//! its exit code is ours. It has `PATH`, `HOME`, `RUST_BACKTRACE=1` and `ADIT_STRICT=1`; `--keep
//! NAME` gives it that variable of our environment too. It is root there, in a control group of its
//! own, and what it leaves running ends with it. The kernel loads its modules when they are asked
//! for, as on any Debian.
//!
//! There is no network but what the command makes. The guest has two emulated processors (nobody
//! needs KVM) and 2 GiB, and ends with xtask, or after `--timeout` (600 s). The kernel's own words
//! go to `target/vm/console.log`; the last ones are shown if it dies.
//!
//! Debian's kernel package is fetched once into `target/vm/kernel`: remove that to get today's.
//! What is missing on this machine is installed, if we are root.

mod bench;
mod conformance;
mod guest;
mod initramfs;
mod job;
mod kernel;
mod modules;
mod suite;

use std::process::ExitCode;
use std::time::Duration;

use crate::{debian, run};
use guest::Home;
use job::Job;

/// What every guest needs of this machine: QEMU itself; `modprobe`; `ip`; `setsid` and `setpriv`.
const PACKAGES: &[&str] = &["qemu-system-x86", "kmod", "iproute2", "util-linux"];
const TIMEOUT: Duration = Duration::from_secs(600);

/// The answer to arguments that nothing can be made of.
const USAGE: &str = "usage: cargo xtask vm run [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS...]
       | vm test [PACKAGE[:TARGET]]... | vm bench [ARGS...]";

/// Does what the arguments after `vm` say.
///
/// # Errors
/// They say nothing, or the guest could not be made or died.
pub(crate) fn vm(arguments: &[String]) -> Result<ExitCode, String> {
    match arguments.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        Some(("run", rest)) => start(&[], |home| command(rest, home)).map(|(_, code)| ExitCode::from(code)),
        Some(("test", packages)) => {
            start(debian::FOR_TESTS, |home| suite::job(home, packages)).map(|(_, code)| ExitCode::from(code))
        }
        Some(("bench", rest)) => {
            let (home, code) = start(bench::PACKAGES, |home| bench::job(home, rest))?;
            Ok(bench::tell(&home, code))
        }
        // Not for people: what `vm test` runs in the guest.
        Some((suite::INSIDE, [plan])) => suite::inside(plan),
        _ => Err(USAGE.to_owned()),
    }
}

/// `cargo xtask conformance`; the arguments are those of `adit-conformance`, or `--check`.
///
/// # Errors
/// The guest could not be made, or what was observed is not what should be.
pub(crate) fn conformance(arguments: &[String]) -> Result<(), String> {
    let is_check = arguments.iter().any(|argument| argument == "--check");
    let rest: Vec<String> = arguments.iter().filter(|argument| *argument != "--check").cloned().collect();
    let (home, code) = start(&[], |home| conformance::job(home, &rest))?;
    conformance::tell(&home, code, is_check)
}

/// Runs the tests of these names and `adit-conformance` in one guest, and compares what the latter
/// observes with the committed document.
///
/// # Errors
/// The guest could not be made or died, or something else was observed.
pub(crate) fn test_with_conformance(names: &[String]) -> Result<ExitCode, String> {
    let job = |home: &Home| suite::job_with(home, names, Some(conformance::job(home, &[])?));
    let (home, code) = start(debian::FOR_TESTS, job)?;
    conformance::tell(&home, 0, true)?;
    Ok(ExitCode::from(code))
}

/// Makes sure of this machine's packages, then runs the job that `job` makes.
fn start(packages: &[&str], job: impl FnOnce(&Home) -> Result<Job, String>) -> Result<(Home, u8), String> {
    let missing = debian::install(&[PACKAGES, packages].concat());
    if !missing.is_empty() {
        return Err(format!(
            "the guest needs these packages: {}\non Debian: sudo apt-get install --no-install-recommends {0}",
            missing.join(" ")
        ));
    }
    let home = Home::lock(run::target_directory()?)?;
    let job = job(&home)?;
    let code = home.run(&job)?;
    Ok((home, code))
}

/// The job of `vm run`.
fn command(arguments: &[String], home: &Home) -> Result<Job, String> {
    let mut job = parse(arguments)?;
    // A program that cargo built is one that cargo may build again.
    let program = job.command.first().map(|program| job.directory.join(program));
    job.pinned.extend(program.filter(|program| program.starts_with(home.target()) && program.is_file()));
    Ok(job)
}

fn parse(arguments: &[String]) -> Result<Job, String> {
    let mut timeout = TIMEOUT;
    let mut environment = Vec::new();
    let mut rest = arguments.iter();
    loop {
        let value = |value: Option<&String>| value.cloned().ok_or_else(|| USAGE.to_owned());
        match rest.next().map(String::as_str) {
            Some("--timeout") => {
                let seconds = value(rest.next())?;
                let parsed = seconds.parse().ok().filter(|&seconds| seconds > 0);
                let seconds =
                    parsed.ok_or_else(|| format!("--timeout: {seconds} is no number of seconds"))?;
                timeout = Duration::from_secs(seconds);
            }
            Some("--keep") => {
                let name = value(rest.next())?;
                let kept = std::env::var(&name).map_err(|error| format!("--keep {name}: {error}"))?;
                environment.push((name, kept));
            }
            Some("--") => break,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let command: Vec<String> = rest.cloned().collect();
    if command.is_empty() {
        return Err(USAGE.to_owned());
    }
    let directory = std::env::current_dir().map_err(|error| format!("cannot learn where we are: {error}"))?;
    Ok(Job { command, environment, directory, pinned: Vec::new(), timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Job, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_command_begins_after_two_dashes() {
        let job = parsed("--timeout 5 --keep PATH -- ls --timeout 6").unwrap();
        assert_eq!(job.command, ["ls", "--timeout", "6"]);
        assert_eq!(job.timeout, Duration::from_secs(5));
        assert_eq!(job.environment, [("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        assert_eq!(parsed("-- true").unwrap().timeout, TIMEOUT);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for line in ["", "--", "ls", "--timeout", "--what -- ls"] {
            assert_eq!(parsed(line).unwrap_err(), USAGE, "{line}");
        }
        assert!(parsed("--timeout 0 -- ls").unwrap_err().contains("0 is no number of seconds"));
        assert!(parsed("--keep ADIT_NOT_SET -- ls").unwrap_err().contains("ADIT_NOT_SET"));
    }
}
