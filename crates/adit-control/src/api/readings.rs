//! The sources of the API's answers about the overlay.

use std::sync::Arc;

use crate::state::event_log::EventLog;
use crate::state::snapshot::SnapshotPublisher;

/// What the handlers read: snapshots and events. They need no lock of the overlay.
#[derive(Clone)]
pub(crate) struct Readings {
    pub(crate) snapshots: Arc<SnapshotPublisher>,
    pub(crate) events: Arc<EventLog>,
}

#[cfg(test)]
impl Readings {
    /// Readings of the sample status, and no events.
    pub(crate) fn sample() -> Self {
        let read = || Ok(crate::state::sample::status());
        Self {
            snapshots: Arc::new(SnapshotPublisher::new(Box::new(read))),
            events: Arc::new(EventLog::new("a")),
        }
    }
}
