//! The signals of a daemon: SIGTERM and SIGINT end it, SIGHUP reloads.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::ControlError;
use crate::overlay::OnExit;
use crate::state::paths::RuntimePaths;

/// All of them. None ends the process by itself once it is subscribed, and none is lost until it is
/// handled.
pub(crate) struct Signals {
    pub(crate) end: EndSignals,
    pub(crate) hangup: Signal,
}

/// The signals that end a daemon.
pub(crate) struct EndSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Subscribes all of them.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn subscribe(paths: &RuntimePaths) -> Result<Self, ControlError> {
        let subscribe = |kind| {
            signal(kind).map_err(|error| ControlError::file("take signals for", paths.socket(), error))
        };
        Ok(Self {
            end: EndSignals {
                terminate: subscribe(SignalKind::terminate())?,
                interrupt: subscribe(SignalKind::interrupt())?,
            },
            hangup: subscribe(SignalKind::hangup())?,
        })
    }
}

impl EndSignals {
    /// Waits for one of them. Returns what stays unless an option says otherwise.
    ///
    /// Cancel safety: no signal is lost.
    pub(crate) async fn received(&mut self) -> OnExit {
        tokio::select! {
            _ = self.terminate.recv() => OnExit::Keep,
            _ = self.interrupt.recv() => OnExit::Remove,
        }
    }
}
