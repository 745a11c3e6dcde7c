//! `adit plan`: show what a configuration would change.

use std::path::Path;
use std::process::ExitCode;

use adit_control::api::client;
use adit_control::overlay::{self, Plan};
use adit_control::reconcile::change::Change;
use adit_control::state::paths::RuntimePaths;

use crate::Failure;
use crate::output::Output;

/// Exit code if something would change.
const DIFFERS: u8 = 2;

pub(crate) fn plan(file: &Path, commands: bool, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    let running = client::running_overlay(&paths)?;
    let Plan { changes, warnings } = overlay::plan(running.as_ref(), &config)?;
    super::warn(&warnings, output);
    if output.is_json() {
        let plan = serde_json::json!({ "schema": 1, "ok": true, "changes": changes, "warnings": warnings });
        output.line(plan);
    } else if commands {
        for command in changes.iter().flat_map(|change| &change.commands) {
            output.line(command);
        }
    } else {
        show(config.site.name.as_str(), &changes, output);
    }
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

/// Prints the changes, one per line, and their number.
pub(super) fn show(site: &str, changes: &[Change], output: &Output) {
    for change in changes {
        output.line(change);
    }
    match changes.len() {
        0 => output.line(format_args!("overlay `{site}`: nothing to change")),
        1 => output.line(format_args!("overlay `{site}`: 1 change")),
        count => output.line(format_args!("overlay `{site}`: {count} changes")),
    }
}
