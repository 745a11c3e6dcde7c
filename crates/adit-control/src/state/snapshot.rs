//! Snapshots of an overlay's status: taken at most once for all readers, and read without the
//! overlay's lock.
//!
//! A status of 10,000 peers takes tens of milliseconds to build and is 6 MB of JSON. The daemon
//! therefore takes one [`Snapshot`] per tick and publishes it; the API, the metrics, and the events
//! all read that one. Its JSON is made when the first reader asks for it, and then kept.
//!
//! How old a snapshot may be is a compromise between cost and surprise:
//!
//! - A change or a repair publishes a snapshot before the overlay is unlocked. A reader who has
//!   seen the answer to an apply therefore sees the new state.
//! - A reader who has just sent traffic expects to see it counted. [`SnapshotPublisher::recent`]
//!   therefore takes a new snapshot, unless the newest is younger than [`MAX_AGE_PER_PEER`] times
//!   the number of peers. With few peers every reader gets fresh numbers; with 10,000 they may be
//!   200 ms old, and any number of readers cost at most five snapshots a second.
//! - An apply, a reload, or a repair may hold the overlay's lock for seconds. Meanwhile readers get
//!   the newest snapshot at once, and [`Snapshot::age`] says how old it is. The lock is otherwise
//!   held for milliseconds, and a reader waits for it, for at most [`LOCK_TIMEOUT`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::watch;

use crate::state::daemon_status::DaemonStatus;
use crate::state::status::Status;

/// How old a snapshot may be when it is read, for each peer in it.
pub(crate) const MAX_AGE_PER_PEER: Duration = Duration::from_micros(20);
/// How long a reader waits for an overlay that is locked for a moment.
pub(crate) const LOCK_TIMEOUT: Duration = Duration::from_millis(250);
/// How often it tries.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// An overlay's status at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    status: Status,
    taken: Instant,
    /// How many of its warnings, the last ones, are about the daemon.
    daemon_warnings: usize,
    json: OnceLock<Bytes>,
    /// Its metrics in OpenMetrics and in the older text format.
    openmetrics: OnceLock<Bytes>,
    plain_metrics: OnceLock<Bytes>,
}

impl Snapshot {
    /// A status that has just been taken.
    pub(crate) fn new(mut status: Status, daemon: &DaemonStatus) -> Self {
        daemon.add_to(&mut status);
        Self {
            status,
            taken: Instant::now(),
            daemon_warnings: daemon.warnings.len(),
            json: OnceLock::new(),
            openmetrics: OnceLock::new(),
            plain_metrics: OnceLock::new(),
        }
    }

    pub(crate) fn status(&self) -> &Status {
        &self.status
    }

    /// Time since it was taken.
    pub(crate) fn age(&self) -> Duration {
        self.taken.elapsed()
    }

    /// The status as JSON. The first call costs tens of milliseconds with 10,000 peers; later calls
    /// return the same bytes.
    pub(crate) fn json(&self) -> Bytes {
        let json = self.json.get_or_init(|| serde_json::to_vec(&self.status).unwrap_or_default().into());
        json.clone()
    }

    /// Its metrics in OpenMetrics, made by the first caller.
    pub(crate) fn openmetrics(&self, make: impl FnOnce() -> String) -> Bytes {
        self.openmetrics.get_or_init(|| make().into()).clone()
    }

    /// The same in the older text format.
    pub(crate) fn plain_metrics(&self, make: impl FnOnce() -> String) -> Bytes {
        self.plain_metrics.get_or_init(|| make().into()).clone()
    }

    /// The same overlay at the same moment, with something else to say of the daemon.
    fn with_daemon(&self, daemon: &DaemonStatus) -> Self {
        let mut status = self.status.clone();
        status.warnings.truncate(status.warnings.len().saturating_sub(self.daemon_warnings));
        Self { taken: self.taken, ..Self::new(status, daemon) }
    }

    fn is_recent(&self) -> bool {
        let peers = u32::try_from(self.status.peers.len()).unwrap_or(u32::MAX);
        self.age() <= MAX_AGE_PER_PEER.saturating_mul(peers)
    }
}

/// Reads the status of the overlay as it is now, and never blocks.
pub(crate) type StatusFn = Box<dyn Fn() -> Result<Status, NoStatus> + Send + Sync>;

