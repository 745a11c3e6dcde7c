//! The command `cargo xtask test`: it runs all checks that a change must pass.

use std::process::ExitCode;
use std::time::Instant;

use crate::timings::{Report, Timings};
use crate::{artifacts, check, debian, programs, run};

/// Crates that only decide and do no input or output: they depend on no crate of [`IMPURE`],
/// neither directly nor indirectly.
const PURE: &[&str] = &["adit-wire", "adit-policy", "adit-tunnel"];
/// Crates that do input or output.
const IMPURE: &[&str] = &["libc", "nix", "socket2", "tokio", "rustix", "mio", "adit-linux"];

/// Needs of tests that other steps of a strict run meet: in the guest, or with the built packages.
const MAY_SKIP: &str =
    "ipip,no_ipip,sit,ip6tnl,vrf,fq_codel,sctp,esp,strongswan,wireguard,packages,nspawn,udev";

/// How `cargo xtask test` runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Whether an ignored test is a failure, and the eBPF programs, the Debian package and the
    /// guest are tested too.
    is_strict: bool,
    /// Whether the times of steps, test programs and tests are printed.
    with_timings: bool,
}

impl Options {
    /// Reads the arguments after `test`.
    ///
    /// # Errors
    /// Fails if an argument is unknown.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--strict" => options.is_strict = true,
                "--timings" => options.with_timings = true,
                other => {
                    return Err(format!(
                        "cargo xtask test has no option {other}: expected --strict or --timings"
                    ));
                }
            }
        }
        Ok(options)
    }
}

/// Runs all steps, until one fails.
///
/// # Errors
/// Fails if a step fails, or if a package is missing in a strict run.
pub(crate) fn test(options: Options) -> Result<(), String> {
    let start = Instant::now();
    let missing = debian::install(debian::FOR_TESTS);
    if options.is_strict && !missing.is_empty() {
        return Err(format!(
            "the tests need these packages, which could not be installed: {} (run as root on Debian)",
            missing.join(" ")
        ));
    }
    let report = Report::new()?;
    let mut timings = Timings::default();
    let done = steps(options, &report, &mut timings);
    if options.with_timings {
        timings.print(&report);
    }
    done?;
    println!("\nall green in {:.0} s", start.elapsed().as_secs_f64());
    print_ignored(&report, &missing);
    Ok(())
}

fn steps(options: Options, report: &Report, timings: &mut Timings) -> Result<(), String> {
    timings.step("format", || run::cargo(&["fmt", "--all", "--check"], &[]))?;
    timings.step("rules", check::check)?;
    timings.step("purity", purity)?;
    timings.step("lints", || {
        run::cargo(
            &["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            &[],
        )
    })?;
    timings.step("documentation", || {
        run::cargo(
            &["doc", "--quiet", "--workspace", "--no-deps", "--locked"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    let mut built = Vec::new();
    timings.step("build of the tests", || {
        built = artifacts::build(&["--workspace"])?;
        Ok(())
    })?;
    timings.step("tests", || {
        let adit = artifacts::program(&built, "adit").ok_or("cargo has not built adit")?;
        let mut environment = vec![report.environment(), ("INSTA_UPDATE", "no"), ("ADIT_PROGRAM", adit)];
        if options.is_strict {
            environment.extend([("ADIT_STRICT", "1"), ("ADIT_MAY_SKIP", MAY_SKIP)]);
        }
        programs::run(&built, &environment, report)
    })?;
    timings.step("examples in the documentation", || {
        run::cargo(&["test", "--quiet", "--workspace", "--locked", "--doc", "--no-fail-fast"], &[])
    })?;
    if options.is_strict {
        timings.step("eBPF programs", || crate::bpf::bpf(true))?;
        timings.step("package", || crate::deb::deb(&["--test".to_owned()]))?;
        // Not beside the package: on two processors, tests in the emulated guest ran out of time.
        timings.step("guests", guests)?;
    }
    Ok(())
}

/// Runs the guests, one after another. The one with TCX runs only what depends on both TCX and
/// ipip.
fn guests() -> Result<(), String> {
    guest().map_err(|error| format!("Linux 6.1: {error}"))?;
    match crate::vm::test_on(crate::vm::Version::Linux6_12, &["adit-testbed:linux_ipip:ebpf".to_owned()])? {
        ExitCode::SUCCESS => Ok(()),
        _ => Err("Linux 6.12: tests failed in the guest".to_owned()),
    }
}

/// Runs the suites that depend on the kernel most, and the table of conformance, in one guest with
/// the oldest kernel that Adit supports and its ipip driver. `cargo xtask vm test` runs all suites.
fn guest() -> Result<(), String> {
    let packages = ["adit-dataplane", "adit-control", "adit-testbed:linux_ipip", "adit"].map(str::to_owned);
    match crate::vm::test_with_conformance(&packages)? {
        ExitCode::SUCCESS => Ok(()),
        _ => Err("tests failed in the guest".to_owned()),
    }
}

/// Checks by cargo's dependency tree that no crate of [`PURE`] depends on one of [`IMPURE`].
fn purity() -> Result<(), String> {
    for name in PURE {
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
        let tree = run::output(command.current_dir(run::root()))
            .ok_or_else(|| format!("cannot read the dependencies of {name} from `cargo tree`"))?;
        let found: Vec<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|dependency| IMPURE.contains(dependency))
            .collect();
        if !found.is_empty() {
            return Err(format!("{name} must do no input or output, but depends on {}", found.join(", ")));
        }
    }
    Ok(())
}

/// Prints each ignored test and the reason, because a passed run says nothing about these tests.
fn print_ignored(report: &Report, missing: &[String]) {
    let ignored = report.ignored();
    for (test, reason) in &ignored {
        println!("ignored: {test}: {reason}");
    }
    if !missing.is_empty() {
        println!(
            "not installed: {} (as root on Debian, `cargo xtask test` installs them)",
            missing.join(" ")
        );
    }
    if !ignored.is_empty() {
        println!("{} tests were ignored; `sudo cargo xtask test --strict` runs them all", ignored.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_in_any_order_and_an_unknown_one_is_an_error() {
        let parse =
            |words: &[&str]| Options::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>());
        let both = parse(&["--timings", "--strict"]).unwrap();
        assert!(both.is_strict && both.with_timings);
        assert!(!parse(&[]).unwrap().is_strict);
        assert!(parse(&["--fast"]).unwrap_err().contains("--fast"));
    }
}
