//! `adit apply` and `adit confirm`: a file made true, and kept so.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use adit_control::ControlError;
use adit_control::api::{ApplyRequest, client};
use adit_control::state::confirmation::is_overdue;
use adit_control::state::paths::RuntimePaths;
use adit_linux::process::LockFile;

use super::{plan, up};
use crate::Failure;
use crate::output::Output;

/// The daemon itself comes first.
const GRACE: Duration = Duration::from_secs(2);

pub(crate) fn apply(
    file: &Path,
    confirm: Option<u64>,
    netns: Option<&str>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    let request = ApplyRequest {
        file: std::path::absolute(file)?,
        text: std::fs::read_to_string(file)?,
        confirm_seconds: confirm,
    };
    let applied = match client::apply(&paths, &request) {
        Ok(applied) => applied,
        Err(ControlError::NotRunning { .. }) if confirm.is_some() => {
            return Err(format!(
                "overlay `{}` does not run, so there is nothing to return to: `adit up {}` starts it",
                paths.name(),
                file.display()
            )
            .into());
        }
        Err(ControlError::NotRunning { .. }) => return up::up(file, netns, output),
        Err(error) => return Err(error.into()),
    };
    let is_waiting = confirm.filter(|_| !applied.changes.is_empty());
    if let Some(seconds) = is_waiting {
        watch(&request.file, seconds, netns)?;
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
            "taken back in {seconds} s unless confirmed: `adit confirm {}`",
            paths.name()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves somebody behind who outlives this session, and the daemon.
fn watch(file: &Path, seconds: u64, netns: Option<&str>) -> Result<(), Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("guard").arg(file).arg(seconds.to_string());
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").process_group(0).spawn()?;
    Ok(())
}

pub(crate) fn guard(
    file: &Path,
    seconds: u64,
    netns: Option<&str>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    std::thread::sleep(Duration::from_secs(seconds) + GRACE);
    let paths = RuntimePaths::of(config.site.name.as_str());
    // Whoever holds the lock takes it back, or has done so.
    let is_dead = LockFile::acquire(&paths.lock()).is_ok();
    if is_dead && is_overdue(&paths.confirmation()) {
        // A daemon that starts sees by itself what must not run.
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
        output.line(format_args!("overlay `{name}`: nothing waits to be confirmed"));
    }
    Ok(if is_kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
