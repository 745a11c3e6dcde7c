//! `cargo xtask test`: format, lints, documentation, purity, tests.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::{debian, run};

/// Crates that decide, and so do no input or output: nothing of the right-hand side may be among
/// what they are built from.
const PURE: &[&str] = &["adit-wire", "adit-peers", "adit-policy", "adit-tunnel"];
const IMPURE: &[&str] = &["libc", "nix", "socket2", "tokio", "rustix", "mio", "adit-linux"];

/// What tests need that the strict run has elsewhere: in the guest, or once the packages are built.
const MAY_SKIP: &str = "ipip,no_ipip,vrf,packages,nspawn";

/// Runs everything. In strict mode a test that is ignored is a failure, the kernel's programs are built anew and
/// compared with what is committed, the guest is asked too, and what is observed beside Linux's ipip is compared
/// with the committed table.
pub(crate) fn test(strict: bool) -> Result<(), String> {
    let start = Instant::now();
    let missing = debian::install(debian::FOR_TESTS);
    if strict && !missing.is_empty() {
        return Err(format!(
            "the tests need these packages, which could not be installed: {}",
            missing.join(" ")
        ));
    }
    let report = Report::new()?;

    step("format", || run::cargo(&["fmt", "--all", "--check"], &[]))?;
    step("lints", || {
        run::cargo(
            &["clippy", "--quiet", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
            &[],
        )
    })?;
    step("documentation", || {
        run::cargo(
            &["doc", "--quiet", "--workspace", "--no-deps", "--locked"],
            &[("RUSTDOCFLAGS", "-D warnings")],
        )
    })?;
    step("purity", purity)?;
    step("tests", || {
        let path = report.0.to_string_lossy();
        let mut environment = vec![("ADIT_TEST_REPORT", &*path), ("INSTA_UPDATE", "no")];
        if strict {
            environment.extend([("ADIT_STRICT", "1"), ("ADIT_MAY_SKIP", MAY_SKIP)]);
        }
        run::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"], &environment)
    })?;
    if strict {
        step("kernel programs", || crate::bpf::bpf(true))?;
        step("Linux 6.1", guest)?;
        step("package", || crate::deb::deb(&["--test".to_owned()]))?;
        step("conformance", || crate::vm::conformance(&["--check".to_owned()]))?;
    }

    println!("\nall green in {:.0} s", start.elapsed().as_secs_f64());
    report.tell_ignored(&missing);
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    println!("== {name}");
    work().map_err(|error| format!("{name}: {error}"))
}

/// What depends on the kernel most, on the oldest that Adit promises to run on, and beside its own driver. `cargo xtask vm test` runs the rest.
fn guest() -> Result<(), String> {
    let packages = ["test", "adit-dataplane", "adit-testbed:linux_ipip", "adit"].map(str::to_owned);
    match crate::vm::vm(&packages)? {
        ExitCode::SUCCESS => Ok(()),
        _ => Err("tests failed in the guest".to_owned()),
    }
}

/// The design's promise that what decides does no input or output, read from what cargo builds.
fn purity() -> Result<(), String> {
    for name in PURE {
        let mut command = Command::new(env!("CARGO"));
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

/// The file to which test programs report; see `adit_harness::report`.
struct Report(PathBuf);

impl Report {
    /// An empty one.
    fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("adit-test-report-{}", std::process::id()));
        std::fs::write(&path, "").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self(path))
    }

    /// Names each test that was ignored, and why: a pass says nothing about them.
    fn tell_ignored(&self, missing: &[String]) {
        let report = std::fs::read_to_string(&self.0).unwrap_or_default();
        let ignored: Vec<_> = report.lines().filter_map(|line| line.strip_prefix("ignored\t")).collect();
        for line in &ignored {
            println!("ignored: {}", line.replace('\t', ": "));
        }
        if !missing.is_empty() {
            println!("not installed, and not ours to install: {} (run as root on Debian)", missing.join(" "));
        }
        if !ignored.is_empty() {
            println!("{} tests were ignored; `sudo cargo xtask test --strict` runs them all", ignored.len());
        }
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // A file that stays in the temporary directory does no harm.
        let _ = std::fs::remove_file(&self.0);
    }
}
