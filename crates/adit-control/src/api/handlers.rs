//! What changes a running overlay, over its socket.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;

use crate::api::Refused;
use crate::daemon::service::{Applied, ApplyRequest, Service};
use crate::error::ControlError;

/// A file of 100,000 networks has some 4 MiB.
pub(crate) const LARGEST: usize = 64 << 20;

fn refused(error: ControlError) -> Refused {
    Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
}

pub(crate) async fn config(State(service): State<Service>) -> Result<String, Refused> {
    service.config().ok_or_else(Refused::gone)
}

pub(crate) async fn apply(
    State(service): State<Service>,
    request: Result<Json<ApplyRequest>, JsonRejection>,
) -> Result<Json<Applied>, Refused> {
    let Json(request) = request.map_err(|error| Refused(error.status(), error.body_text()))?;
    service.apply(&request).map(Json).map_err(refused)
}

pub(crate) async fn reload(State(service): State<Service>) -> Result<Json<Applied>, Refused> {
    service.reload().map(Json).map_err(refused)
}

pub(crate) async fn confirm(State(service): State<Service>) -> Result<Json<bool>, Refused> {
    service.confirm().map(Json).map_err(refused)
}
