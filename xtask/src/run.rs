//! Helpers that run other programs, cargo above all.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds.
pub(crate) fn target_directory() -> Result<PathBuf, String> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    output(Command::new(env!("CARGO")).args(arguments).current_dir(root()))
        .and_then(|metadata| serde_json::from_str::<serde_json::Value>(&metadata).ok())
        .and_then(|metadata| Some(PathBuf::from(metadata.get("target_directory")?.as_str()?)))
        .ok_or_else(|| "cannot read the target directory from `cargo metadata`".to_owned())
}

/// The directory for a tool that cargo builds from a registry, by its name and version. It is in
/// the user's cache, so that every checkout on this machine shares it; without a home, in `target`.
pub(crate) fn tool_directory(tool: &str) -> Result<PathBuf, String> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))) {
        Some(cache) => Ok(cache.join("adit-xtask").join(tool)),
        None => Ok(target_directory()?.join(tool)),
    }
}

/// Runs cargo at the root of the workspace. Its output is shown.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).envs(environment.iter().copied()).current_dir(root());
    check(&mut command)
}

/// Runs a program.
///
/// # Errors
/// Fails if it cannot be started or does not succeed.
pub(crate) fn check(command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command.status().map_err(|error| format!("cannot run {shown}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{shown}: {status}")) }
}

/// What a program prints to its stdout; `None` if it fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
