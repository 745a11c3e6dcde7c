//! Signals as something to read: they interrupt nothing and are handled when their turn comes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::signal::{self, SigSet};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};
use crate::process::wait;

/// A signal that an operator or an init sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP.
    Hangup,
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Hangup, Self::Interrupt, Self::Terminate];

    fn number(self) -> signal::Signal {
        match self {
            Self::Hangup => signal::Signal::SIGHUP,
            Self::Interrupt => signal::Signal::SIGINT,
            Self::Terminate => signal::Signal::SIGTERM,
        }
    }
}

/// Signals that are read instead of delivered. They stay blocked when this is dropped, so that one
/// that comes during the shutdown does not cut it short.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks `signals` in the calling thread and those it starts from now on: call this before
    /// any is started, or the others still get them.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn block(signals: &[Signal]) -> Result<Self> {
        let failed = |errno: nix::Error| Error::new("cannot block signals", errno.into());
        let set: SigSet = signals.iter().map(|signal| signal.number()).collect();
        set.thread_block().map_err(failed)?;
        SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self).map_err(failed)
    }

    /// The next signal, waiting for at most `patience`, or for ever; `None` when none came.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn next(&self, patience: Option<Duration>) -> io::Result<Option<Signal>> {
        if !wait(&self.0, patience)? {
            return Ok(None);
        }
        // Another thread may have read it meanwhile.
        let Some(info) = self.0.read_signal()? else { return Ok(None) };
        let number = info.ssi_signo.cast_signed();
        Ok(Signal::ALL.into_iter().find(|signal| signal.number() as i32 == number))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
