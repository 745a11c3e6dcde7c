//! What the service manager is told, where one listens (sd_notify(3)): without `NOTIFY_SOCKET` in the environment
//! nothing is sent. A manager that cannot be told is no reason to stop forwarding, so failures are left alone; it
//! notices by itself, by its timeouts.

use sd_notify::NotifyState;

use crate::state::status::Status;

/// A packet sent now goes through; also after a reload.
pub fn ready(status: &Status) {
    send(&[NotifyState::Ready, NotifyState::Status(&in_a_line(status))]);
}

/// A new configuration is being read; [`ready`] ends it, whether or not it could be taken.
pub fn reloading() {
    // Without the time, a manager that waits for it takes the notice for one from before it asked.
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        send(&[NotifyState::Reloading, now]);
    }
}

/// The daemon ends; what forwards in the kernel may stay.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// The daemon has looked after its overlay and found it well. To be called more often than the manager's watchdog barks.
pub fn watchdog() {
    if sd_notify::watchdog_enabled().is_some() {
        send(&[NotifyState::Watchdog]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

/// What `systemctl status` shows: what stays true until the next reload. `adit status` tells the rest.
fn in_a_line(status: &Status) -> String {
    let site = &status.site;
    let peers = match status.peers.len() {
        1 => "1 peer".to_owned(),
        peers => format!("{peers} peers"),
    };
    format!("site {} on {}: {}, {peers}", site.name, site.device, site.dataplane)
}
