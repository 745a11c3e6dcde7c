//! What a status says of the daemon itself: the file in force, the change that waits to be
//! confirmed, and what keeps the daemon from its work.

use std::path::PathBuf;

use adit_dataplane::clock::Clock;
use adit_tunnel::Instant;

use crate::state::confirmation::Pending;
use crate::state::status::{PendingChange, Status};
use crate::state::warning::Warning;

/// The daemon's part of a status. The change thread sets it, and each snapshot takes it in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DaemonStatus {
    /// The file that what runs came from.
    pub(crate) file: PathBuf,
    pub(crate) pending: Option<Deadline>,
    pub(crate) warnings: Vec<Warning>,
}

/// When a change is rolled back, and to which file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Deadline {
    at: Instant,
    returns_to: PathBuf,
}

impl Deadline {
    pub(crate) fn of(pending: &Pending) -> Self {
        Self { at: pending.deadline(), returns_to: pending.confirmed.file.clone() }
    }
}

impl DaemonStatus {
    /// Adds it to a status of the overlay.
    pub(crate) fn add_to(&self, status: &mut Status) {
        status.file = self.file.display().to_string();
        status.pending = self.pending.as_ref().map(|Deadline { at, returns_to }| PendingChange {
            seconds_left: at.since(Clock.now()).as_secs_f64(),
            returns_to: returns_to.display().to_string(),
        });
        status.warnings.extend_from_slice(&self.warnings);
    }
}
