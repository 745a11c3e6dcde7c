//! `adit drops`: dropped packets by reason.

use std::process::ExitCode;

use adit_control::api::client;
use adit_control::api::drops::{Drop, Drops};
use adit_control::state::paths::{self, RuntimePaths};

use crate::Failure;
use crate::output::Output;

pub(crate) fn drops(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let found = match name {
        Some(name) => vec![client::drops(&RuntimePaths::of(name))?],
        // The socket of a dead daemon does not answer.
        None => {
            paths::running().iter().filter_map(|name| client::drops(&RuntimePaths::of(name)).ok()).collect()
        }
    };
    match (found.as_slice(), output.is_json()) {
        ([], _) => return Err("no overlay is running; `adit up FILE` starts one".into()),
        ([only], true) => output.line(serde_json::to_string(only)?),
        (several, true) => output.line(serde_json::to_string(several)?),
        (several, false) => several.iter().for_each(|drops| show(drops, output)),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the reasons that have occurred. JSON, and `docs/reference/drops.md`, list all of them.
fn show(drops: &Drops, output: &Output) {
    let occurred: Vec<&Drop> = drops.drops.iter().filter(|drop| drop.count > 0).collect();
    if occurred.is_empty() {
        output.line(format_args!("site {}  nothing was dropped", drops.site));
        return;
    }
    output.line(format_args!("site {}", drops.site));
    let width = |of: fn(&Drop) -> usize| occurred.iter().map(|drop| of(drop)).max().unwrap_or(0);
    let reason = width(|drop| drop.reason.len());
    let count = width(|drop| drop.count.to_string().len());
    let section = width(|drop| drop.section.len());
    for drop in &occurred {
        output.line(format_args!(
            "  {:reason$}  {:count$}  {:section$}  {}",
            drop.reason, drop.count, drop.section, drop.explanation
        ));
    }
}
