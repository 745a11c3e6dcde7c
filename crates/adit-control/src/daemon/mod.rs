//! The daemon: brings one overlay up, keeps it up until a signal ends it, and answers on its
//! socket.
//!
//! Three threads share the overlay, whose lock only one of them holds at a time:
//!
//! - The **runtime** (one thread) serves the API and the metrics, takes a snapshot and looks for
//!   events once per tick, and feeds the service manager's watchdog. It waits for the lock for a
//!   quarter of a second at most.
//! - The **change queue** applies, reloads, confirms, and rolls back.
//! - The **reconciler** repairs what others change in the kernel.

mod capabilities;
pub(crate) mod change_queue;
mod changes;
mod chosen;
mod kept_files;
pub mod notify;
mod options;
mod running;
mod shared_overlay;
mod signals;
mod start;
#[cfg(test)]
mod tests;
pub(crate) mod thread_check;
mod waiting;

use std::ops::ControlFlow;

use adit_config::Config;
use adit_linux::netns;
use adit_linux::process::{LockError, LockFile, is_child_of};

use crate::daemon::running::RunningDaemon;
use crate::daemon::signals::Signals;
use crate::daemon::start::Start;
use crate::error::ControlError;
use crate::overlay::OnExit;
use crate::state::paths::RuntimePaths;
use crate::state::status::Status;

pub use options::DaemonOptions;

/// Brings the overlay up, calls `ready`, and serves until SIGTERM or SIGINT.
///
/// # Errors
/// Fails if another daemon serves the overlay, if it cannot be brought up, or if its objects cannot
/// be removed at the end.
pub fn run(
    config: &Config,
    options: &DaemonOptions,
    ready: impl FnOnce(&Status),
) -> Result<(), ControlError> {
    let paths = RuntimePaths::of(config.site.name.as_str());
    paths.create_run()?;
    let lock = LockFile::acquire(&paths.lock()).map_err(|error| already_running(&paths, error))?;
    if let Some(pid) = options.supervisor.filter(|&pid| !is_child_of(pid)) {
        return Err(ControlError::Unsupervised { name: paths.name().to_owned(), pid });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::file("start a runtime for", paths.socket(), error))?;
    let result = runtime.block_on(serve(config, options, &paths, ready));
    let is_kept = match &result {
        Ok(on_exit) => *on_exit == OnExit::Keep,
        // A start that failed leaves what an earlier daemon kept, and `adit down` needs the run
        // record.
        Err(_) => start::has_leftovers(config).unwrap_or(true),
    };
    let removed = if is_kept { paths.remove_socket() } else { paths.remove() };
    drop(lock);
    result.and(removed)
}

async fn serve(
    config: &Config,
    options: &DaemonOptions,
    paths: &RuntimePaths,
    ready: impl FnOnce(&Status),
) -> Result<OnExit, ControlError> {
    // First of all: a signal that comes during the start must not leave half of it behind.
    let Signals { mut end, hangup } = Signals::subscribe(paths)?;
    let start = Start::prepare(config, options, paths).await?;
    let overlay = match start.bring_up(&mut end).await? {
        ControlFlow::Continue(overlay) => overlay,
        ControlFlow::Break(default) => return Ok(options.on_exit.unwrap_or(default)),
    };
    let mut daemon = RunningDaemon::start(overlay, start, hangup)?;
    ready(daemon.status());
    let default = daemon.run_until(end).await;
    let on_exit = options.on_exit.unwrap_or(default);
    daemon.end(on_exit).await?;
    Ok(on_exit)
}

fn already_running(paths: &RuntimePaths, error: LockError) -> ControlError {
    match error {
        LockError::Held { pid } => {
            let elsewhere = match netns::of_other(pid) {
                None => String::new(),
                Some(None) => ", in another network namespace".to_owned(),
                Some(Some(name)) => format!(", in the network namespace `{name}`"),
            };
            ControlError::AlreadyRunning { name: paths.name().to_owned(), pid, elsewhere }
        }
        LockError::Failed(error) => error.into(),
    }
}
