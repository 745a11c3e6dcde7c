//! A daemon whose overlay cannot come up yet: it waits for its underlay address, network namespace
//! or VRF, says so to the service manager, and answers on its socket.
//!
//! A socket that cannot be bound keeps nobody from waiting.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_config::Config;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::api::bounded_listener::{BoundedListener, ClientLimits, private_listener};
use crate::api::endpoint::Endpoint;
use crate::api::error::ApiError;
use crate::api::router::MAX_BODY_LEN;
use crate::daemon::notify;
use crate::error::ControlError;
use crate::state::status::Status;

/// How long the service manager is asked to wait from now on. It is asked again long before.
const EXTENSION: Duration = Duration::from_secs(30);
/// Between two requests to the service manager.
const NOTIFY_INTERVAL: Duration = Duration::from_secs(5);

/// A daemon that waits. Dropping it ends the answers.
pub(crate) struct Waiting {
    config: Config,
    file: String,
    status: Arc<Mutex<Option<Status>>>,
    server: Option<JoinHandle<()>>,
    next_notice: Instant,
}

impl Waiting {
    /// Begins to answer on the socket, which nobody else uses: the caller holds the lock.
    pub(crate) fn begin(config: &Config, file: &Path, socket: &Path) -> Self {
        let status = Arc::new(Mutex::new(None));
        let server = match private_listener(socket) {
            Ok(listener) => {
                let listener = BoundedListener::new(listener, ClientLimits::WAITING);
                Some(tokio::spawn(serve(listener, router(Arc::clone(&status)))))
            }
            Err(error) => {
                tracing::warn!(%error, "nothing answers on the socket while the daemon waits");
                None
            }
        };
        let file = file.display().to_string();
        Self { config: config.clone(), file, status, server, next_notice: Instant::now() }
    }

    /// Says what the overlay waits for. `why` is the whole sentence, `what` a phrase of it.
    pub(crate) fn tell(&mut self, what: &str, why: &ControlError) {
        let status = Status::waiting(&self.config, &self.file, why.to_string());
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
        if Instant::now() >= self.next_notice {
            notify::waiting(what, EXTENSION);
            self.next_notice = Instant::now() + NOTIFY_INTERVAL;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Clients that are still connected learn that the wait is over.
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn serve(listener: BoundedListener<UnixListener>, app: Router) {
    if let Err(error) = axum::serve(listener, app).await {
        tracing::warn!(%error, "nothing answers on the socket while the daemon waits");
    }
}

/// The status, and for everything else the reason why there is no answer.
fn router(status: Arc<Mutex<Option<Status>>>) -> Router {
    let current = move || status.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of_others = current.clone();
    let answer = move || async move { current().map(Json).ok_or_else(ApiError::begins_or_ends) };
    // The whole request is read first: a client that still writes would miss the answer.
    let refuse = move |_: Bytes| async move {
        match of_others().and_then(|status| status.waiting_for) {
            Some(why) => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("the overlay is not up yet: {why}"))
            }
            None => ApiError::begins_or_ends(),
        }
    };
    Router::new()
        .route(Endpoint::Status.path(), get(answer))
        .fallback(refuse)
        .layer(DefaultBodyLimit::max(MAX_BODY_LEN))
}
