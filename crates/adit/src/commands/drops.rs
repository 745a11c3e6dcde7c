//! `adit drops`: dropped packets by reason.

use std::process::ExitCode;

use adit_control::api::client;
use adit_control::api::drops::{Drop, Drops};

use crate::Failure;
use crate::commands::ask;
use crate::output::Output;

pub(crate) fn drops(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let found = ask::overlays(name, client::drops)?.or_none()?;
    match (found.answers.as_slice(), output.is_json()) {
        ([only], true) => output.line(serde_json::to_string(only)?),
        (several, true) => output.line(serde_json::to_string(several)?),
        (several, false) => several.iter().for_each(|drops| show(drops, output)),
    }
    Ok(if found.note_unreadable(output) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
