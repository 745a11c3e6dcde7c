//! What the watcher is told to do: it alone knows the programs and the ways to the peers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use adit_linux::error::Error;
use adit_linux::sockets::poll::EventFd;
use adit_tunnel::{TableDelta, Tunnel};

/// The watcher may be looking at the ways to ten thousand peers.
const PATIENCE: Duration = Duration::from_secs(5);

/// Other peers from now on.
pub(super) struct Command {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) steps: TableDelta,
    /// Who gave it may have gone.
    pub(super) done: mpsc::Sender<Result<(), String>>,
}

/// Where orders are given.
pub(super) struct CommandSender {
    orders: mpsc::Sender<Command>,
    bell: EventFd,
    count: Arc<AtomicUsize>,
}

/// Where they are taken.
pub(super) struct CommandReceiver {
    pub(super) bell: EventFd,
    waiting: mpsc::Receiver<Command>,
    /// How many wait.
    count: Arc<AtomicUsize>,
}

pub(super) fn channel() -> Result<(CommandSender, CommandReceiver), Error> {
    let (orders, waiting) = mpsc::channel();
    let (bell, count) = (EventFd::new()?, Arc::new(AtomicUsize::new(0)));
    let commands = CommandSender { orders, bell: bell.clone(), count: Arc::clone(&count) };
    Ok((commands, CommandReceiver { bell, waiting, count }))
}

impl CommandSender {
    /// Has the peers become others, and waits until they are.
    pub(super) fn update_peers(&self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        let (done, answer) = mpsc::channel();
        let gone = "the thread that watches the underlay has ended";
        self.count.fetch_add(1, Ordering::Relaxed);
        self.orders.send(Command { tunnel, steps: steps.clone(), done }).map_err(|_| gone.to_owned())?;
        self.bell.notify();
        match answer.recv_timeout(PATIENCE) {
            Ok(done) => done,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone.to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(format!("the thread that watches the underlay has not answered for {PATIENCE:?}"))
            }
        }
    }
}

impl CommandReceiver {
    /// The next one, if any waits.
    pub(super) fn next(&self) -> Option<Command> {
        self.bell.drain();
        let order = self.waiting.try_recv().ok()?;
        self.count.fetch_sub(1, Ordering::Relaxed);
        Some(order)
    }

    /// Whether what takes long had better be left for later.
    pub(super) fn any_waits(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }
}
