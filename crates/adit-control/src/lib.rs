//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

pub mod api;
pub mod daemon;
mod error;
mod namespaces;
pub mod overlay;
mod plane_select;
pub mod reconcile;
pub mod state;
mod underlay;

pub use error::ControlError;
pub use overlay::{OnExit, Overlay};
