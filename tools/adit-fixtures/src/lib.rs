//! A table of test cases for every data plane: what the gateway knows, a packet, what becomes of
//! the packet, and what is counted. One table makes sure that all data planes behave alike.
//!
//! The crate holds data, for tests only. Each runner lives beside the code that it tests:
//!
//! | runner | what it runs |
//! |---|---|
//! | `adit-dataplane`, `ebpf::tests::table` | the tunnel with userspace segmentation; the eBPF programs, by test runs |
//! | `adit-testbed`, `end_to_end fixtures` | both data planes, on a gateway between a host and the underlay |
//!
//! [`packet`] writes expected bytes field by field; the code under test never produces them.
pub mod case;
pub mod packet;
pub mod site;
mod table;

pub use case::{Case, Counts, Direction, Outcome, Program};
pub use packet::Packet;
pub use site::{Path, Setup};
pub use table::table;
