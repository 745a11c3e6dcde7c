//! What changes a running overlay, over its socket.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;

use crate::api::ApiError;
use crate::daemon::service::{Applied, ApplyRequest, Service};
use crate::error::ControlError;

/// A file of 100,000 networks has some 4 MiB.
pub(crate) const LARGEST: usize = 64 << 20;

fn refused(error: ControlError) -> ApiError {
    ApiError(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

pub(crate) async fn config(State(service): State<Service>) -> Result<String, ApiError> {
    service.config().ok_or_else(ApiError::gone)
}

pub(crate) async fn apply(
    State(service): State<Service>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Json<Applied>, ApiError> {
    let Json(request) = request.map_err(|error| ApiError(error.status(), error.body_text()))?;
    service.apply(&request).map(Json).map_err(refused)
}

pub(crate) async fn reload(State(service): State<Service>) -> Result<Json<Applied>, ApiError> {
    service.reload().map(Json).map_err(refused)
}

pub(crate) async fn confirm(State(service): State<Service>) -> Result<Json<bool>, ApiError> {
    service.confirm().map(Json).map_err(refused)
}
