//! `adit run`: the daemon in the foreground.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::Path;
use std::process::ExitCode;

use adit_control::OnExit;
use adit_control::daemon::notify;
use adit_control::daemon::{self, DaemonOptions};

use crate::Failure;
use crate::cli::{self, RunArgs};
use crate::output::Output;

/// The file has mistakes (`EX_CONFIG` of sysexits.h). The unit does not start the daemon again:
/// the same file would fail again.
const BAD_CONFIGURATION: u8 = 78;

pub(crate) fn run(
    file: &Path,
    args: &RunArgs,
    netns: Option<&str>,
    output: &Output,
) -> Result<ExitCode, Failure> {
    let config = match super::load(file, output)? {
        Ok(config) => config,
        Err(_) => return Ok(ExitCode::from(BAD_CONFIGURATION)),
    };
    super::rights::require_for_network("run")?;
    log_to_stderr();
    let options = DaemonOptions {
        on_exit: args.on_exit.map(|what| match what {
            cli::OnExit::Keep => OnExit::Keep,
            cli::OnExit::Remove => OnExit::Remove,
        }),
        file: std::path::absolute(file)?,
        wait: args.wait,
        netns: netns.map(str::to_owned).or_else(adit_linux::netns::name_of_current),
    };
    daemon::run(&config, &options, |status| {
        let site = &status.site;
        output.note(format_args!(
            "ready: site {} on {} ({}: {}), mtu {}",
            site.name, site.device, site.dataplane, site.dataplane_reason, site.mtu
        ));
        super::warn(&status.warnings, output);
        notify::ready(status);
        if let Some(fd) = args.ready_fd {
            signal_ready(fd);
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

#[expect(unsafe_code, reason = "a descriptor inherited from `adit up` has no owner in this process yet")]
fn signal_ready(fd: i32) {
    // SAFETY: the hidden option names a descriptor that the parent opened for this process alone.
    let mut pipe = unsafe { File::from_raw_fd(fd) };
    let _ = pipe.write_all(b"ready\n");
}

/// Logs to stderr at level INFO. `RUST_LOG` is not read: its filters name Rust modules, which are
/// not part of the interface.
fn log_to_stderr() {
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .try_init();
}
