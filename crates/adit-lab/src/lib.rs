//! Test networks: hosts, gateways and routers in network namespaces of their own, built over
//! netlink, invisible to the rest of the machine, and gone with the process however it ends.
//!
//! [`article`] is the network Adit comes from, [`sites`] a hub with two spokes; [`host`] is what any
//! other is built from.

pub mod article;
pub mod black_hole;
pub mod cable;
pub mod checks;
pub mod host;
pub mod http;
pub mod lab;
pub mod picture;
pub mod ping;
pub mod planes;
pub mod probe;
pub mod sites;
pub mod tap;
pub mod throughput;
pub mod transfer;

mod error;

pub use error::LabError;
