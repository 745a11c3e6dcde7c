//! A QEMU guest with a kernel of Debian 12, for `cargo xtask vm` and `cargo xtask conformance`.
//! Linux 6.1 is the oldest kernel that Adit supports; 6.12 has TCX. Debian's kernels have drivers
//! that a build machine's kernel may lack: ipip, netem, fou, ESP.
//!
//! ```text
//! cargo xtask vm run [--kernel 6.12] [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS...]
//! cargo xtask vm test [--kernel 6.12] [PACKAGE[:TARGET[:PART]]]...   the project's kernel tests
//! cargo xtask vm bench [--kernel 6.12] [ARGS...]   adit-bench --guest, beside Linux's ipip
//! ```
//!
//! **Files.** The guest's root is this machine's `/`, read over 9p. What the guest writes goes to a
//! file system in memory above it, and is lost when the guest ends. So every program, library,
//! Python module and test binary has the same path in the guest, and COMMAND runs in the directory
//! where `cargo xtask` was called. Only `/out` is kept: it is `target/vm/out`, which each run
//! empties first.
//!
//! **The command.** xtask forwards its stdout and stderr unchanged and separately, and exits with
//! its exit code. Its stdin is empty. It runs as root with `PATH`, `HOME`, `RUST_BACKTRACE=1` and
//! `ADIT_STRICT=1`; `--keep NAME` passes on another variable of xtask's environment. It has its own
//! control group, and the processes that it leaves behind are killed when it ends. The kernel loads
//! modules on demand, as on any Debian.
//!
//! **The machine.** It has two emulated processors, so it does not need KVM, 2 GiB of memory, and
//! no network except what the command makes. It ends with xtask, or after `--timeout` (600 s).
//! `target/vm/console.log` has the kernel's messages; xtask shows the last ones if the guest dies.
//!
//! Debian's kernel package is downloaded once into `target/vm/kernel-6.1` (or `-6.12`). Remove that
//! directory to get the current one. As root, xtask installs the packages that this machine lacks.

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
use guest::Guest;
use job::Job;
pub(crate) use kernel::Version;

/// The Debian packages that every guest needs: QEMU, `modprobe`, `ip`, `setsid` and `setpriv`, and
/// `xz`.
const PACKAGES: &[&str] = &["qemu-system-x86", "kmod", "iproute2", "util-linux", "xz-utils"];
/// How long the guest of `vm run` may live without `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The message for wrong arguments.
const USAGE: &str =
    "usage: cargo xtask vm run [--kernel 6.1|6.12] [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS...]
       | vm test [--kernel 6.1|6.12] [PACKAGE[:TARGET[:PART]]]... | vm bench [--kernel 6.1|6.12] [ARGS...]";

/// Runs `cargo xtask vm` with the arguments after `vm`, and returns the exit code of the guest's
/// command.
///
/// # Errors
/// Fails if the arguments are wrong, or if the guest cannot be made or dies.
pub(crate) fn vm(arguments: &[String]) -> Result<ExitCode, String> {
    let Some((name, rest)) = arguments.split_first() else { return Err(USAGE.to_owned()) };
    let (version, rest) = kernel_of(rest)?;
    match (name.as_str(), rest) {
        ("run", rest) => {
            start(version, &[], |guest| command(rest, guest)).map(|(_, code)| ExitCode::from(code))
        }
        ("test", packages) => start(version, &test_packages(), |guest| suite::job(guest, packages))
            .map(|(_, code)| ExitCode::from(code)),
        ("bench", rest) => {
            let (guest, code) = start(version, bench::PACKAGES, |guest| bench::job(guest, rest))?;
            Ok(bench::print_results(&guest, code))
        }
        // Internal: `vm test` runs this in the guest.
        (suite::RUN_PLAN, [plan]) => suite::run_plan(plan),
        _ => Err(USAGE.to_owned()),
    }
}

/// The kernel of `--kernel`, if the arguments begin with it, and the rest of them.
fn kernel_of(arguments: &[String]) -> Result<(Version, &[String]), String> {
    match arguments {
        [option, version, rest @ ..] if option == "--kernel" => Ok((Version::parse(version)?, rest)),
        rest => Ok((Version::default(), rest)),
    }
}

