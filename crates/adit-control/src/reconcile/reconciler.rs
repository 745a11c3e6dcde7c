//! The reconciler: a thread that watches the kernel and repairs the overlay.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_dataplane::liveness::{self, Heartbeat, Thread};
use adit_linux::sockets::poll::Waker;

use crate::api::apply::CHANGE_TIMEOUT;
use crate::daemon::thread_check::ThreadCheck;
use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::netlink_watch::NetlinkWatcher;
use crate::reconcile::route_events::PendingEvents;
use crate::retry;
use crate::state::snapshot::SnapshotPublisher;
use crate::state::status::Status;

/// How often everything is looked at without an event: a lost event must not have a lasting effect.
const FULL_RESYNC_INTERVAL: Duration = retry::LONGEST_INTERVAL;
/// How often the thread goes round without an event: it checks the data plane, about which there
/// are none, and the other threads.
const DATAPLANE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long events are collected after the first: a storm of changes leads to one look.
const EVENT_DEBOUNCE: Duration = Duration::from_millis(100);
/// How often settings are read, about which there are no events: forwarding, and IPv6.
const SETTINGS_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The thread. Dropping it stops the thread.
pub(crate) struct Reconciler {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<Thread>,
}

impl Reconciler {
    /// Starts to reconcile the overlay, in the calling thread's network namespace, and to publish a
    /// snapshot after each repair. The thread ends when there is no overlay any more.
    ///
    /// # Errors
    /// Fails if netlink cannot be opened or the thread cannot be started.
    pub(crate) fn start(
        overlay: Arc<Mutex<Option<Overlay>>>,
        snapshots: Arc<SnapshotPublisher>,
    ) -> Result<Self, ControlError> {
        let watcher = {
            let overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
            NetlinkWatcher::open(
                &overlay.as_ref().map(|overlay| overlay.inner_scope().clone()).unwrap_or_default(),
            )?
        };
        let (stop, waker) = (Arc::new(AtomicBool::new(false)), Arc::new(Waker::new()?));
        let (stopped, woken) = (Arc::clone(&stop), Arc::clone(&waker));
        let thread = liveness::spawn("adit-keep", CHANGE_TIMEOUT, move |heartbeat| {
            Loop::new(watcher, woken, snapshots).run(&overlay, &stopped, heartbeat);
            Ok(())
        })?;
        Ok(Self { stop, waker, thread: Some(thread) })
    }

    /// Why the thread ended early, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.thread.as_ref().and_then(Thread::failure)
    }
}

impl Drop for Reconciler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

/// The state of the thread.
struct Loop {
    watcher: NetlinkWatcher,
    waker: Arc<Waker>,
    threads: ThreadCheck,
    snapshots: Arc<SnapshotPublisher>,
    /// The events since the last look at everything.
    pending: PendingEvents,
    last_resync: Instant,
    last_settings_check: Instant,
    /// Repairs that have failed one after another.
    failures: u32,
    /// After a failed repair, when to try again.
    not_before: Instant,
    /// After a failed repair, until when events are taken for its own.
    own_events_until: Instant,
}

impl Loop {
    fn new(watcher: NetlinkWatcher, waker: Arc<Waker>, snapshots: Arc<SnapshotPublisher>) -> Self {
        let now = Instant::now();
        // The overlay is older than the subscription, and others may have changed it in between:
        // systemd-networkd does within milliseconds. So the loop begins with a look at everything.
        let mut pending = PendingEvents::default();
        pending.mark_overrun();
        Self {
            watcher,
            waker,
            threads: ThreadCheck::every(DATAPLANE_CHECK_INTERVAL),
            snapshots,
            pending,
            last_resync: now,
            last_settings_check: now,
            failures: 0,
            not_before: now,
            own_events_until: now,
        }
    }

    fn run(mut self, overlay: &Mutex<Option<Overlay>>, stop: &AtomicBool, heartbeat: &Heartbeat) {
        while !stop.load(Ordering::Relaxed) {
            heartbeat.beat();
            self.collect_events();
            // The runtime looks at this thread, and at all others.
            self.threads.check();
            let mut overlay = overlay.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(overlay) = overlay.as_mut() else { return };
            if self.last_settings_check.elapsed() >= SETTINGS_CHECK_INTERVAL {
                self.last_settings_check = Instant::now();
                overlay.check_forwarding();
                if overlay.has_other_ipv6() {
                    self.pending.mark_overrun();
                }
            }
            if self.is_repair_due(overlay) && Instant::now() >= self.not_before {
                self.repair(overlay);
            }
        }
    }

    /// Waits for events, or for the time of the next attempt, and collects events.
    fn collect_events(&mut self) {
        let wait = match self.failures {
            // Something waits for a look already, as at the start.
            0 if !self.pending.is_empty() => EVENT_DEBOUNCE,
            0 => DATAPLANE_CHECK_INTERVAL,
            _ => self.not_before.saturating_duration_since(Instant::now()).min(DATAPLANE_CHECK_INTERVAL),
        };
        match self.watcher.poll(wait, &self.waker, &mut self.pending) {
            Ok(false) => {}
            Ok(true) => {
                let is_own = Instant::now() < self.own_events_until;
                std::thread::sleep(EVENT_DEBOUNCE);
                if self.watcher.drain(&mut self.pending).is_err() {
                    self.pending.mark_overrun();
                }
                if is_own {
                    // The next attempt looks at everything anyway.
                    self.pending = PendingEvents::default();
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot watch what changes in the kernel");
                std::thread::sleep(DATAPLANE_CHECK_INTERVAL);
                self.pending.mark_overrun();
            }
        }
    }

    fn is_repair_due(&mut self, overlay: &Overlay) -> bool {
        let matches = self.pending.matches_desired(overlay.desired(), overlay.devices());
        if matches {
            self.pending = PendingEvents::default();
        } else if self.failures > 1 {
            // The obstacle may be gone.
            self.failures = 1;
            self.not_before = self.not_before.min(Instant::now() + retry::FIRST_INTERVAL);
        }
        !matches
            || self.failures > 0
            || !overlay.is_in_namespace()
            || self.last_resync.elapsed() >= FULL_RESYNC_INTERVAL
            || overlay.plane().check().is_err()
    }

    /// Looks at everything, and repairs what differs.
    fn repair(&mut self, overlay: &mut Overlay) {
        let has_moved = !overlay.is_in_namespace();
        (self.last_resync, self.pending) = (Instant::now(), PendingEvents::default());
        let repaired = {
            let _long_work = self.snapshots.begin_long_work();
            let repaired = overlay.repair();
            self.snapshots.publish(Status::of(overlay));
            repaired
        };
        match repaired {
            Ok(_) => {
                self.failures = 0;
                if has_moved {
                    self.watch_again(overlay);
                }
            }
            // The status has the reason, and an event says it once.
            Err(_) => {
                let now = Instant::now();
                self.not_before = now + retry::interval(self.failures);
                self.own_events_until = now + EVENT_DEBOUNCE;
                self.failures += 1;
            }
        }
    }

    /// Watches the namespace that the inner side is in now.
    fn watch_again(&mut self, overlay: &Overlay) {
        match NetlinkWatcher::open(overlay.inner_scope()) {
            Ok(watcher) => {
                self.watcher = watcher;
                self.pending.mark_overrun();
            }
            Err(error) => tracing::error!(%error, "cannot watch what changes on the inner side"),
        }
    }
}
