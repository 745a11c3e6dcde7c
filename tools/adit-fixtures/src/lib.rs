//! One table for every data plane: a packet in, what the gateway knows, what becomes of the packet, what is
//! counted. It is data, for tests only; the runners are with what they run:
//!
//! | runner | runs |
//! |---|---|
//! | `adit-dataplane`, `ebpf::tests::table` | the tunnel with the userspace plane's cutting; the kernel's programs, by test runs |
//! | `adit-testbed`, `end_to_end fixtures` | both data planes, on a gateway between a host and the underlay |
//!
//! Expected bytes are written out by [`packet`], field by field, and never asked of the code under test.
pub mod case;
pub mod packet;
pub mod site;
mod table;

pub use case::{Case, Counts, Outcome, Program, Way};
pub use packet::Packet;
pub use site::{Path, Setup};
pub use table::table;
