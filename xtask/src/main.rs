//! The project's own chores.
//!
//! ```text
//! cargo xtask test [--strict]   everything that has to hold before a change is done
//! cargo xtask bench [ARGS]      how fast it is, beside the bare underlay and beside others
//! cargo xtask vm run|test|bench a QEMU guest with Debian's kernel 6.1, for what this machine's lacks
//! cargo xtask conformance       what Adit and Linux's ipip do, rule by rule: docs/reference/conformance.md
//! cargo xtask bpf [--check]     builds the kernel's programs anew; they are committed
//! cargo xtask deb [--test]      builds the Debian package; installs, upgrades and removes it on a machine of its own
//! cargo xtask generate          writes the generated files anew: JSON Schema, OpenAPI, table of drops
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to whoever runs it")]

mod bench;
mod bpf;
mod check;
mod deb;
mod debian;
mod run;
mod test;
mod vm;

use std::process::ExitCode;

/// Writes anew what is generated from the sources and committed: the tests that compare them do it.
fn generate() -> Result<(), String> {
    let bless = [("ADIT_BLESS", "1")];
    run::cargo(&["test", "--quiet", "-p", "adit-config", "--test", "schema"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-control", "--lib", "openapi"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-policy", "documentation"], &bless)
}

const USAGE: &str = "usage: cargo xtask test [--strict] | bench [--rounds N] [--quick] [--soak]
       | vm run [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS...] | vm test [PACKAGE[:TARGET]]...
       | vm bench [ARGS...] | conformance [--check] [ARGS...] | bpf [--check] | deb [--test] | generate";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        Some(("test", [])) => test::test(false).map(|()| ExitCode::SUCCESS),
        Some(("test", [strict])) if strict == "--strict" => test::test(true).map(|()| ExitCode::SUCCESS),
        Some(("check", [])) => check::check().map(|()| ExitCode::SUCCESS),
        Some(("bench", rest)) => bench::run(rest).map(|()| ExitCode::SUCCESS),
        Some(("bpf", [])) => bpf::bpf(false).map(|()| ExitCode::SUCCESS),
        Some(("bpf", [check])) if check == "--check" => bpf::bpf(true).map(|()| ExitCode::SUCCESS),
        Some(("vm", rest)) => vm::vm(rest),
        Some(("conformance", rest)) => vm::conformance(rest).map(|()| ExitCode::SUCCESS),
        Some(("deb", rest)) => deb::deb(rest).map(|()| ExitCode::SUCCESS),
        Some(("generate", [])) => generate().map(|()| ExitCode::SUCCESS),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
