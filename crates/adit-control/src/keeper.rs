//! Keeps an overlay as it should be: a thread that hears what changes in the kernel, and looks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_linux::netlink::{Events, Group};

use crate::error::ControlError;
use crate::hearsay::Hearsay;
use crate::overlay::Overlay;

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
    pub(crate) fn start(overlay: Arc<Mutex<Option<Overlay>>>) -> Result<Self, ControlError> {
        // First subscribed, then looked: nothing that happens in between is missed.
        let events = Events::open(&[Group::Link, Group::Route])?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("adit-keep".to_owned())
            .spawn(move || keep(&overlay, events, &stopped))
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

fn keep(overlay: &Mutex<Option<Overlay>>, mut events: Events, stop: &AtomicBool) {
    let (mut looked, mut not_before) = (Instant::now(), Instant::now());
    let mut has_failed = false;
    let mut heard = Hearsay::default();
    while !stop.load(Ordering::Relaxed) {
        match events.next(GLANCE) {
            Ok(None) => {}
            Ok(Some(event)) => {
                heard.note(event);
                std::thread::sleep(SETTLE);
                while let Ok(Some(event)) = events.try_next() {
                    heard.note(event);
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
        let is_due = !is_as_told || looked.elapsed() >= AUDIT || overlay.plane().check().is_err();
        if !is_due || Instant::now() < not_before {
            continue;
        }
        (looked, heard) = (Instant::now(), Hearsay::default());
        match overlay.repair() {
            Ok(_) => has_failed = false,
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
