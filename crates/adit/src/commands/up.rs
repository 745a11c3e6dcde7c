//! `adit up`: start the daemon in the background and wait until it forwards.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use adit_control::api::client;
use adit_control::state::paths::RuntimePaths;

use crate::Failure;
use crate::output::Output;

pub(crate) fn up(file: &Path, netns: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    super::rights::require_for_network("up")?;
    let paths = RuntimePaths::of(config.site.name.as_str());
    paths.create_run()?;
    // Opened for appending, because a running daemon may be using it. Read later through this
    // descriptor, because a daemon that fails removes its files.
    let log = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(paths.log());
    let mut log = log.map_err(|error| format!("cannot write the log {}: {error}", paths.log().display()))?;
    let before = log.metadata()?.len();
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(std::path::absolute(file)?);
    // The child is in the namespace already. It records the name for `adit down`.
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    adit_linux::process::pass_descriptor(&mut command, writer.as_raw_fd());
    command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
    // In a process group of its own: Ctrl-C in this terminal does not reach the daemon.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(log.try_clone()?))
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    drop(writer);
    if is_ready(reader)? {
        // It may have been taken down meanwhile.
        let warnings = client::status(&paths).map(|status| status.warnings).unwrap_or_default();
        super::warn(&warnings, output);
        if output.is_json() {
            let (name, pid) = (paths.name(), child.id());
            output.line(serde_json::json!({
                "schema": 1, "ok": true, "name": name, "pid": pid, "warnings": warnings
            }));
        } else {
            output.line(format_args!("overlay `{}` is up (process {})", paths.name(), child.id()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    Err(log_since(&mut log, before)?.into())
}

/// What the daemon has logged since `before`, without the prefix that [`Output::error`] adds again.
fn log_since(log: &mut File, before: u64) -> std::io::Result<String> {
    let mut text = String::new();
    log.seek(SeekFrom::Start(before))?;
    log.read_to_string(&mut text)?;
    Ok(text.trim().trim_start_matches("adit: ").to_owned())
}

/// Waits until the daemon is ready (true) or has ended (false).
fn is_ready(mut reader: PipeReader) -> std::io::Result<bool> {
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok(text == "ready\n")
}
