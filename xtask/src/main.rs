//! The program behind `cargo xtask`: the tasks of the project that cargo alone cannot do. [`HELP`]
//! describes each.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program prints its results")]

mod artifacts;
mod bench;
mod bpf;
mod check;
mod deb;
mod debian;
mod programs;
mod run;
mod test;
mod timings;
mod vm;

use std::process::ExitCode;

/// The text of `cargo xtask help`.
const HELP: &str = "\
Tasks of the Adit project. As root on Debian, each installs the packages that it needs.

cargo xtask test [--strict] [--timings]
    Runs all checks that a change must pass: format, rules, purity, lints, documentation, tests.
    Lists the tests that this machine cannot run. With --strict those are failures, and the eBPF
    programs, the Debian package and Linux 6.1 in a guest are tested too; CI runs that.
    With --timings, also prints the time of each step and of the slowest test programs and tests.

cargo xtask check
    Checks only the rules, in about a second: prose has at most 100 columns, links and file names
    have a target, modules do not import each other in a circle, and crates depend only on crates
    below them. Lists every place that breaks a rule.

cargo xtask generate
    Writes the files that are generated from the sources: JSON Schema, configuration reference,
    OpenAPI document, table of drop reasons.

cargo xtask bench [ARGS]
    Measures Adit, the bare underlay and other tunnels, and writes the results to the document.
    `bench --help` lists the arguments.

cargo xtask conformance [--check] [ARGS]
    Observes in a guest what Adit and Linux's ipip driver do with the same packets, rule by rule, and
    writes docs/reference/conformance.md. With --check, compares that file instead.

cargo xtask vm run [--kernel 6.12] [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS]
cargo xtask vm test [--kernel 6.12] [PACKAGE[:TARGET[:PART]]]...
cargo xtask vm bench [--kernel 6.12] [ARGS]
    Runs a command, the tests that depend on the kernel, or the benchmark in a QEMU guest. Its kernel
    is Debian's Linux 6.1, the oldest that Adit supports, or 6.12, which has TCX. Both have drivers
    that a build machine may lack.

cargo xtask bpf [--check]
    Builds the object file of the eBPF programs, which is committed. With --check, compares it
    instead.

cargo xtask deb [--test]
    Builds the Debian package. With --test, also installs, upgrades, removes and purges it, on a
    writable layer over this machine's files.

cargo xtask help
    Prints this text.";

/// Writes the committed files that are generated from the sources. The tests that compare these
/// files write them if `ADIT_BLESS` is set.
fn generate() -> Result<(), String> {
    let bless = [("ADIT_BLESS", "1")];
    run::cargo(&["test", "--quiet", "-p", "adit-config", "--test", "schema"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-control", "--lib", "openapi"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-policy", "--test", "drop_reasons"], &bless)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let succeeded = |()| ExitCode::SUCCESS;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let done = match words[..] {
        ["help" | "--help" | "-h", ..] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        ["test", ..] => test::Options::parse(rest).and_then(test::test).map(succeeded),
        ["check"] => check::check().map(succeeded),
        ["generate"] => generate().map(succeeded),
        ["bench", ..] => bench::run(rest).map(succeeded),
        ["conformance", ..] => vm::conformance(rest).map(succeeded),
        ["vm", ..] => vm::vm(rest),
        ["bpf"] => bpf::bpf(false).map(succeeded),
        ["bpf", "--check"] => bpf::bpf(true).map(succeeded),
        ["deb", ..] => deb::deb(rest).map(succeeded),
        _ => {
            eprintln!("{HELP}");
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
