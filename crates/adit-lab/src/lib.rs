//! Test networks: hosts, gateways and routers in network namespaces of their own, built over
//! netlink, invisible to the rest of the machine, and gone with the process however it ends.
//!
//! [`two_sites`] is the network that `adit lab` builds; [`host`] is what any other is built from.

pub mod capture;
pub mod checks;
pub mod diagram;
pub mod host;
pub mod http;
pub mod lab;
pub mod pcapng;
pub mod ping;
pub mod throughput;
pub mod two_sites;

mod error;

pub use error::LabError;
