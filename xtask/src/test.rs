//! `cargo xtask test`: everything that has to hold before a change is done.

use std::process::ExitCode;
use std::time::Instant;

use crate::timings::{Report, Timings};
use crate::{check, debian, run};

/// Crates that decide, and so do no input or output: nothing of [`IMPURE`] may be among what they
/// are built from.
const PURE: &[&str] = &["adit-wire", "adit-policy", "adit-tunnel"];
const IMPURE: &[&str] = &["libc", "nix", "socket2", "tokio", "rustix", "mio", "adit-linux"];

/// What tests need that the strict run has elsewhere: in the guest, or once the packages are built.
const MAY_SKIP: &str = "ipip,no_ipip,vrf,packages,nspawn";

/// How `cargo xtask test` runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Nothing is left out: a test that is ignored is a failure, and what takes a guest, the
    /// packages or the compiler of the kernel's programs runs too.
    is_strict: bool,
    /// Whether the end says where the time went.
    with_timings: bool,
}

impl Options {
    /// # Errors
    /// An argument is not known.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                "--strict" => options.is_strict = true,
                "--timings" => options.with_timings = true,
                other => return Err(format!("cargo xtask test has no option {other}")),
            }
        }
        Ok(options)
    }
}

/// Runs all steps, until one fails.
///
/// # Errors
/// A step failed, or a package that a strict run needs is missing.
pub(crate) fn test(options: Options) -> Result<(), String> {
    let start = Instant::now();
    let missing = debian::install(debian::FOR_TESTS);
    if options.is_strict && !missing.is_empty() {
        return Err(format!(
            "the tests need these packages, which could not be installed: {}",
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
    timings.step("build of the tests", || {
        run::cargo(&["test", "--quiet", "--workspace", "--locked", "--no-run"], &[])
    })?;
    timings.step("tests", || {
        let runner = report.runner()?;
        let mut environment = report.environment(&runner);
        environment.push(("INSTA_UPDATE", "no"));
        if options.is_strict {
            environment.extend([("ADIT_STRICT", "1"), ("ADIT_MAY_SKIP", MAY_SKIP)]);
        }
        run::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"], &environment)
    })?;
    if options.is_strict {
        timings.step("kernel programs", || crate::bpf::bpf(true))?;
        timings.step("package", || crate::deb::deb(&["--test".to_owned()]))?;
        timings.step("Linux 6.1", guest)?;
    }
    Ok(())
}

/// What depends on the kernel most, on the oldest that Adit promises to run on and beside its own
/// driver, and the table of conformance; in one guest. `cargo xtask vm test` runs the other suites.
fn guest() -> Result<(), String> {
    let packages = ["adit-dataplane", "adit-testbed:linux_ipip", "adit"].map(str::to_owned);
    match crate::vm::test_with_conformance(&packages)? {
        ExitCode::SUCCESS => Ok(()),
        _ => Err("tests failed in the guest".to_owned()),
    }
}

/// The design's promise that what decides does no input or output, read from what cargo builds.
fn purity() -> Result<(), String> {
    for name in PURE {
        let mut command = std::process::Command::new(env!("CARGO"));
        command.args(["tree", "--locked", "-p", name, "-e", "normal", "--prefix", "none", "-f", "{p}"]);
        let tree = run::output(command.current_dir(run::root()))
            .ok_or_else(|| format!("cannot read what {name} is built from"))?;
        let found: Vec<&str> = tree
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|dependency| IMPURE.contains(dependency))
            .collect();
        if !found.is_empty() {
            return Err(format!("{name} must do no input or output, and depends on {}", found.join(", ")));
        }
    }
    Ok(())
}

/// Names each test that was ignored, and why: a pass says nothing about them.
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
