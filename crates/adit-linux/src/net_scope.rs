//! The network scope of a tunnel interface: the network namespace and the VRF it is in.
//!
//! The process and its underlay sockets may be in another namespace than the inner hosts, and the
//! inner routes may be in a VRF. Whatever acts for the inner side takes a [`NetScope`].

use crate::error::Result;
use crate::netns::NetNs;

/// A network namespace and a VRF in it. The default is the process's own namespace and no VRF.
#[derive(Clone, Debug, Default)]
pub struct NetScope {
    /// The network namespace; `None` is the process's own.
    pub netns: Option<NetNs>,
    /// The name of the VRF's interface; `None` is the main routing table.
    pub vrf: Option<String>,
}

impl NetScope {
    /// Runs `work` in the namespace. For another namespace it costs a thread.
    ///
    /// # Errors
    /// The namespace cannot be entered; then `work` did not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.netns {
            Some(netns) => netns.run(work),
            None => Ok(work()),
        }
    }

    /// Returns true if a datagram sent in this scope takes other routes than one sent by the
    /// process.
    #[must_use]
    pub fn is_separate(&self) -> bool {
        self.netns.is_some() || self.vrf.is_some()
    }
}
