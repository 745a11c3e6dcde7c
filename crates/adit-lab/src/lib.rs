//! Test networks: hosts, gateways and routers in network namespaces of their own. They are built
//! over netlink, invisible to the rest of the machine, and gone when the process ends for any
//! reason.
//!
//! `adit lab` ships with the program, so this crate holds only what it needs. [`two_sites`] is the
//! network that it builds. Other networks consist of [`host`]s, [`cable`]s and [`router`]s too.

pub mod cable;
pub mod capture;
pub mod checks;
pub mod crossing;
pub mod diagram;
pub mod host;
pub mod http;
pub mod lab;
pub mod pcapng;
pub mod ping;
pub mod router;
pub mod throughput;
pub mod two_sites;

mod error;

pub use error::LabError;
