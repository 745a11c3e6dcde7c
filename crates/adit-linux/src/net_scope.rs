//! Where the inside of a tunnel is, if not where its process is: in another network namespace, in a VRF, or both.

use crate::error::Result;
use crate::netns::NetNs;

/// See the module; the default is where the process is.
#[derive(Clone, Debug, Default)]
pub struct Inside {
    /// The other network namespace.
    pub netns: Option<NetNs>,
    /// The VRF's interface.
    pub vrf: Option<String>,
}

impl Inside {
    /// Does something in the namespace.
    ///
    /// # Errors
    /// It cannot be entered: `work` was not done.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.netns {
            Some(netns) => netns.run(work),
            None => Ok(work()),
        }
    }

    /// Whether what is routed inside is routed otherwise than what the process sends.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.netns.is_some() || self.vrf.is_some()
    }
}
