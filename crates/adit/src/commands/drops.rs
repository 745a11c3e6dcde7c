//! `adit drops`: dropped packets by reason.

use std::process::ExitCode;

use adit_control::api::client;
use adit_control::api::drops::{Drop, Drops};
use adit_control::state::drop_status::LastDrop;
use adit_control::state::paths;

use crate::Failure;
use crate::commands::ask;
use crate::output::Output;

pub(crate) fn drops(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let found = ask::overlays(name, paths::running, client::drops)?;
    if output.is_json() {
        return Ok(found.json(output));
    }
    let found = found.or_none()?;
    found.answers.iter().for_each(|drops| show(drops, output));
    Ok(if found.note_unreadable(output) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the reasons that have occurred. JSON, and `docs/reference/drops.md`, list all of them.
fn show(drops: &Drops, output: &Output) {
    let occurred: Vec<&Drop> = drops.drops.iter().filter(|drop| drop.dropped.count > 0).collect();
    if occurred.is_empty() {
        output.line(format_args!("site {}  nothing was dropped", drops.site));
        return;
    }
    output.line(format_args!("site {}", drops.site));
    let width = |of: fn(&Drop) -> usize| occurred.iter().map(|drop| of(drop)).max().unwrap_or(0);
    let reason = width(|drop| drop.reason.len());
    let count = width(|drop| drop.dropped.count.to_string().len());
    let section = width(|drop| drop.section.len());
    for drop in &occurred {
        output.line(format_args!(
            "  {:reason$}  {:count$}  {:section$}  {}",
            drop.reason, drop.dropped.count, drop.section, drop.explanation
        ));
        if let Some(dropped) = &drop.dropped.last {
            output.line(format_args!("  {:reason$}  last{}", "", last(dropped)));
        }
    }
}

/// Whose packet the last one was, and when it was dropped.
pub(crate) fn last(last: &LastDrop) -> String {
    let source = last.source.map_or(String::new(), |source| format!(" from {source}"));
    let peer = last.peer.as_ref().map_or(String::new(), |peer| format!(", peer {peer}"));
    format!("{source}{peer}, {:.0} s ago", last.seconds)
}
