//! Commands to the watcher: it alone may change the offload and the next hops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use adit_linux::error::Error;
use adit_linux::sockets::poll::EventFd;
use adit_tunnel::{TableDelta, Tunnel};

/// Longest wait for the watcher, which may be looking up the next hops of 10,000 peers.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Change to other peers.
pub(super) struct Command {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) steps: TableDelta,
    /// The receiver is gone if its owner has stopped waiting.
    pub(super) done: mpsc::Sender<Result<(), String>>,
}

/// The plane's end.
pub(super) struct CommandSender {
    commands: mpsc::Sender<Command>,
    ready: EventFd,
    waiting: Arc<AtomicUsize>,
}

/// The watcher's end.
pub(super) struct CommandReceiver {
    /// Readable when a command waits.
    pub(super) ready: EventFd,
    commands: mpsc::Receiver<Command>,
    /// Number of commands that wait.
    waiting: Arc<AtomicUsize>,
}

pub(super) fn channel() -> Result<(CommandSender, CommandReceiver), Error> {
    let (sender, receiver) = mpsc::channel();
    let (ready, waiting) = (EventFd::new()?, Arc::new(AtomicUsize::new(0)));
    let sender = CommandSender { commands: sender, ready: ready.clone(), waiting: Arc::clone(&waiting) };
    Ok((sender, CommandReceiver { ready, commands: receiver, waiting }))
}

impl CommandSender {
    /// Changes the peers, and waits until the watcher has done it.
    ///
    /// # Errors
    /// Fails if the watcher cannot make the change, has ended, or does not answer in time.
    pub(super) fn update_peers(&self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        let (done, answer) = mpsc::channel();
        let ended = "the thread that watches the underlay has ended";
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.commands.send(Command { tunnel, steps: steps.clone(), done }).map_err(|_| ended.to_owned())?;
        self.ready.notify();
        match answer.recv_timeout(ANSWER_TIMEOUT) {
            Ok(done) => done,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(ended.to_owned()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(format!("the thread that watches the underlay has not answered for {ANSWER_TIMEOUT:?}"))
            }
        }
    }
}

impl CommandReceiver {
    /// The next command, if one waits.
    pub(super) fn next(&self) -> Option<Command> {
        self.ready.drain();
        let command = self.commands.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(command)
    }

    /// Whether a command waits, so that long work should stop.
    pub(super) fn any_waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}
