//! A table of test cases for every data plane: the gateway's configuration, a packet,
//! its outcome, and the counters that grow. One table makes sure that all data planes behave alike.
//!
//! The crate holds data, for tests only. Each runner lives beside the code that it tests:
//!
//! | runner | what it runs |
//! |---|---|
//! | `ebpf::tests::table` of `adit-dataplane` | the tunnel, and the eBPF programs by test runs |
//! | `end_to_end fixtures` of `adit-testbed` | both data planes, on a gateway in a network |
//!
//! The first runner segments GSO packets in userspace. The second puts the gateway between a host
//! and the underlay.
//!
//! [`packet`] and [`packet_v6`] write expected bytes field by field; the code under test never
//! produces them.
pub mod case;
pub mod packet;
pub mod packet_v6;
pub mod site;
mod table;

pub use case::{Case, Counts, Direction, Outcome, Program};
pub use packet::Packet;
pub use packet_v6::PacketV6;
pub use site::{Path, Setup};
pub use table::table;
