//! The project's own chores.
//!
//! ```text
//! cargo xtask test [--strict]   everything that has to hold before a change is done
//! cargo xtask bench [ARGS]      how fast it is, beside the bare underlay and beside others
//! cargo xtask schema            writes the generated files anew: JSON Schema, table of drops
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to whoever runs it")]

mod bench;
mod debian;
mod run;
mod test;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask test [--strict] | bench [--rounds N] [--quick] [--soak] | schema";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        Some(("test", [])) => test::test(false),
        Some(("test", [strict])) if strict == "--strict" => test::test(true),
        Some(("bench", rest)) => bench::run(rest),
        Some(("schema", [])) => run::cargo(&["test", "--workspace", "generated_"], &[("ADIT_BLESS", "1")]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