/// Runs the suites `names` in a guest of that version.
///
/// # Errors
/// Fails if the guest cannot be made or dies.
pub(crate) fn test_on(version: Version, names: &[String]) -> Result<ExitCode, String> {
    start(version, &test_packages(), |guest| suite::job(guest, names)).map(|(_, code)| ExitCode::from(code))
}

/// Runs `cargo xtask conformance`. All arguments except `--check` go to `adit-conformance`.
///
/// # Errors
/// Fails if the guest cannot be made or dies, if an observation breaks a rule, or, with `--check`,
/// if the committed document differs.
pub(crate) fn conformance(arguments: &[String]) -> Result<(), String> {
    let is_check = arguments.iter().any(|argument| argument == "--check");
    let rest: Vec<String> = arguments.iter().filter(|argument| *argument != "--check").cloned().collect();
    let (guest, code) = start(Version::default(), &[], |guest| conformance::job(guest, &rest))?;
    conformance::collect(&guest, code, is_check)
}

/// Runs the suites `names` and then `adit-conformance` in one guest, and compares the observations
/// with the committed document. Returns the exit code of the guest's command.
///
/// # Errors
/// Fails if the guest cannot be made or dies, or if the committed document differs.
pub(crate) fn test_with_conformance(names: &[String]) -> Result<ExitCode, String> {
    let job = |guest: &Guest| suite::job_with(guest, names, Some(conformance::job(guest, &[])?));
    let (guest, code) = start(Version::default(), &test_packages(), job)?;
    conformance::collect(&guest, 0, true)?;
    Ok(ExitCode::from(code))
}

/// The Debian packages that the tests in the guest need.
fn test_packages() -> Vec<&'static str> {
    [debian::FOR_TESTS, debian::FOR_GUEST_TESTS].concat()
}

/// Installs missing packages, locks the guest's directory, and runs the job that `job` returns.
fn start(
    version: Version,
    packages: &[&str],
    job: impl FnOnce(&Guest) -> Result<Job, String>,
) -> Result<(Guest, u8), String> {
    let missing = debian::install(&[PACKAGES, packages].concat());
    if !missing.is_empty() {
        return Err(format!(
            "the guest needs these packages: {}\non Debian: sudo apt-get install --no-install-recommends {0}",
            missing.join(" ")
        ));
    }
    let guest = Guest::lock(run::target_directory()?, version)?;
    let job = job(&guest)?;
    let code = guest.run(&job)?;
    Ok((guest, code))
}

/// The job of `vm run`.
fn command(arguments: &[String], guest: &Guest) -> Result<Job, String> {
    let mut job = parse(arguments)?;
    // Cargo may rebuild its programs while the guest runs.
    let program = job.command.first().map(|program| job.directory.join(program));
    job.pinned.extend(program.filter(|program| program.starts_with(guest.target()) && program.is_file()));
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
                let seconds = parsed
                    .ok_or_else(|| format!("--timeout: {seconds} is not a number of seconds above 0"))?;
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
    let directory =
        std::env::current_dir().map_err(|error| format!("cannot read the current directory: {error}"))?;
    Ok(Job { command, environment, directory, pinned: Vec::new(), timeout })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Job, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_command_follows_two_dashes() {
        let job = parsed("--timeout 5 --keep PATH -- ls --timeout 6").unwrap();
        assert_eq!(job.command, ["ls", "--timeout", "6"]);
        assert_eq!(job.timeout, Duration::from_secs(5));
        assert_eq!(job.environment, [("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        assert_eq!(parsed("-- true").unwrap().timeout, TIMEOUT);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for line in ["", "--", "ls", "--timeout", "--what -- ls"] {
            assert_eq!(parsed(line).unwrap_err(), USAGE, "{line}");
        }
        assert!(parsed("--timeout 0 -- ls").unwrap_err().contains("0 is not a number of seconds above 0"));
        assert!(parsed("--keep ADIT_NOT_SET -- ls").unwrap_err().contains("ADIT_NOT_SET"));
    }
}
