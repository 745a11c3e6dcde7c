//! The command line itself: usage, help, what is generated from its definition.

mod support;

use support::adit;

const COMMANDS: [&str; 8] = ["lab", "check", "run", "up", "down", "status", "completions", "man"];
