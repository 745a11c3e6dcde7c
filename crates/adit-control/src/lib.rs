//! The control plane: brings an overlay up on this machine, keeps it as its configuration says, and
//! answers about it.
//!
//! - [`overlay`] is the life of an overlay: start, change, repair, end.
//! - [`reconcile`] compares the desired state with the kernel's and plans the difference.
//! - `carrier` makes what carries the packets: a veth pair with a data plane, or Linux's tunnel
//!   driver.
//! - `host` opens what all of them need of the machine, which a test replaces by a model.
//! - [`daemon`] serves one overlay, [`api`] answers on its socket, [`state`] is what both publish
//!   and keep in files.

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
mod retry;
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
