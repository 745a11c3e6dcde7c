//! The daemon: one overlay, kept up until a signal ends it, and a socket to ask it on.

mod capabilities;
pub mod notify;
pub mod service;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_config::Config;
use adit_linux::process::LockFile;
use adit_linux::sockets::private_socket;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::metrics_server::MetricsServer;
use crate::api::{self, Api};
use crate::daemon::capabilities::KeptCapabilities;
use crate::daemon::service::Service;
use crate::error::ControlError;
use crate::overlay::{self, OnExit, Overlay};
use crate::reconcile::reconciler::Reconciler;
use crate::state::confirmation::Confirmation;
use crate::state::paths::{RunRecord, RuntimePaths};
use crate::state::status::Status;

/// How a daemon is run.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// What stays at the end, whichever signal ends it; `None`: SIGTERM keeps, SIGINT removes.
    pub on_exit: Option<OnExit>,
    /// The name of the network namespace it runs in, for `adit down`.
    pub netns: Option<String>,
    /// The file that the configuration came from, to be read again at SIGHUP.
    pub file: PathBuf,
    /// Wait for the underlay address, rather than fail without it: at boot it may come later.
    pub wait: bool,
}

/// How often the daemon looks whether the data plane still forwards.
const LOOK: Duration = Duration::from_millis(500);

/// Brings the overlay up, calls `ready`, and serves until SIGTERM or SIGINT.
///
/// # Errors
/// It could not be brought up, or failed while it was up.
pub fn run(
    config: &Config,
    options: &DaemonOptions,
    ready: impl FnOnce(&Status),
) -> Result<(), ControlError> {
    let paths = RuntimePaths::of(config.site.name.as_str());
    paths.create()?;
    let lock = LockFile::acquire(&paths.lock()).map_err(|held| already_running(&paths, held))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::file("start a runtime for", paths.socket(), error))?;
    let result = runtime.block_on(serve(config, options, &paths, ready));
    let kept = match &result {
        Ok(on_exit) => *on_exit == OnExit::Keep,
        // A start that failed leaves what an earlier daemon kept, and `adit down` needs the notes.
        Err(_) => overlay::has_leftovers(paths.name(), inside_of(config).as_deref()).unwrap_or(true),
    };
    let removed = if kept { paths.remove_socket() } else { paths.remove() };
    drop(lock);
    result.and(removed)
}

