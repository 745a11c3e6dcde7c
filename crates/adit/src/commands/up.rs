//! `adit up`: start the daemon in the background and wait until it forwards.

use std::fs::File;
use std::io::{self, PipeReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use adit_control::api::client;
use adit_control::state::paths::RuntimePaths;
use adit_linux::process::pass_descriptor;

use crate::Failure;
use crate::commands::log_file;
use crate::commands::supervise::FILE;
use crate::output::Output;

pub(crate) fn up(file: &Path, netns: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let paths = RuntimePaths::of(config.site.name.as_str());
    paths.create_run()?;
    // Read later through this descriptor, because a daemon that fails removes its files.
    let mut log = log_file::open(&paths.log())
        .map_err(|error| format!("cannot write the log {}: {error}", paths.log().display()))?;
    let not_started = |error| format!("cannot start the daemon: {error}");
    let before = log.seek(SeekFrom::End(0)).map_err(not_started)?;
    let reader = start(&paths, file, netns, &log).map_err(not_started)?;
    let Some(pid) = ready_daemon(reader) else {
        return Err(log_since(&mut log, before)?.into());
    };
    // It may have been taken down meanwhile.
    let warnings = client::status(&paths).map(|status| status.warnings).unwrap_or_default();
    super::warn(&warnings, output);
    let name = paths.name();
    if output.is_json() {
        output.line(serde_json::json!({
            "schema": 1, "ok": true, "name": name, "pid": pid, "warnings": warnings
        }));
    } else {
        output.line(format_args!("overlay `{name}` is up (process {pid})"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the supervisor, which starts the daemon. What the supervisor says of it comes out of the
/// pipe.
fn start(paths: &RuntimePaths, file: &Path, netns: Option<&str>, log: &File) -> io::Result<PipeReader> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("supervise").args(["--name", paths.name()]).env(FILE, std::path::absolute(file)?);
    // It is in the namespace already. The daemon records the name for `adit down`.
    if let Some(netns) = netns {
        command.arg("--netns").arg(netns);
    }
    pass_descriptor(&mut command, writer.as_raw_fd());
    command.arg("--ready-fd").arg(writer.as_raw_fd().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log.try_clone()?).current_dir("/");
    // In a process group of its own: Ctrl-C in this terminal does not reach the daemon.
    command.process_group(0).spawn()?;
    Ok(reader)
}

/// Waits until a daemon is ready, and returns its process number; `None`: it has ended.
fn ready_daemon(mut reader: PipeReader) -> Option<u32> {
    let mut text = String::new();
    reader.read_to_string(&mut text).ok()?;
    text.strip_prefix("ready ")?.trim_end().parse().ok()
}

/// What the daemon has logged since `before`, without the prefix that [`Output::error`] adds again.
fn log_since(log: &mut File, before: u64) -> io::Result<String> {
    let mut text = String::new();
    log.seek(SeekFrom::Start(before))?;
    log.read_to_string(&mut text)?;
    Ok(text.trim().trim_start_matches("adit: ").to_owned())
}
