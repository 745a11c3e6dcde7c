//! The interface that all data planes have.

use std::fmt;
use std::sync::Arc;

use adit_tunnel::{TableDelta, Totals, Tunnel};

use crate::host_rules::HostRules;

/// The kind of a data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneKind {
    /// Programs inside the kernel, with userspace behind them.
    Ebpf,
    /// TUN and packet sockets.
    Userspace,
    /// Linux's own tunnel drivers.
    Kernel,
}

impl PlaneKind {
    /// Its name, as in the configuration and in `status`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
        }
    }
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// The data planes that carry each direction at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedBy {
    /// From the host to peers.
    pub tx: PlaneKind,
    /// From peers to the host.
    pub rx: PlaneKind,
    /// Why another plane than the one that runs carries a direction.
    pub reason: Option<String>,
}

/// A running data plane. Dropping it shuts it down. Whether the tunnel interface stays depends on
/// how it was opened.
pub trait DataPlane: Send + Sync {
    /// Its kind.
    fn kind(&self) -> PlaneKind;

    /// The tunnel that decides now.
    fn tunnel(&self) -> Arc<Tunnel>;

    /// Changes the peers, and what the tunnel knows of the machine, while packets flow. `tunnel`
    /// must come from the current tunnel by these steps, or by `Tunnel::on_host` without any. Peers
    /// that stay as they are notice nothing. Every other datagram meets the old or the new
    /// configuration.
    ///
    /// # Errors
    /// Fails if the data plane must be started anew for this change; the error says why. A part of
    /// the change may be done.
    fn update_peers(&mut self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        let (_, _) = (tunnel, steps);
        Err("this data plane cannot change its peers while it runs".to_owned())
    }

    /// All counts since it started.
    fn totals(&self) -> Totals;

    /// The part of them that ends with it. Counts of programs go on in their successors and are not
    /// included.
    fn own_totals(&self) -> Totals;

    /// The data planes that carry at the moment, by what [`Self::totals`] has counted lately.
    fn carried_by(&self) -> CarriedBy {
        CarriedBy { tx: self.kind(), rx: self.kind(), reason: None }
    }

    /// What the host's own rules, its firewall and the policies of IPsec, mean for it now.
    fn host_rules(&self) -> Arc<HostRules> {
        Arc::default()
    }

    /// Checks that everything of it is still in place.
    ///
    /// # Errors
    /// Fails if something is missing; the error says what.
    fn check(&self) -> Result<(), String>;

    /// The time now, by the clock in which `totals` says when a peer last sent.
    fn now(&self) -> adit_tunnel::Instant;

    /// Stops all threads and waits for them.
    fn shutdown(&mut self);
}
