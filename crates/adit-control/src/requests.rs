//! What changes a running overlay, over its socket.

use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::error::ControlError;
use crate::service::{Applied, ApplyRequest, Service};

/// A file of 100,000 networks has some 4 MiB.
const LARGEST: usize = 64 << 20;

/// The requests, to be merged into the daemon's.
pub(crate) fn routes(service: Service) -> Router {
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/apply", post(apply))
        .route("/v1/reload", post(reload))
        .route("/v1/confirm", post(confirm))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(service)
}

/// What is wrong with the request, or with this machine, in words.
type Refusal = (StatusCode, String);

fn refusal(error: ControlError) -> Refusal {
    (StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

async fn config(State(service): State<Service>) -> Result<String, StatusCode> {
    service.config().ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

async fn apply(
    State(service): State<Service>,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<Applied>, Refusal> {
    service.apply(&request).map(Json).map_err(refusal)
}

async fn reload(State(service): State<Service>) -> Result<Json<Applied>, Refusal> {
    service.reload().map(Json).map_err(refusal)
}

async fn confirm(State(service): State<Service>) -> Result<Json<bool>, Refusal> {
    service.confirm().map(Json).map_err(refusal)
}
