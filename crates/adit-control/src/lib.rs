//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

mod amend;
pub mod api;
pub mod change;
pub mod client;
pub mod confirmation;
pub mod daemon;
pub mod desired;
pub mod devices;
pub mod drops;
mod error;
pub mod events;
mod hearing;
mod hearsay;
mod keeper;
mod kernel;
mod memory;
pub mod metrics;
pub mod notify;
pub mod overlay;
pub mod places;
mod requests;
mod rights;
#[cfg(test)]
mod sample;
mod scrapers;
pub mod service;
mod sides;
mod starter;
pub mod status;
mod underlay;

pub use error::ControlError;
pub use overlay::{OnExit, Overlay};
