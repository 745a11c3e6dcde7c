//! `adit up`: the daemon in the background.

use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use adit_control::places::Places;

use crate::Failure;
use crate::output::Output;

pub(crate) fn up(file: &Path, netns: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let places = Places::of(config.site.name.as_str());
    places.create()?;
    let log_path = places.log();
    let log = File::create(&log_path)?;
    let (reader, writer) = std::io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(std::path::absolute(file)?);
    // It is in the namespace already; the name is for its notes.
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    adit_linux::process::pass_descriptor(&mut command, writer.as_raw_fd());
    command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
    // SIGTERM, as an init sends it at shutdown, keeps; a background daemon has no Ctrl-C.
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(OwnedFd::from(log))
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    drop(writer);
    if is_ready(reader)? {
        if output.is_json() {
            let answer =
                serde_json::json!({ "schema": 1, "ok": true, "name": places.name(), "pid": child.id() });
            output.line(answer);
        } else {
            output.line(format_args!("overlay `{}` is up (process {})", places.name(), child.id()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let said = std::fs::read_to_string(&log_path).unwrap_or_default();
    Err(said.trim().trim_start_matches("adit: ").to_owned().into())
}

/// Waits until the daemon is ready, or has ended without.
fn is_ready(mut reader: PipeReader) -> std::io::Result<bool> {
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    Ok(said == "ready\n")
}
