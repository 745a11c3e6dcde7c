//! The rights of the threads that move packets.

use adit_linux::process::privileges::{self, PacketThread};

/// Leaves the calling thread only the rights that move packets. If the kernel cannot, the thread
/// keeps all of them and forwards.
pub(super) fn confine(thread: PacketThread) {
    if let Err(error) = privileges::confine_packet_thread(thread) {
        tracing::warn!(%error, "a packet thread keeps more rights than it needs");
    }
}
