//! `adit check`: report the mistakes in a configuration.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use adit_config::{Config, LoadError, Problems};
use adit_control::overlay;

use crate::Failure;
use crate::output::Output;

pub(crate) fn check(file: &Path, output: &Output) -> Result<ExitCode, Failure> {
    match Config::load(file) {
        Ok(config) => {
            let limits = overlay::limits(&config);
            if output.is_json() {
                let limits: Vec<_> = limits
                    .iter()
                    .map(|limit| serde_json::json!({ "name": limit.name, "what": limit.what }))
                    .collect();
                output.line(serde_json::json!({ "schema": 1, "ok": true, "problems": [], "limits": limits }));
            } else {
                let peers = config.peers.len();
                let networks: usize = config.peers.iter().map(|peer| peer.networks.len()).sum();
                output.line(format_args!(
                    "{}: site `{}`, {peers} peer{}, {networks} network{}: no mistakes",
                    file.display(),
                    config.site.name,
                    plural(peers),
                    plural(networks),
                ));
                for limit in limits {
                    output
                        .line(format_args!("  dataplane = \"kernel\" lacks {}: {}", limit.name, limit.what));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(LoadError::Problems(problems)) => {
            show(&problems, output);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Prints every mistake: with the source line on a terminal, one per line in a pipe, or as JSON.
pub(crate) fn show(problems: &Problems, output: &Output) {
    if output.is_json() {
        output.line(serde_json::json!({ "schema": 1, "ok": false, "problems": problems }));
        return;
    }
    if !std::io::stderr().is_terminal() {
        output.note(problems);
        return;
    }
    output.note(problems.drawn(output.colour(), 100));
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
