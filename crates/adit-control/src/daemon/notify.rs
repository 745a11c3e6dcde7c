//! Notifications to the service manager (sd_notify(3)).
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent. Failures are ignored: they are no
//! reason to stop forwarding, and the manager's timeouts notice them.

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

fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
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
