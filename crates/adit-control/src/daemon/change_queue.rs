//! The queue of changes: one thread makes them, one after the other, in the order in which they
//! were asked for.
//!
//! The daemon's runtime has one thread. A change that ran there would stop every answer and the
//! watchdog for as long as it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use adit_config::Config;
use adit_dataplane::clock::Clock;
use adit_dataplane::liveness::{self, Heartbeat, Thread};
use tokio::sync::{oneshot, watch};

use crate::api::apply::{Applied, ApplyRequest, CHANGE_TIMEOUT};
use crate::daemon::changes::Changes;
use crate::error::ControlError;

/// How often the thread looks for a change to roll back and for path state to save.
const CHORES_INTERVAL: Duration = Duration::from_secs(1);

/// A request in the queue.
struct Job {
    /// When it was made. Whether a change is confirmed in time depends on this, not on how long the
    /// queue is.
    asked: adit_tunnel::Instant,
    work: Work,
}

enum Work {
    Apply(ApplyRequest, Answer<Applied>),
    Reload(Answer<Applied>),
    Confirm(Answer<bool>),
    /// Only wakes the thread.
    End,
}

type Answer<T> = oneshot::Sender<Result<T, ControlError>>;

/// The sending end of the queue. All methods return `None` if the daemon ends first.
#[derive(Clone)]
pub(crate) struct ChangeQueue {
    jobs: mpsc::Sender<Job>,
    running: watch::Receiver<Arc<Config>>,
}

impl ChangeQueue {
    /// The configuration that runs. While a change is made it is the one before.
    pub(crate) fn running_config(&self) -> Arc<Config> {
        Arc::clone(&self.running.borrow())
    }

    /// See [`Changes::apply`].
    pub(crate) async fn apply(&self, request: ApplyRequest) -> Option<Result<Applied, ControlError>> {
        self.ask(|answer| Work::Apply(request, answer)).await
    }

    /// See [`Changes::reload`].
    pub(crate) async fn reload(&self) -> Option<Result<Applied, ControlError>> {
        self.ask(Work::Reload).await
    }

    /// See [`Changes::confirm`].
    pub(crate) async fn confirm(&self) -> Option<Result<bool, ControlError>> {
        self.ask(Work::Confirm).await
    }

    async fn ask<T>(&self, work: impl FnOnce(Answer<T>) -> Work) -> Option<Result<T, ControlError>> {
        let (sender, receiver) = oneshot::channel();
        self.jobs.send(Job { asked: Clock.now(), work: work(sender) }).ok()?;
        receiver.await.ok()
    }
}

/// The thread that makes the changes.
pub(crate) struct ChangeThread {
    queue: ChangeQueue,
    stop: Arc<AtomicBool>,
    ended: oneshot::Receiver<()>,
    thread: Thread,
}

impl ChangeThread {
    /// Starts the thread in the calling thread's network namespace and with its capabilities.
    pub(crate) fn start(changes: Changes) -> Result<Self, ControlError> {
        let (jobs, receiver) = mpsc::channel();
        let queue = ChangeQueue { jobs, running: changes.running() };
        let stop = Arc::new(AtomicBool::new(false));
        let (end, ended) = oneshot::channel();
        let thread = liveness::spawn("adit-change", CHANGE_TIMEOUT, {
            let stop = Arc::clone(&stop);
            move |heartbeat| {
                make(changes, &receiver, &stop, heartbeat);
                // Nobody waits if the daemon fails.
                let _ = end.send(());
                Ok(())
            }
        })?;
        Ok(Self { queue, stop, ended, thread })
    }

    /// Why the thread ended early, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.thread.failure()
    }

    pub(crate) fn queue(&self) -> ChangeQueue {
        self.queue.clone()
    }

    /// Waits for the change that is being made, and ends the thread. Changes that wait in the queue
    /// are dropped.
    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        // It has ended already if nobody receives.
        let _ = self.queue.jobs.send(Job { asked: Clock.now(), work: Work::End });
        // A thread that panicked has dropped its end.
        let _ = self.ended.await;
        self.thread.join();
    }
}

fn make(mut changes: Changes, jobs: &mpsc::Receiver<Job>, stop: &AtomicBool, heartbeat: &Heartbeat) {
    let mut chores_at = Instant::now() + CHORES_INTERVAL;
    loop {
        heartbeat.beat();
        let job = jobs.recv_timeout(chores_at.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match job {
            Ok(Job { asked, work }) => do_work(&mut changes, asked, work),
            // The queue is empty, so that no request to confirm waits in it.
            Err(RecvTimeoutError::Timeout) => changes.roll_back_if_expired(Clock.now()),
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= chores_at {
            changes.save_state(Clock.now());
            chores_at = Instant::now() + CHORES_INTERVAL;
        }
    }
    changes.save_state(Clock.now());
}

fn do_work(changes: &mut Changes, asked: adit_tunnel::Instant, work: Work) {
    // A client that has gone does not wait for its answer.
    match work {
        Work::Apply(request, answer) => {
            changes.roll_back_if_expired(asked);
            let _ = answer.send(changes.apply(&request, asked));
        }
        Work::Reload(answer) => {
            changes.roll_back_if_expired(asked);
            let _ = answer.send(changes.reload(asked));
        }
        Work::Confirm(answer) => {
            let _ = answer.send(changes.confirm(asked));
        }
        Work::End => {}
    }
}
