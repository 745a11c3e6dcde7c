//! `adit up`: the daemon in the background.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use adit_control::state::paths::RuntimePaths;

use crate::Failure;
use crate::output::Output;

pub(crate) fn up(file: &Path, netns: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    paths.create()?;
    // Added to: it may be the log of a daemon that runs. Read by the descriptor: a daemon that
    // fails removes its files.
    let mut log = OpenOptions::new().read(true).append(true).create(true).open(paths.log())?;
    let before = log.metadata()?.len();
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
        .stderr(OwnedFd::from(log.try_clone()?))
        .current_dir("/")
        .process_group(0)
        .spawn()?;
    drop(writer);
    if is_ready(reader)? {
        if output.is_json() {
            let answer =
                serde_json::json!({ "schema": 1, "ok": true, "name": paths.name(), "pid": child.id() });
            output.line(answer);
        } else {
            output.line(format_args!("overlay `{}` is up (process {})", paths.name(), child.id()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    Err(said_since(&mut log, before)?.into())
}

/// The daemon's last words, as [`Output::error`] of ours will print them again.
fn said_since(log: &mut File, before: u64) -> std::io::Result<String> {
    let mut said = String::new();
    log.seek(SeekFrom::Start(before))?;
    log.read_to_string(&mut said)?;
    Ok(said.trim().trim_start_matches("adit: ").to_owned())
}

/// Waits until the daemon is ready, or has ended without.
fn is_ready(mut reader: PipeReader) -> std::io::Result<bool> {
    let mut said = String::new();
    reader.read_to_string(&mut said)?;
    Ok(said == "ready\n")
}
