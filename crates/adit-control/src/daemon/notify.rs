//! Notifications to the service manager (sd_notify(3)).
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. Failures are ignored: they are no
//! reason to stop forwarding, and the manager's timeouts notice them.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::state::status::Status;

/// The overlay is up, or a reload has ended. A packet that is sent now goes through.
pub fn ready(status: &Status) {
    send(&[NotifyState::Ready, NotifyState::Status(&summary(status))]);
}

/// The overlay cannot come up yet, for want of `what`. The manager's limit for a start is extended
/// to this time from now.
pub fn waiting(what: &str, time: Duration) {
    let usec = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Status(&format!("waiting for {what}")), NotifyState::ExtendTimeoutUsec(usec)]);
}

/// A reload begins. [`ready`] ends it, whether or not it succeeded.
pub fn reloading() {
    // Without the time, a manager that waits for the notice takes it for one from before its
    // request.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// The daemon ends. What forwards in the kernel may stay.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The daemon works. It has to be called several times in each `WatchdogSec` of the manager.
pub fn watchdog() {
    if sd_notify::watchdog_enabled().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

/// Sends without waiting: a manager that does not read must not stop the daemon.
fn send(states: &[NotifyState<'_>]) {
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    let sent = manager().map(|manager| {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(text.as_bytes(), &manager?)
    });
    if let Some(Err(error)) = sent {
        tracing::debug!(%error, "the service manager was not told");
    }
}

/// The manager's socket: a path, or a name in the abstract namespace.
fn manager() -> Option<io::Result<SocketAddr>> {
    let name = std::env::var_os("NOTIFY_SOCKET")?;
    Some(match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    })
}

/// What `systemctl status` shows: only what stays true until the next reload.
fn summary(status: &Status) -> String {
    let site = &status.site;
    let peers = match status.peers.len() {
        1 => "1 peer".to_owned(),
        peers => format!("{peers} peers"),
    };
    format!("site {} on {}: {}, {peers}", site.name, site.device, site.dataplane)
}