/// Why a [`StatusFn`] has no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoStatus {
    /// Another thread holds the overlay's lock.
    Locked,
    /// The overlay is being taken down.
    Gone,
}

/// Publishes snapshots, and takes one when a reader needs a newer one.
pub(crate) struct SnapshotPublisher {
    read: StatusFn,
    newest: watch::Sender<Option<Arc<Snapshot>>>,
    /// Is part of the newest snapshot and of every later one. Locked while a snapshot is published,
    /// so that none says what was true before.
    daemon: Mutex<DaemonStatus>,
    /// How many changes or repairs are in progress or wait for the lock.
    long_work: AtomicUsize,
}

impl SnapshotPublisher {
    /// Takes snapshots with `read`; none has been published yet.
    pub(crate) fn new(read: StatusFn) -> Self {
        Self {
            read,
            newest: watch::Sender::new(None),
            daemon: Mutex::default(),
            long_work: AtomicUsize::new(0),
        }
    }

    /// Sets what the newest snapshot and all later ones say of the daemon.
    pub(crate) fn set_daemon(&self, status: DaemonStatus) {
        let mut daemon = self.lock_daemon();
        *daemon = status;
        self.newest.send_if_modified(|newest| {
            let Some(snapshot) = newest else { return false };
            *snapshot = Arc::new(snapshot.with_daemon(&daemon));
            true
        });
    }

    fn lock_daemon(&self) -> MutexGuard<'_, DaemonStatus> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes a status that was taken by somebody who holds the overlay's lock.
    pub(crate) fn publish(&self, status: Status) -> Arc<Snapshot> {
        let daemon = self.lock_daemon();
        let snapshot = Arc::new(Snapshot::new(status, &daemon));
        self.newest.send_replace(Some(Arc::clone(&snapshot)));
        snapshot
    }

    /// The snapshot that was published last.
    pub(crate) fn newest(&self) -> Option<Arc<Snapshot>> {
        self.newest.borrow().clone()
    }

    /// A snapshot that is as new as the module's rules ask for; `None` when the overlay is being
    /// taken down.
    pub(crate) async fn recent(&self) -> Option<Arc<Snapshot>> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            let newest = self.newest();
            if newest.as_ref().is_some_and(|newest| newest.is_recent()) {
                return newest;
            }
            match (self.read)() {
                Ok(status) => return Some(self.publish(status)),
                Err(NoStatus::Gone) => return None,
                Err(NoStatus::Locked) => {}
            }
            let is_worth_waiting = !self.has_long_work() && Instant::now() < deadline;
            if newest.is_some() && !is_worth_waiting {
                return newest;
            }
            tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
        }
    }

    /// Announces work that holds the overlay's lock for long. Until the guard is dropped, no reader
    /// waits for the lock.
    pub(crate) fn begin_long_work(&self) -> LongWork<'_> {
        self.long_work.fetch_add(1, Ordering::Relaxed);
        LongWork(self)
    }

    fn has_long_work(&self) -> bool {
        self.long_work.load(Ordering::Relaxed) > 0
    }
}

/// Announces long work as long as it lives.
#[must_use]
pub(crate) struct LongWork<'a>(&'a SnapshotPublisher);

