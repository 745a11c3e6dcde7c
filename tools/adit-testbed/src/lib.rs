//! The test bed: what tests and measurements need beside the networks of [`adit_lab`], and what the
//! program itself does not link.
//!
//! [`hub`] is a network of three sites, [`wire_tap`] one end of a cable in a test's hands,
//! [`loss_stream`] and [`transfer`] are traffic that runs while something happens, [`black_hole`] is a
//! router that drops in silence, [`test_planes`] names the data planes that a test runs on, and [`needs`]
//! says whether this machine has what a test needs.

pub mod black_hole;
pub mod hub;
pub mod loss_stream;
pub mod needs;
pub mod test_planes;
pub mod transfer;
pub mod wire_tap;
