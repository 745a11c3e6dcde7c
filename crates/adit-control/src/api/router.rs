//! The routes of the API: the socket's, and those for metrics by TCP.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};

use crate::api::endpoint::Endpoint;
use crate::api::handlers;
use crate::api::readings::Readings;
use crate::daemon::change_queue::ChangeQueue;

/// Where metrics are served by TCP.
const METRICS_PATH: &str = "/metrics";

/// The largest request body in bytes. A file of 100,000 networks has some 4 MiB.
pub(crate) const MAX_BODY_LEN: usize = 64 << 20;

/// The routes of the socket: all endpoints.
pub(crate) fn for_socket(readings: &Readings, changes: &ChangeQueue) -> Router {
    Endpoint::ALL
        .into_iter()
        .fold(Router::new(), |router, endpoint| {
            router.route(endpoint.path(), handler(endpoint, readings.clone(), changes.clone()))
        })
        .fallback(handlers::unknown_path)
        .layer(DefaultBodyLimit::max(MAX_BODY_LEN))
}

/// The routes by TCP: metrics, and nothing else, because anybody who reaches the address may read
/// them.
pub(crate) fn for_metrics(readings: Readings) -> Router {
    Router::new().route(METRICS_PATH, get(handlers::metrics)).with_state(readings)
}

fn handler(endpoint: Endpoint, readings: Readings, changes: ChangeQueue) -> MethodRouter {
    match endpoint {
        Endpoint::Status => get(handlers::status).with_state(readings),
        Endpoint::Drops => get(handlers::drops).with_state(readings),
        Endpoint::Events => get(handlers::events).with_state(readings),
        Endpoint::Metrics => get(handlers::metrics).with_state(readings),
        Endpoint::Config => get(handlers::config).with_state(changes),
        Endpoint::Apply => post(handlers::apply).with_state(changes),
        Endpoint::Reload => post(handlers::reload).with_state(changes),
        Endpoint::Confirm => post(handlers::confirm).with_state(changes),
    }
}
