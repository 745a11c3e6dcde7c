//! The test bed: networks, traffic and observations for tests and measurements. The program does
//! not link it; what ships is in [`adit_lab`].
//!
//! [`hub`] is a network of three sites, and [`reality`] adds situations to a network.
//! [`wire_tap`] injects and observes frames at one end of a cable. [`loss_stream`] and
//! [`transfer`] are traffic that runs while something happens,
//! [`black_hole`] is a router that drops in silence, [`test_planes`] names the data planes that a
//! test runs on, and [`needs`] says whether this machine has what a test needs.

pub mod black_hole;
pub mod bpf_file_system;
pub mod hub;
pub mod loss_stream;
pub mod needs;
pub mod reality;
pub mod test_planes;
pub mod transfer;
pub mod wire_tap;
