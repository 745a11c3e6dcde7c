//! Whether the threads of this process live. Each moves a counter of its own as it goes round, and
//! says how it ended. [`Liveness`] finds those that stand still.
//!
//! A thread that ended early is replaced: [`Thread::failure`] says so, and whoever owns the thread
//! starts anew. A thread that stands still cannot be ended from outside. Only the end of the
//! process helps, and only a look from another thread finds it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_linux::error::Error;

/// How long a thread that moves packets may stand still.
pub const PACKET_THREAD_LIMIT: Duration = Duration::from_secs(10);

/// The longest that a thread without work sleeps before it goes round.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// All threads that [`spawn`] has started in this process.
static THREADS: Mutex<Vec<Weak<Heartbeat>>> = Mutex::new(Vec::new());

/// What a thread says of itself.
#[derive(Debug)]
pub struct Heartbeat {
    name: String,
    limit: Duration,
    /// Only its thread changes it.
    beats: AtomicU32,
    /// How the thread ended: the error says why it did so early.
    end: OnceLock<Result<(), String>>,
}

impl Heartbeat {
    fn new(name: &str, limit: Duration) -> Self {
        Self { name: name.to_owned(), limit, beats: AtomicU32::new(0), end: OnceLock::new() }
    }

    /// Call this each time round. It costs a store to memory that no other thread writes.
    #[inline]
    pub fn beat(&self) {
        self.beats.store(self.beats.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// A thread that has been started.
#[derive(Debug)]
pub struct Thread {
    handle: JoinHandle<()>,
    heartbeat: Arc<Heartbeat>,
}

impl Thread {
    /// Why the thread ended early, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let why = self.heartbeat.end.get()?.as_ref().err()?;
        Some(format!("the thread {} has ended: {why}", self.heartbeat.name))
    }

    /// Waits for its end.
    pub fn join(self) {
        let failure = self.failure();
        // A panic was caught in the thread.
        let _ = self.handle.join();
        // Who asked for it has said so already.
        if let (None, Some(Err(why))) = (failure, self.heartbeat.end.get()) {
            tracing::error!(thread = self.heartbeat.name, why, "a thread has ended early");
        }
    }
}

/// Starts a thread. It inherits the network namespace and the capabilities of the calling one.
/// `work` calls [`Heartbeat::beat`] more often than `limit`, and returns an error if it ends early.
///
/// # Errors
/// The kernel has no room for another thread.
pub fn spawn(
    name: &str,
    limit: Duration,
    work: impl FnOnce(&Heartbeat) -> Result<(), String> + Send + 'static,
) -> Result<Thread, Error> {
    let heartbeat = Arc::new(Heartbeat::new(name, limit));
    let of_thread = Arc::clone(&heartbeat);
    let handle = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let ended = catch_unwind(AssertUnwindSafe(|| work(&of_thread)));
            let _ = of_thread.end.set(ended.unwrap_or_else(|panic| Err(message(&*panic))));
        })
        .map_err(|error| Error::new(format!("cannot start the thread {name}"), error))?;
    register(&heartbeat);
    Ok(Thread { handle, heartbeat })
}

/// Lets [`Liveness`] look at the calling thread, which [`spawn`] has not started, until the
/// heartbeat is dropped.
pub fn watch_current(name: &str, limit: Duration) -> Arc<Heartbeat> {
    let heartbeat = Arc::new(Heartbeat::new(name, limit));
    register(&heartbeat);
    heartbeat
}

fn register(heartbeat: &Arc<Heartbeat>) {
    let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    threads.retain(|thread| thread.strong_count() > 0);
    threads.push(Arc::downgrade(heartbeat));
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message"))
}

/// A thread that has stood still for longer than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Its name.
    pub name: String,
    /// How long it may stand still.
    pub limit: Duration,
}

/// Finds threads that stand still, by looking again and again.
#[derive(Debug, Default)]
pub struct Liveness {
    seen: Vec<Seen>,
}

