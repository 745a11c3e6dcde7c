//! The daemon: one overlay, kept up until a signal ends it, and a socket to ask it on.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_config::Config;
use adit_linux::process::LockFile;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::ControlError;
use crate::notify;
use crate::overlay::{self, OnExit, Overlay};
use crate::places::{Notes, Places};
use crate::status::Status;

/// How a daemon is run.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// What stays at the end, whichever signal ends it; `None`: SIGTERM keeps, SIGINT removes.
    pub on_exit: Option<OnExit>,
    /// The name of the network namespace it runs in, for `adit down`.
    pub netns: Option<String>,
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
    let places = Places::of(config.site.name.as_str());
    places.create()?;
    let lock = LockFile::acquire(&places.lock()).map_err(|held| already_running(&places, held))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ControlError::file("start a runtime for", places.socket(), error))?;
    let result = runtime.block_on(serve(config, options, &places, ready));
    let kept = match &result {
        Ok(on_exit) => *on_exit == OnExit::Keep,
        // A start that failed leaves what an earlier daemon kept, and `adit down` needs the notes.
        Err(_) => overlay::has_leftovers(places.name()).unwrap_or(true),
    };
    let removed = if kept { places.remove_socket() } else { places.remove() };
    drop(lock);
    result.and(removed)
}

async fn serve(
    config: &Config,
    options: &DaemonOptions,
    places: &Places,
    ready: impl FnOnce(&Status),
) -> Result<OnExit, ControlError> {
    let socket = places.socket();
    let file = |error| ControlError::file("listen on", places.socket(), error);
    // Signals first: one that comes during the start must not leave half of it behind.
    let mut terminate = signal(SignalKind::terminate()).map_err(file)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(file)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(file)?;

    places.write_notes(&Notes { netns: options.netns.clone(), device: config.site.device.to_string() })?;
    let overlay = Arc::new(Mutex::new(Some(Overlay::bring_up_to_stay(config, &places.memory())?)));

    // We hold the lock, so a socket that is there is a dead daemon's.
    let _ = std::fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).map_err(file)?;
    restrict(&socket).map_err(file)?;
    let app = Router::new().route("/v1/status", get(status)).with_state(Arc::clone(&overlay));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    if let Some(status) = look(&overlay) {
        ready(&status);
    }
    let mut is_forgetful = false;
    let default = loop {
        tokio::select! {
            _ = terminate.recv() => break OnExit::Keep,
            _ = interrupt.recv() => break OnExit::Remove,
            _ = hangup.recv() => tracing::warn!("SIGHUP: this version cannot reload; `adit down`, then `adit up` with the new file"),
            () = tokio::time::sleep(LOOK) => {
                remember(&overlay, &mut is_forgetful);
                if let Some(failure) = failure(&overlay) {
                    tracing::error!(failure);
                    close(&overlay, OnExit::Remove)?;
                    return Err(ControlError::PlaneFailed(failure));
                }
                notify::watchdog();
            }
        }
    };
    notify::stopping();
    server.abort();
    remember(&overlay, &mut is_forgetful);
    let on_exit = options.on_exit.unwrap_or(default);
    close(&overlay, on_exit)?;
    Ok(on_exit)
}

type Shared = Arc<Mutex<Option<Overlay>>>;

async fn status(State(overlay): State<Shared>) -> Result<Json<Status>, axum::http::StatusCode> {
    look(&overlay).map(Json).ok_or(axum::http::StatusCode::SERVICE_UNAVAILABLE)
}

fn look(overlay: &Shared) -> Option<Status> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Status::of)
}

fn failure(overlay: &Shared) -> Option<&'static str> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.plane().failure()
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

/// Only root asks: a status names addresses and counts of private networks.
fn restrict(socket: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
}

fn already_running(places: &Places, held: adit_linux::process::LockError) -> ControlError {
    use adit_linux::process::LockError;
    match held {
        LockError::Held { pid } => ControlError::AlreadyRunning { name: places.name().to_owned(), pid },
        LockError::Failed(error) => error.into(),
    }
}
