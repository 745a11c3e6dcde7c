//! `adit run`: the daemon in the foreground.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use adit_control::OnExit;
use adit_control::daemon::notify;
use adit_control::daemon::{self, DaemonOptions};
use adit_linux::process::inherited_descriptor;

use crate::Failure;
use crate::cli::{self, RunArgs};
use crate::commands::log_file;
use crate::output::Output;

/// The file has mistakes (`EX_CONFIG` of sysexits.h). The unit does not start the daemon again:
/// the same file would fail again.
pub(crate) const BAD_CONFIGURATION: u8 = 78;

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
    log_file::log_to_stderr(args.log.clone());
    let options = DaemonOptions {
        on_exit: args.on_exit.map(|what| match what {
            cli::OnExit::Keep => OnExit::Keep,
            cli::OnExit::Remove => OnExit::Remove,
        }),
        file: std::path::absolute(file)?,
        wait: args.wait,
        supervisor: args.supervisor,
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

fn signal_ready(fd: i32) {
    if let Ok(fd) = inherited_descriptor(fd) {
        let _ = File::from(fd).write_all(b"ready\n");
    }
}
