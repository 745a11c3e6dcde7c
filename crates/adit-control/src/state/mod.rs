//! What an overlay is and was: its status, snapshots and events, and the files that outlive the
//! daemon.

pub mod confirmation;
pub(crate) mod daemon_status;
pub mod dead;
pub mod drop_status;
pub(crate) mod durable_file;
pub(crate) mod event_diff;
pub(crate) mod event_log;
pub mod events;
pub(crate) mod path_cache;
pub mod paths;
pub(crate) mod peer_state;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod snapshot;
pub mod status;
pub mod unreachable;
pub mod warning;
