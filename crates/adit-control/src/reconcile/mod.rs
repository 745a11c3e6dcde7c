//! Reconciles desired state with actual state: what a configuration asks of the kernel, what the
//! kernel has, the difference between both, and the thread that keeps it empty.

pub mod change;
pub(crate) mod config_diff;
pub mod desired;
pub mod devices;
pub(crate) mod foreign_devices;
pub(crate) mod foreign_routes;
pub(crate) mod forwarding;
pub(crate) mod guard_routes;
pub(crate) mod kernel_diff;
mod linux_drivers;
pub(crate) mod machine;
pub(crate) mod netlink_watch;
pub(crate) mod objects;
pub(crate) mod other_overlays;
pub(crate) mod peer_update;
pub(crate) mod reconciler;
pub(crate) mod route_events;