/// A thread at the last look.
#[derive(Debug)]
struct Seen {
    heartbeat: Weak<Heartbeat>,
    beats: u32,
    still: Duration,
}

impl Liveness {
    /// Looks at all threads of this process. `elapsed` is the time since the last look, at most
    /// twice the usual time between two: a process that was stopped as a whole has no thread that
    /// stands still.
    pub fn look(&mut self, elapsed: Duration) -> Option<Stuck> {
        let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.look_at(&threads, elapsed)
    }

    fn look_at(&mut self, threads: &[Weak<Heartbeat>], elapsed: Duration) -> Option<Stuck> {
        self.seen.retain(|seen| seen.heartbeat.strong_count() > 0);
        for thread in threads {
            if !self.seen.iter().any(|seen| seen.heartbeat.ptr_eq(thread)) {
                self.seen.push(Seen { heartbeat: thread.clone(), beats: 0, still: Duration::ZERO });
            }
        }
        self.seen.iter_mut().find_map(|seen| seen.look(elapsed))
    }
}

impl Seen {
    fn look(&mut self, elapsed: Duration) -> Option<Stuck> {
        let heartbeat = self.heartbeat.upgrade()?;
        let beats = heartbeat.beats.load(Ordering::Relaxed);
        if beats != self.beats || heartbeat.end.get().is_some() {
            (self.beats, self.still) = (beats, Duration::ZERO);
            return None;
        }
        self.still += elapsed;
        let Heartbeat { name, limit, .. } = &*heartbeat;
        (self.still >= *limit).then(|| Stuck { name: name.clone(), limit: *limit })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn looks(liveness: &mut Liveness, threads: &[Weak<Heartbeat>], count: usize) -> Option<String> {
        (0..count).find_map(|_| liveness.look_at(threads, SECOND)).map(|stuck| stuck.name)
    }

    #[test]
    fn a_thread_that_stands_still_for_longer_than_it_may_is_found() {
        let quick = Arc::new(Heartbeat::new("quick", 3 * SECOND));
        let slow = Arc::new(Heartbeat::new("slow", 5 * SECOND));
        let threads = [Arc::downgrade(&quick), Arc::downgrade(&slow)];
        let mut liveness = Liveness::default();
        for _ in 0..20 {
            quick.beat();
            assert_eq!(looks(&mut liveness, &threads, 1), None);
            slow.beat();
        }
        assert_eq!(looks(&mut liveness, &threads, 2), None);
        quick.beat();
        assert_eq!(looks(&mut liveness, &threads, 3), None, "it has moved in between");
        quick.beat();
        assert_eq!(looks(&mut liveness, &threads, 1), Some("slow".to_owned()));
        slow.beat();
        assert_eq!(looks(&mut liveness, &threads, 2), None);
        assert_eq!(looks(&mut liveness, &threads, 1), Some("quick".to_owned()));
    }

    #[test]
    fn a_thread_that_has_ended_or_is_gone_does_not_stand_still() {
        let ended = Arc::new(Heartbeat::new("ended", SECOND));
        let gone = Arc::new(Heartbeat::new("gone", SECOND));
        let threads = [Arc::downgrade(&ended), Arc::downgrade(&gone)];
        let mut liveness = Liveness::default();
        assert_eq!(ended.end.set(Ok(())), Ok(()));
        drop(gone);
        assert_eq!(looks(&mut liveness, &threads, 9), None);
    }

    #[test]
    fn a_thread_says_why_it_ended_early() {
        let end = |work: fn() -> Result<(), String>| {
            let thread = spawn("a", SECOND, move |_| work()).expect("a thread");
            while !thread.handle.is_finished() {
                std::thread::yield_now();
            }
            thread.failure()
        };
        assert_eq!(end(|| Ok(())), None);
        let failed = end(|| Err("no memory".to_owned()));
        assert_eq!(failed.as_deref(), Some("the thread a has ended: no memory"));
        let panicked = end(|| panic!("index {}", 7));
        assert_eq!(panicked.as_deref(), Some("the thread a has ended: it panicked: index 7"));
    }
}
