//! `adit check`: report the mistakes in a configuration.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use adit_config::{Config, LoadError, Problems};
use adit_control::api::client;
use adit_control::overlay::{self, Findings};
use adit_control::state::paths::RuntimePaths;

use crate::Failure;
use crate::output::Output;

pub(crate) fn check(file: &Path, here: bool, output: &Output) -> Result<ExitCode, Failure> {
    match Config::load(file) {
        Ok(config) => {
            let limits = overlay::limits(&config);
            let findings = if here { Some(look_here(&config)?) } else { None };
            let is_fit = findings.as_ref().is_none_or(|findings| findings.obstacles.is_empty());
            if output.is_json() {
                let limits: Vec<_> = limits
                    .iter()
                    .map(|limit| serde_json::json!({ "name": limit.name, "what": limit.what }))
                    .collect();
                let mut answer =
                    serde_json::json!({ "schema": 1, "ok": is_fit, "problems": [], "limits": limits });
                if let Some(Findings { obstacles, warnings, passed_by }) = &findings {
                    let obstacles: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
                    answer["here"] = serde_json::json!({
                        "obstacles": obstacles, "warnings": warnings, "passed_by": passed_by,
                    });
                }
                output.line(answer);
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
                if let Some(findings) = &findings {
                    show_here(findings, output);
                }
            }
            Ok(if is_fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(LoadError::Problems(problems)) => {
            show(&problems, output);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// Looks at this machine for a configuration, beside the overlay of that name if it runs.
fn look_here(config: &Config) -> Result<Findings, Failure> {
    let running = client::running_overlay(&RuntimePaths::of(config.site.name.as_str()))?;
    Ok(overlay::look_here(running.as_ref(), config))
}

fn show_here(findings: &Findings, output: &Output) {
    for obstacle in &findings.obstacles {
        output.line(format_args!("  this machine: {obstacle}"));
    }
    for warning in &findings.warnings {
        output.line(format_args!("  warning: {}", warning.what));
    }
    for chain in &findings.passed_by {
        output.line(format_args!("  outer datagrams pass by {chain}"));
    }
    if findings.obstacles.is_empty() && findings.warnings.is_empty() {
        output.line("  this machine: nothing in the way");
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
