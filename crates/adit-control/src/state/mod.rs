//! What an overlay is and was: its status, the events between two of them, and the files that
//! outlive the daemon.

pub mod confirmation;
pub mod events;
pub(crate) mod path_cache;
pub mod paths;
#[cfg(test)]
pub(crate) mod sample;
pub mod status;
