//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

pub mod client;
pub mod daemon;
pub mod desired;
mod error;
mod memory;
pub mod notify;
pub mod overlay;
pub mod places;
pub mod status;

pub use error::ControlError;
pub use overlay::{OnExit, Overlay};
