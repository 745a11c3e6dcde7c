//! What every data plane can do.

use std::fmt;
use std::sync::Arc;

use adit_tunnel::{TableDelta, Totals, Tunnel};

/// Which data plane it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneKind {
    /// Programs inside the kernel, and userspace for what they decline.
    Ebpf,
    /// TUN and packet sockets.
    Userspace,
    /// Linux's own ipip driver.
    Kernel,
}

impl PlaneKind {
    /// As in the configuration and in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A running data plane. Dropping it shuts it down; the device stays or goes as it was opened.
pub trait DataPlane: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> PlaneKind;

    /// What decides for it now.
    fn tunnel(&self) -> Arc<Tunnel>;

    /// Goes on with other peers: `tunnel` is [`Tunnel::amended`] from what decides now, by these steps. What neither
    /// comes nor goes nor changes is not touched, and every other datagram meets what was or what is.
    ///
    /// # Errors
    /// Why it has to be started anew for that, in a few words. Part of it may be done.
    fn update_peers(&mut self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        let (_, _) = (tunnel, steps);
        Err("this data plane does not change while it runs".to_owned())
    }

    /// All counts since it started.
    fn totals(&self) -> Totals;

    /// Those of them that end with it: not what programs have counted whose successors go on counting.
    fn own_totals(&self) -> Totals;

    /// Whether everything of it is still where it was put.
    ///
    /// # Errors
    /// What is missing, in a few words.
    fn check(&self) -> Result<(), String>;

    /// The plane's clock now, in which `totals` tells when a peer was last heard.
    fn now(&self) -> adit_tunnel::Instant;

    /// Why it no longer forwards, if so: the device was deleted under it.
    fn failure(&self) -> Option<&'static str>;

    /// Stops all threads and waits for them.
    fn shutdown(&mut self);
}
