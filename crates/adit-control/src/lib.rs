//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

pub mod api;
pub mod client;
pub mod daemon;
pub mod desired;
pub mod drops;
mod error;
pub mod events;
mod memory;
pub mod metrics;
pub mod overlay;
pub mod places;
#[cfg(test)]
mod sample;
pub mod status;

pub use error::ControlError;
pub use overlay::{OnExit, Overlay};
