//! The threads of the plane: start them, confine them, wait for their end.

use std::thread::JoinHandle;

use adit_linux::error::Error;
use adit_linux::process::privileges::{self, PacketThread};

/// Starts a thread. It inherits the network namespace of the calling one.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::new(format!("cannot start the thread {name}"), error))
}

/// Leaves the calling thread only the rights that move packets. If the kernel cannot, the thread
/// keeps all of them and forwards.
pub(super) fn confine(thread: PacketThread) {
    if let Err(error) = privileges::confine_packet_thread(thread) {
        tracing::warn!(%error, "a packet thread keeps more rights than it needs");
    }
}

/// Waits for the end of these threads.
pub(super) fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a packet thread has panicked");
        }
    }
}
