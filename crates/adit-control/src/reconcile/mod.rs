//! Reconciles desired state with actual state: what a configuration asks of the kernel, what the
//! kernel has, the difference between both, and the thread that keeps it empty.

pub mod change;
pub mod desired;
pub mod devices;
pub(crate) mod netlink_watch;
pub(crate) mod objects;
pub(crate) mod peer_update;
pub(crate) mod reconciler;
pub(crate) mod route_events;
