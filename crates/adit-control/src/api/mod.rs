//! The HTTP API of a running overlay: its server on the socket, its client, and the metrics by TCP.

pub(crate) mod apply;
pub(crate) mod bounded_listener;
pub mod client;
pub mod drops;
pub(crate) mod endpoint;
pub(crate) mod error;
mod event_stream;
mod handlers;
pub mod metrics;
pub(crate) mod metrics_server;
mod openapi;
pub(crate) mod readings;
pub(crate) mod router;
mod text_format;

pub use apply::{Applied, ApplyRequest};
pub use endpoint::Endpoint;
pub use error::ErrorBody;
pub use openapi::openapi;
