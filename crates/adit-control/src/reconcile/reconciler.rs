//! Keeps an overlay as it should be: a thread that hears what changes in the kernel, and looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::netlink_watch::Hearing;
use crate::reconcile::route_events::Hearsay;
use crate::state::snapshot::SnapshotPublisher;
use crate::state::status::Status;

/// How often everything is looked at though nothing was said: a lost event must not last.
const AUDIT: Duration = Duration::from_secs(30);
/// How often the data plane is looked at, of which no event tells.
const GLANCE: Duration = Duration::from_millis(250);
/// Between two looks at everything: a storm of other people's changes is one look.
const SETTLE: Duration = Duration::from_millis(100);
/// After an attempt that failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The thread, until it is dropped.
pub(crate) struct Keeper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Keeps what is in `overlay`, in the calling thread's network namespace.
    pub(crate) fn start(
        overlay: Arc<Mutex<Option<Overlay>>>,
        snapshots: Arc<SnapshotPublisher>,
    ) -> Result<Self, ControlError> {
        // First subscribed, then looked: nothing that happens in between is missed.
        let hearing = {
            let overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
            Hearing::open(&overlay.as_ref().map(|overlay| overlay.place().clone()).unwrap_or_default())?
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("adit-keep".to_owned())
            .spawn(move || keep(&overlay, &snapshots, hearing, &stopped))
            .map_err(|error| ControlError::file("start a thread for", "adit-keep", error))?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that repairs had panicked");
        }
    }
}

fn keep(
    overlay: &Mutex<Option<Overlay>>,
    snapshots: &SnapshotPublisher,
    mut hearing: Hearing,
    stop: &AtomicBool,
) {
    let (mut looked, mut not_before) = (Instant::now(), Instant::now());
    let mut has_failed = false;
    let mut heard = Hearsay::default();
    while !stop.load(Ordering::Relaxed) {
        match hearing.hears(GLANCE, &mut heard) {
            Ok(false) => {}
            Ok(true) => {
                std::thread::sleep(SETTLE);
                if hearing.drain(&mut heard).is_err() {
                    heard.note_loss();
                }
            }
            Err(error) => {
                tracing::error!(%error, "what changes in the kernel is not heard");
                std::thread::sleep(GLANCE);
                heard.note_loss();
            }
        }
        let mut overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(overlay) = overlay.as_mut() else { return };
        let is_as_told = overlay.is_as_told(&heard);
        if is_as_told {
            heard = Hearsay::default();
        }
        // The namespace of the inside may have its name no more, of which no event tells.
        let is_elsewhere = !overlay.is_in_place();
        let is_due = !is_as_told
            || has_failed
            || is_elsewhere
            || looked.elapsed() >= AUDIT
            || overlay.plane().check().is_err();
        if !is_due || Instant::now() < not_before {
            continue;
        }
        (looked, heard) = (Instant::now(), Hearsay::default());
        let _long_work = snapshots.begin_long_work();
        let repaired = overlay.repair();
        snapshots.publish(Status::of(overlay));
        match repaired {
            Ok(_) => {
                has_failed = false;
                if is_elsewhere {
                    match Hearing::open(overlay.place()) {
                        Ok(anew) => hearing = anew,
                        Err(error) => tracing::error!(%error, "what changes inside is not heard"),
                    }
                }
            }
            Err(error) => {
                not_before = Instant::now() + PATIENCE;
                if !has_failed {
                    tracing::error!(%error, "something was changed that cannot be repaired now");
                }
                has_failed = true;
            }
        }
    }
}
