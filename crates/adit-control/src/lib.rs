//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

pub mod api;
mod carrier;
pub mod daemon;
mod error;
mod host;
mod namespaces;
pub mod overlay;
pub mod reconcile;
pub mod state;
mod underlay;

pub use error::ControlError;
pub use overlay::{OnExit, Overlay};