async fn serve(
    config: &Config,
    options: &DaemonOptions,
    paths: &RuntimePaths,
    ready: impl FnOnce(&Status),
) -> Result<OnExit, ControlError> {
    let socket = paths.socket();
    let file = |error| ControlError::file("listen on", paths.socket(), error);
    // Signals first: one that comes during the start must not leave half of it behind.
    let mut terminate = signal(SignalKind::terminate()).map_err(file)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(file)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(file)?;

    paths.write_run_record(&RunRecord {
        netns: options.netns.clone(),
        device: config.site.device.to_string(),
        inside: inside_of(config),
    })?;
    // What nobody has confirmed in time is not run again, whoever starts us.
    let waiting = Confirmation::read(&paths.confirmation());
    let instead = waiting.as_ref().and_then(|waiting| waiting.instead_of(config));
    // What ran before may have to run again.
    let previous = waiting.and_then(|waiting| waiting.previous());
    if instead.is_some() {
        tracing::warn!("nobody has confirmed this file when it was applied: what ran before it runs");
    }
    let config = instead.as_ref().unwrap_or(config);
    // Threads inherit what is left, so before there are any.
    let rights = KeptCapabilities::of(previous.iter().chain([config]));
    rights.give_up_others(config)?;
    // Before anything is made: what cannot be had then ends a start that has changed nothing.
    let mut scrapers = MetricsServer::none();
    match scrapers.listen(config.site.metrics).await {
        // It may come together with the underlay's.
        Err(_) if options.wait => {}
        listening => listening?,
    }
    let is_new = !overlay::has_leftovers(paths.name(), inside_of(config).as_deref()).unwrap_or(true);
    let mut is_waiting = false;
    let overlay = loop {
        match Overlay::bring_up_to_stay(config, &paths.path_cache()) {
            Err(error) if options.wait && error.retry_reason().is_some() => {
                if !is_waiting {
                    tracing::warn!(%error, "waiting for {}", error.retry_reason().unwrap_or_default());
                    is_waiting = true;
                }
            }
            result => break result?,
        }
        tokio::select! {
            _ = terminate.recv() => return Ok(options.on_exit.unwrap_or(OnExit::Keep)),
            _ = interrupt.recv() => return Ok(options.on_exit.unwrap_or(OnExit::Remove)),
            () = tokio::time::sleep(LOOK) => {}
        }
    };
    let service = Service::new(overlay, paths, &options.file, rights);
    let overlay = Arc::clone(&service.overlay);

    let (listener, reconciler) = match attend(&socket, &overlay) {
        Ok(attending) => attending,
        Err(error) => {
            // A start that fails leaves what it has found.
            let found = if is_new { OnExit::Remove } else { OnExit::Keep };
            if let Err(error) = close(&overlay, found) {
                tracing::error!(%error, "cannot remove what a failed start had made");
            }
            return Err(error);
        }
    };
    let api = Api::new({
        let overlay = Arc::clone(&overlay);
        Arc::new(move || look(&overlay))
    });
    let app = api::on_socket(&api, &service);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    scrapers.serve(&api);
    let mut seen = look(&overlay);
    if let Some(status) = &seen {
        ready(status);
    }
    let mut is_forgetful = false;
    let default = loop {
        tokio::select! {
            _ = terminate.recv() => break OnExit::Keep,
            _ = interrupt.recv() => break OnExit::Remove,
            _ = hangup.recv() => {
                notify::reloading();
                match service.reload() {
                    Ok(applied) if applied.changes.is_empty() => {
                        tracing::info!("reloaded: nothing has changed");
                    }
                    Ok(_) => tracing::info!("reloaded"),
                    Err(error) => tracing::error!(%error, "not reloaded: all is as it was"),
                }
                if let Some(status) = look(&overlay) {
                    notify::ready(&status);
                }
            }
            () = tokio::time::sleep(LOOK) => {
                remember(&overlay, &mut is_forgetful);
                service.take_back();
                api.tell(&mut seen);
                scrapers.follow(metrics_of(&overlay), &api).await;
                notify::watchdog();
            }
        }
    };
    notify::stopping();
    server.abort();
    drop(reconciler);
    remember(&overlay, &mut is_forgetful);
    let on_exit = options.on_exit.unwrap_or(default);
    close(&overlay, on_exit)?;
    Ok(on_exit)
}

fn inside_of(config: &Config) -> Option<String> {
    config.site.netns.as_ref().map(ToString::to_string)
}

/// Who answers for an overlay that is up, and who keeps it.
fn attend(socket: &Path, overlay: &Shared) -> Result<(UnixListener, Reconciler), ControlError> {
    let file = |error| ControlError::file("listen on", socket, error);
    // We hold the lock, so a socket that is there is a dead daemon's.
    let _ = std::fs::remove_file(socket);
    // Only root asks: a status names addresses and counts of private networks.
    let listener = private_socket::listen(socket).map_err(file)?;
    listener.set_nonblocking(true).map_err(file)?;
    let listener = UnixListener::from_std(listener).map_err(file)?;
    Ok((listener, Reconciler::start(Arc::clone(overlay))?))
}

type Shared = Arc<Mutex<Option<Overlay>>>;

fn look(overlay: &Shared) -> Option<Status> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Status::of)
}

/// Where the file wants the numbers served, which a reload may change.
fn metrics_of(overlay: &Shared) -> Option<SocketAddr> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.config().site.metrics
}

/// A full disk is said once, and no reason to stop forwarding.
fn remember(overlay: &Shared, is_forgetful: &mut bool) {
    let mut overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = overlay.as_mut().map_or(Ok(()), Overlay::remember);
    if let Err(error) = &kept
        && !*is_forgetful
    {
        tracing::warn!(%error, "what is learned of the paths will be forgotten at a restart");
    }
    *is_forgetful = kept.is_err();
}

fn close(overlay: &Shared, on_exit: OnExit) -> Result<(), ControlError> {
    match overlay.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(overlay) => overlay.close(on_exit),
        None => Ok(()),
    }
}

fn already_running(paths: &RuntimePaths, held: adit_linux::process::LockError) -> ControlError {
    use adit_linux::process::LockError;
    match held {
        LockError::Held { pid } => ControlError::AlreadyRunning { name: paths.name().to_owned(), pid },
        LockError::Failed(error) => error.into(),
    }
}
