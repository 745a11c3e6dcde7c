//! The daemon while its overlay is up: its threads, its server, and what it does once per tick.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_dataplane::liveness::{self, Heartbeat};
use adit_linux::process::raise_descriptor_limit;
use tokio::net::UnixListener;
use tokio::signal::unix::Signal;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::api::apply::CHANGE_TIMEOUT;
use crate::api::bounded_listener::{BoundedListener, ClientLimits, private_listener};
use crate::api::metrics_server::MetricsServer;
use crate::api::readings::Readings;
use crate::api::router;
use crate::daemon::change_queue::{ChangeQueue, ChangeThread};
use crate::daemon::changes::Changes;
use crate::daemon::notify;
use crate::daemon::shared_overlay::{self, SharedOverlay, lock};
use crate::daemon::signals::EndSignals;
use crate::daemon::start::Start;
use crate::daemon::thread_check::{ThreadCheck, end_process};
use crate::error::ControlError;
use crate::overlay::{OnExit, Overlay};
use crate::reconcile::reconciler::Reconciler;
use crate::state::event_diff;
use crate::state::event_log::EventLog;
use crate::state::snapshot::{Snapshot, SnapshotPublisher};
use crate::state::status::Status;

/// The descriptors that every process gets.
const MIN_DESCRIPTORS: u64 = 1024;
/// Between two ticks.
const TICK_INTERVAL: Duration = Duration::from_millis(500);
/// How long answers that are being sent may take once the daemon ends.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// A daemon whose overlay is up.
pub(crate) struct RunningDaemon {
    overlay: SharedOverlay,
    readings: Readings,
    reconciler: Reconciler,
    changes: ChangeThread,
    server: Server,
    metrics: MetricsServer,
    /// What the last tick has seen.
    seen: Arc<Snapshot>,
    threads: ThreadCheck,
    /// Of the thread of the runtime.
    heartbeat: Arc<Heartbeat>,
}

impl RunningDaemon {
    /// Starts the threads and the server of an overlay that is up.
    ///
    /// # Errors
    /// Fails if the socket cannot be bound or a thread cannot be started; what the start has made
    /// is gone again.
    pub(crate) fn start(mut overlay: Overlay, start: Start, hangup: Signal) -> Result<Self, ControlError> {
        let Start { chosen, kept_files, options, paths, capabilities, mut metrics, on_failure } = start;
        let name = chosen.config.site.name.clone();
        let status = Status::of(&mut overlay);
        let overlay: SharedOverlay = Arc::new(Mutex::new(Some(overlay)));
        let snapshots = Arc::new(shared_overlay::publisher(&overlay));
        let seen = snapshots.publish(status);
        let started =
            bind_and_watch(&paths.socket(), &overlay, &snapshots).and_then(|(listener, reconciler)| {
                let (overlay, snapshots) = (Arc::clone(&overlay), Arc::clone(&snapshots));
                let changes =
                    Changes::new(overlay, snapshots, capabilities, paths, options.file, chosen, kept_files);
                Ok((listener, reconciler, ChangeThread::start(changes)?))
            });
        let (listener, reconciler, changes) = match started {
            Ok(started) => started,
            Err(error) => {
                if let Err(error) = close(&overlay, on_failure) {
                    tracing::error!(%error, "cannot remove what the failed start has made");
                }
                return Err(error);
            }
        };
        let events = Arc::new(EventLog::new(name.as_str()));
        let readings = Readings { snapshots: Arc::clone(&snapshots), events };
        let server = Server::start(listener, &readings, &changes.queue());
        metrics.serve(&readings);
        // It ends with the runtime.
        tokio::spawn(reload_at(hangup, changes.queue(), snapshots));
        let threads = ThreadCheck::every(TICK_INTERVAL);
        let heartbeat = liveness::watch_current("runtime", liveness::PACKET_THREAD_LIMIT);
        Ok(Self { overlay, readings, reconciler, changes, server, metrics, seen, threads, heartbeat })
    }

    /// The status that was seen last.
    pub(crate) fn status(&self) -> &Status {
        self.seen.status()
    }

