//! The overlay as the daemon's threads share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::overlay::Overlay;
use crate::state::snapshot::{NoStatus, SnapshotPublisher};
use crate::state::status::Status;

/// The overlay; `None` once it is being taken down.
pub(crate) type SharedOverlay = Arc<Mutex<Option<Overlay>>>;

/// Locks the overlay. A change or a repair may hold the lock for seconds.
pub(crate) fn lock(overlay: &SharedOverlay) -> MutexGuard<'_, Option<Overlay>> {
    overlay.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A publisher of the overlay's snapshots.
pub(crate) fn publisher(overlay: &SharedOverlay) -> SnapshotPublisher {
    let overlay = Arc::clone(overlay);
    SnapshotPublisher::new(Box::new(move || {
        let mut overlay = match overlay.try_lock() {
            Ok(overlay) => overlay,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(NoStatus::Locked),
        };
        overlay.as_mut().map(Status::of).ok_or(NoStatus::Gone)
    }))
}
