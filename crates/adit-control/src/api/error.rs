//! The error answer of the API.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ControlError;
use crate::state::status::SCHEMA;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The version of the shape.
    pub schema: u32,
    /// Always false.
    pub ok: bool,
    /// What was expected, what was found, what to do.
    pub error: String,
}

/// An [`ErrorBody`] with its HTTP status.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: String) -> Self {
        Self { status, message }
    }

    /// The daemon has stopped to wait: its overlay comes up, or it ends.
    pub(crate) fn begins_or_ends() -> Self {
        let what = "the daemon waits no longer for what was missing; ask again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, what.to_owned())
    }

    /// The overlay is being taken down.
    pub(crate) fn gone() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the overlay is being taken down".to_owned())
    }
}

impl From<ControlError> for ApiError {
    /// A change that failed, and so changed nothing.
    fn from(error: ControlError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { schema: SCHEMA, ok: false, error: self.message })).into_response()
    }
}