    /// Serves until a signal ends the daemon. Returns what stays unless an option says otherwise.
    pub(crate) async fn run_until(&mut self, mut signals: EndSignals) -> OnExit {
        let mut ticks = tokio::time::interval(TICK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once otherwise.
        ticks.reset();
        loop {
            tokio::select! {
                on_exit = signals.received() => return on_exit,
                _ = ticks.tick() => {
                    self.heartbeat.beat();
                    self.check_threads();
                    self.tick().await;
                }
            }
        }
    }

    /// Ends the process if a thread has ended that cannot be replaced, or stands still.
    fn check_threads(&mut self) {
        if let Some(why) = self.reconciler.failure().or_else(|| self.changes.failure()) {
            end_process(why);
        }
        self.threads.check();
    }

    /// Looks for events, follows `site.metrics`, and feeds the watchdog.
    async fn tick(&mut self) {
        let Some(snapshot) = self.readings.snapshots.recent().await else { return };
        for kind in event_diff::between(self.seen.status(), snapshot.status()) {
            self.readings.events.append(kind).log();
        }
        let metrics = self.changes.queue().running_config().site.metrics;
        self.metrics.move_to(metrics, &self.readings).await;
        // An overlay that has been locked for longer than any change may take has hung.
        if snapshot.age() < CHANGE_TIMEOUT {
            notify::watchdog();
        }
        self.seen = snapshot;
    }

    /// Waits for the change and the answers that are in progress, stops forwarding, and removes the
    /// kernel objects or leaves them.
    ///
    /// # Errors
    /// Fails if something cannot be removed.
    pub(crate) async fn end(self, on_exit: OnExit) -> Result<(), ControlError> {
        notify::stopping();
        // It waits for others from here on.
        drop(self.heartbeat);
        self.readings.events.close();
        let answered = self.server.stop();
        self.changes.end().await;
        // A client that does not read its answer does not delay the end.
        let _ = tokio::time::timeout(LAST_ANSWERS_TIMEOUT, answered).await;
        drop(self.reconciler);
        close(&self.overlay, on_exit)
    }
}

/// The server on the socket.
struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    fn start(listener: UnixListener, readings: &Readings, changes: &ChangeQueue) -> Self {
        let (stop, stopped) = oneshot::channel();
        let app = router::for_socket(readings, changes);
        // Without more descriptors fewer clients are served.
        let descriptors = raise_descriptor_limit().unwrap_or(MIN_DESCRIPTORS);
        let listener = BoundedListener::new(listener, ClientLimits::SOCKET.within(descriptors));
        let server = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
        Self { stop, task: tokio::spawn(server.into_future()) }
    }

    /// Stops accepting requests. What it returns ends when the last one has been answered.
    fn stop(self) -> JoinHandle<std::io::Result<()>> {
        let _ = self.stop.send(());
        self.task
    }
}

/// Binds the socket of an overlay that is up, and starts the thread that repairs it.
fn bind_and_watch(
    socket: &Path,
    overlay: &SharedOverlay,
    snapshots: &Arc<SnapshotPublisher>,
) -> Result<(UnixListener, Reconciler), ControlError> {
    let listener = private_listener(socket)?;
    Ok((listener, Reconciler::start(Arc::clone(overlay), Arc::clone(snapshots))?))
}

/// Applies the file again at every SIGHUP.
async fn reload_at(mut hangup: Signal, changes: ChangeQueue, snapshots: Arc<SnapshotPublisher>) {
    while hangup.recv().await.is_some() {
        notify::reloading();
        match changes.reload().await {
            Some(Ok(applied)) if applied.changes.is_empty() => {
                tracing::info!("reloaded: nothing has changed");
            }
            Some(Ok(_)) => tracing::info!("reloaded"),
            Some(Err(error)) => tracing::error!(%error, "not reloaded: nothing has changed"),
            None => return,
        }
        if let Some(snapshot) = snapshots.newest() {
            notify::ready(snapshot.status());
        }
    }
}

fn close(overlay: &SharedOverlay, on_exit: OnExit) -> Result<(), ControlError> {
    match lock(overlay).take() {
        Some(overlay) => overlay.close(on_exit),
        None => Ok(()),
    }
}