impl Drop for LongWork<'_> {
    fn drop(&mut self) {
        self.0.long_work.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64};

    use super::*;
    use crate::state::sample;
    use crate::state::warning::{Warning, WarningName};

    /// An overlay of so many peers. Its status says how often it has been read.
    struct Source {
        peers: usize,
        reads: AtomicU64,
        is_locked: AtomicBool,
    }

    impl Source {
        fn read(&self) -> Result<Status, NoStatus> {
            if self.is_locked.load(Ordering::Relaxed) {
                return Err(NoStatus::Locked);
            }
            let mut status = sample::status();
            status.peers = vec![status.peers[0].clone(); self.peers];
            status.probes.sent = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(status)
        }

        fn lock(&self, is_locked: bool) {
            self.is_locked.store(is_locked, Ordering::Relaxed);
        }
    }

    fn publisher(peers: usize) -> (Arc<Source>, SnapshotPublisher) {
        let (reads, is_locked) = (AtomicU64::new(0), AtomicBool::new(false));
        let source = Arc::new(Source { peers, reads, is_locked });
        let read = Arc::clone(&source);
        (source, SnapshotPublisher::new(Box::new(move || read.read())))
    }

    /// How often the source had been read for this snapshot.
    fn reads(snapshot: Option<Arc<Snapshot>>) -> u64 {
        snapshot.expect("the overlay is there").status().probes.sent
    }

    #[test]
    fn each_reader_of_a_small_overlay_gets_a_new_snapshot() {
        crate::block_on(async {
            let (_, publisher) = publisher(1);
            for expected in 1..5 {
                assert_eq!(reads(publisher.recent().await), expected);
                std::thread::sleep(MAX_AGE_PER_PEER);
            }
        });
    }

    #[test]
    fn readers_of_a_large_overlay_share_a_snapshot_and_its_json() {
        crate::block_on(async {
            // So many that the snapshot stays recent for three seconds.
            let (_, publisher) = publisher(150_000);
            let (first, second) = (publisher.recent().await.unwrap(), publisher.recent().await.unwrap());
            assert!(Arc::ptr_eq(&first, &second));
            assert_eq!(first.json().as_ptr(), second.json().as_ptr());
            assert_eq!(*first.json(), serde_json::to_vec(first.status()).unwrap());
        });
    }

    #[test]
    fn what_changes_about_the_daemon_is_read_at_once() {
        crate::block_on(async {
            let (_, publisher) = publisher(150_000);
            assert_eq!(publisher.recent().await.unwrap().status().file, "");
            publisher.set_daemon(DaemonStatus { file: "a.toml".into(), ..DaemonStatus::default() });
            assert_eq!(publisher.recent().await.unwrap().status().file, "a.toml");
        });
    }

    #[test]
    fn what_changes_about_the_daemon_is_read_during_long_work() {
        crate::block_on(async {
            let (source, publisher) = publisher(1);
            let own = publisher.recent().await.unwrap().status().warnings.clone();
            std::thread::sleep(MAX_AGE_PER_PEER);
            source.lock(true);
            let _long_work = publisher.begin_long_work();
            let warning =
                Warning { name: WarningName::RolledBack, about: String::new(), what: String::new() };
            for warnings in [vec![warning], Vec::new()] {
                publisher.set_daemon(DaemonStatus { warnings: warnings.clone(), ..DaemonStatus::default() });
                let snapshot = publisher.recent().await.unwrap();
                assert_eq!(snapshot.status().warnings, [own.clone(), warnings].concat());
                assert!(snapshot.age() >= MAX_AGE_PER_PEER);
            }
        });
    }

    #[test]
    fn a_reader_does_not_wait_for_long_work() {
        crate::block_on(async {
            let (source, publisher) = publisher(1);
            publisher.recent().await;
            std::thread::sleep(MAX_AGE_PER_PEER);
            source.lock(true);
            let _long_work = publisher.begin_long_work();
            let start = Instant::now();
            let snapshot = publisher.recent().await.unwrap();
            assert!(snapshot.age() >= MAX_AGE_PER_PEER);
            assert_eq!(reads(Some(snapshot)), 1);
            assert!(start.elapsed() < LOCK_TIMEOUT);
        });
    }

    #[test]
    fn a_reader_waits_for_a_short_lock() {
        crate::block_on(async {
            let (source, publisher) = publisher(1);
            publisher.recent().await;
            std::thread::sleep(MAX_AGE_PER_PEER);
            source.lock(true);
            let waiting = publisher.recent();
            tokio::pin!(waiting);
            let too_soon = tokio::time::timeout(Duration::from_millis(5), &mut waiting).await;
            assert!(too_soon.is_err());
            source.lock(false);
            assert_eq!(reads(waiting.await), 2);
        });
    }

    #[test]
    fn a_reader_gives_up_waiting_for_a_lock_that_nobody_announced() {
        crate::block_on(async {
            let (source, publisher) = publisher(1);
            publisher.recent().await;
            std::thread::sleep(MAX_AGE_PER_PEER);
            source.lock(true);
            assert_eq!(reads(publisher.recent().await), 1);
        });
    }

    #[test]
    fn an_overlay_that_is_gone_has_no_snapshot() {
        crate::block_on(async {
            let publisher = SnapshotPublisher::new(Box::new(|| Err(NoStatus::Gone)));
            assert!(publisher.recent().await.is_none());
            // Nor does one that was published before count.
            publisher.publish(sample::status());
            std::thread::sleep(MAX_AGE_PER_PEER);
            assert!(publisher.recent().await.is_none());
        });
    }
}
