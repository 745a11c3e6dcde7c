//! `adit apply` and `adit confirm`: change a running overlay, with automatic rollback.
//!
//! The daemon rolls an unconfirmed change back by itself. `apply` also leaves a guard process
//! behind, which does so if the daemon is dead by then. The guard outlives the session.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use adit_control::ControlError;
use adit_control::api::{ApplyRequest, client};
use adit_control::state::confirmation::{is_overdue, is_pending};
use adit_control::state::paths::RuntimePaths;
use adit_linux::process::LockFile;

use super::{plan, up};
use crate::Failure;
use crate::output::Output;

/// How often the guard looks whether the change still waits. Nothing announces that.
const GUARD_INTERVAL: Duration = Duration::from_secs(1);
/// The guard waits this much longer than the daemon, which rolls back by itself.
const GUARD_DELAY: Duration = Duration::from_secs(2);

pub(crate) fn apply(
    file: &Path,
    confirm: Option<u64>,
    netns: Option<&str>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let (config, text) = match super::load_with_text(file, output)? {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    let request = ApplyRequest { file: std::path::absolute(file)?, text, confirm_seconds: confirm };
    let applied = match client::apply(&paths, &request) {
        Ok(applied) => applied,
        Err(ControlError::NotRunning { .. }) if confirm.is_some() => {
            return Err(format!(
                "overlay `{}` is not running, so there is nothing to roll back to; start it with `adit up {}`",
                paths.name(),
                file.display()
            )
            .into());
        }
        Err(ControlError::NotRunning { .. }) => return up::up(file, netns, output),
        Err(error) => return Err(error.into()),
    };
    let is_waiting = applied.confirm_seconds;
    if is_waiting.is_some() {
        spawn_guard(&request.file, netns)?;
    }
    if output.is_json() {
        output.line(serde_json::json!({
            "schema": 1, "ok": true, "changes": applied.changes, "confirm_seconds": is_waiting,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    plan::show(paths.name(), &applied.changes, output);
    if let Some(seconds) = is_waiting {
        output.line(format_args!(
            "rolls back in {seconds} s unless confirmed: `adit confirm {}`",
            paths.name()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts `adit guard`, in a process group of its own so that it outlives this session.
fn spawn_guard(file: &Path, netns: Option<&str>) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guard").arg(file);
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").process_group(0).spawn()?;
    Ok(())
}

/// Waits until the change is confirmed or its time is over, then restarts the overlay if its daemon
/// is dead and the change unconfirmed.
pub(crate) fn guard(file: &Path, netns: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    while is_pending(&paths, &config) && !is_overdue(&paths) {
        std::thread::sleep(GUARD_INTERVAL);
    }
    if !is_pending(&paths, &config) {
        return Ok(ExitCode::SUCCESS);
    }
    std::thread::sleep(GUARD_DELAY);
    // Another change has a guard of its own, which knows the file that it came from.
    if !is_pending(&paths, &config) {
        return Ok(ExitCode::SUCCESS);
    }
    // A living daemon holds the lock, and rolls back by itself.
    let is_dead = LockFile::acquire(&paths.lock()).is_ok();
    if is_dead && is_overdue(&paths) {
        // At its start a daemon discards an unconfirmed change and runs the previous configuration.
        return up::up(file, netns, output);
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn confirm(name: &str, output: &Output) -> Result<ExitCode, Failure> {
    let is_kept = client::confirm(&RuntimePaths::of(name))?;
    if output.is_json() {
        output.line(serde_json::json!({ "schema": 1, "ok": is_kept }));
    } else if is_kept {
        output.line(format_args!("overlay `{name}`: the change is kept"));
    } else {
        output.line(format_args!("overlay `{name}`: no change waits for confirmation"));
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
