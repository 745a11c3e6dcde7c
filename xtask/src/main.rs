//! The project's own chores. [`HELP`] says what each does.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to whoever runs it")]

mod bench;
mod bpf;
mod check;
mod deb;
mod debian;
mod run;
mod test;
mod timings;
mod vm;

use std::process::ExitCode;

/// The answer to `cargo xtask help`.
const HELP: &str = "\
The chores of this project. As root on Debian, each installs the packages that it needs.

cargo xtask test [--strict] [--timings]
    Everything that has to hold before a change is done: format, rules, purity, lints, documentation,
    tests. Tests that this machine cannot run are listed. With --strict they are failures, and the
    kernel's programs, the Debian package and Linux 6.1 in a guest are tested too; CI runs that.
    With --timings the end says where the time went: by step, test program and test.

cargo xtask check
    The rules alone, in a second: prose of at most 100 columns, links and names of files that lead
    somewhere, no modules that import each other in a circle, crates that depend only on those below
    them. Lists all places at once.

cargo xtask generate
    Writes the files that are generated from the sources: JSON Schema, the
    reference of the configuration, OpenAPI, the table of drops.

cargo xtask bench [ARGS]
    Measures Adit beside the bare underlay and beside other tunnels, and writes the document;
    `bench --help` lists the arguments.

cargo xtask conformance [--check] [ARGS]
    Observes what Adit and Linux's ipip do with the same packets, rule by rule, in a guest, and writes
    docs/reference/conformance.md; with --check, compares it.

cargo xtask vm run [--timeout SECONDS] [--keep NAME]... -- COMMAND [ARGS]
cargo xtask vm test [PACKAGE[:TARGET]]...
cargo xtask vm bench [ARGS]
    A QEMU guest with Debian's kernel 6.1, the oldest that Adit supports, which has drivers that a
    build machine may lack. It runs a command, the tests that depend on the kernel, or the benchmark.

cargo xtask bpf [--check]
    Builds the kernel's programs, which are committed; with --check, compares them.

cargo xtask deb [--test]
    Builds the Debian package; with --test, also installs, upgrades, removes and purges it in layers
    over this machine's files.

cargo xtask help
    This text.";

/// Writes anew what is generated from the sources and committed: the tests that compare them do it.
fn generate() -> Result<(), String> {
    let bless = [("ADIT_BLESS", "1")];
    run::cargo(&["test", "--quiet", "-p", "adit-config", "--test", "schema"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-control", "--lib", "openapi"], &bless)?;
    run::cargo(&["test", "--quiet", "-p", "adit-policy", "documentation"], &bless)
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
        // Not for people: cargo starts test programs by it.
        [timings::TIMED, ..] => timings::timed(rest),
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
