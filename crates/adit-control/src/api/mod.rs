//! The HTTP interface of a running overlay: what can be asked on its socket, and what a scraper may ask by TCP.

pub mod client;
pub mod drops;
pub(crate) mod handlers;
pub mod metrics;
pub(crate) mod metrics_server;
mod openapi;
mod stream;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::api::drops::Drops;
use crate::daemon::service::Service;
use crate::state::events::{self, Event};
use crate::state::status::{SCHEMA, Status};

pub use openapi::openapi;

/// What can be asked on the socket. The routes, the description and its tests are all made from this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The overlay as it is now.
    Status,
    /// Every reason for which something is dropped.
    Drops,
    /// What happens, as it happens.
    Events,
    /// Numbers for Prometheus.
    Metrics,
    /// What runs, as a file.
    Config,
    /// Has what runs become what a file says.
    Apply,
    /// The same with the file that it came from.
    Reload,
    /// Keeps what was applied to be confirmed.
    Confirm,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Status,
        Self::Drops,
        Self::Events,
        Self::Metrics,
        Self::Config,
        Self::Apply,
        Self::Reload,
        Self::Confirm,
    ];

    /// Where it is.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Status => "/v1/status",
            Self::Drops => "/v1/drops",
            Self::Events => "/v1/events",
            Self::Metrics => "/v1/metrics",
            Self::Config => "/v1/config",
            Self::Apply => "/v1/apply",
            Self::Reload => "/v1/reload",
            Self::Confirm => "/v1/confirm",
        }
    }

    /// Whether it changes something, and so is asked by POST.
    #[must_use]
    pub const fn is_change(self) -> bool {
        match self {
            Self::Status | Self::Drops | Self::Events | Self::Metrics | Self::Config => false,
            Self::Apply | Self::Reload | Self::Confirm => true,
        }
    }

    fn handler(self, api: &Api, service: &Service) -> MethodRouter {
        let (api, service) = (api.clone(), service.clone());
        match self {
            Self::Status => get(status).with_state(api),
            Self::Drops => get(drops).with_state(api),
            Self::Events => get(follow).with_state(api),
            Self::Metrics => get(numbers).with_state(api),
            Self::Config => get(handlers::config).with_state(service),
            Self::Apply => post(handlers::apply).with_state(service),
            Self::Reload => post(handlers::reload).with_state(service),
            Self::Confirm => post(handlers::confirm).with_state(service),
        }
    }
}

/// All that the socket offers.
pub(crate) fn on_socket(api: &Api, service: &Service) -> Router {
    Endpoint::ALL
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path(), endpoint.handler(api, service)))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(handlers::LARGEST))
}

/// Where a scraper finds the numbers, on the address of its own.
pub const SCRAPE: &str = "/metrics";

/// Why something that was asked is not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The version of the shape.
    pub schema: u32,
    /// Always false.
    pub ok: bool,
    /// What was expected, what was found, what to do.
    pub error: String,
}

/// Looks at the overlay; `None` once it is being taken down.
pub type Look = Arc<dyn Fn() -> Option<Status> + Send + Sync>;

/// What the answers are made from.
#[derive(Clone)]
pub struct Api {
    look: Look,
    events: broadcast::Sender<Event>,
}

impl Api {
    /// Answers by what `look` sees.
    #[must_use]
    pub fn new(look: Look) -> Self {
        Self { look, events: broadcast::Sender::new(stream::BACKLOG) }
    }

    /// Looks again, and says in the log and to whoever follows what has happened since `before`, which is then
    /// what is seen now.
    pub fn tell(&self, before: &mut Option<Status>) {
        let Some(after) = (self.look)() else { return };
        let kinds = before.as_ref().map_or(Vec::new(), |before| events::between(before, &after));
        for what in kinds {
            let event = Event::now(&after.site.name, what);
            event.log();
            // That nobody follows is no mistake.
            let _ = self.events.send(event);
        }
        *before = Some(after);
    }

    /// The numbers alone: whoever reaches the address may read them, and nothing else.
    pub fn for_scrapers(self) -> Router {
        Router::new().route(SCRAPE, get(numbers)).with_state(self)
    }

    fn look(&self) -> Result<Status, ApiError> {
        (self.look)().ok_or_else(ApiError::gone)
    }
}

async fn status(State(api): State<Api>) -> Result<Json<Status>, ApiError> {
    api.look().map(Json)
}

async fn drops(State(api): State<Api>) -> Result<Json<Drops>, ApiError> {
    api.look().map(|status| Json(Drops::of(&status)))
}

async fn follow(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    // Before the answer begins, so that whoever has its head misses nothing.
    let events = api.events.subscribe();
    Ok(stream::follow(api.look()?.site.name, events))
}

async fn numbers(State(api): State<Api>) -> Result<impl IntoResponse, ApiError> {
    let text = metrics::text(api.look()?)
        .map_err(|error| ApiError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

async fn unknown(uri: Uri) -> ApiError {
    let known = Endpoint::ALL.map(Endpoint::path).join(", ");
    ApiError(StatusCode::NOT_FOUND, format!("there is no {}; there are {known}", uri.path()))
}

/// A [`ErrorBody`] on its way.
#[derive(Debug)]
pub(crate) struct ApiError(pub(crate) StatusCode, pub(crate) String);

impl ApiError {
    pub(crate) fn gone() -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, "the overlay is being taken down".to_owned())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorBody { schema: SCHEMA, ok: false, error: self.1 })).into_response()
    }
}
