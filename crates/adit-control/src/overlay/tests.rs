//! What control decides, as tables: the model of the kernel against the real one, the plan, what a
//! start finds, what a repair does about each change of others, guard routes, sources of routes,
//! and a failure at every step. Each table runs on the fake host without root, and on the real
//! kernel in namespaces of its own.

mod beside;
mod drift;
mod guards;
mod ipv6;
mod machine;
mod model;
mod peers;
mod plan;
mod reconciler;
mod rollback;
mod sources;
mod takeover;
mod underlays;
pub(crate) mod world;
