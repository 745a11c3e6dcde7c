//! An overlay's life on one machine: the kernel objects it is made of, the data plane that
//! serves them, the daemon that keeps both, and the socket it can be asked on.

#[cfg(test)]
#[macro_use(test)]
extern crate adit_harness;

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

#[cfg(test)]
fn main() -> std::process::ExitCode {
    adit_harness::main()
}

/// Runs an asynchronous test.
#[cfg(test)]
fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime can be started").block_on(test)
}
