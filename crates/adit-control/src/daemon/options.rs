//! The options of a daemon.

use std::path::PathBuf;

use crate::overlay::OnExit;

/// How to run a daemon.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// What stays at the end, whichever signal ends it; `None`: SIGTERM keeps, SIGINT removes.
    pub on_exit: Option<OnExit>,
    /// The name of the network namespace that the daemon runs in, for the run record.
    pub netns: Option<String>,
    /// The file that the configuration came from. SIGHUP reads it again.
    pub file: PathBuf,
    /// Wait for the underlay address instead of failing without it: at boot it may come later.
    pub wait: bool,
    /// The process that supervises the daemon, if one does. A daemon whose supervisor has ended
    /// before it holds the lock does not start: it may have been ended together with the overlay.
    pub supervisor: Option<i32>,
}
