//! What several tests need.

use std::time::{Duration, Instant};

use adit_linux::netlink::{Events, Group, Netlink};
use adit_linux::netns::NetNs;

/// Far longer than anything here takes: what does not come within this does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Waits until an interface carries what is sent to it. A veth whose other end came up after it
/// drops everything until the kernel has got round to noticing.
pub(crate) fn await_running(netns: &NetNs, name: &str) {
    let (mut events, mut netlink) =
        netns.run(|| (Events::open(&[Group::Link]).unwrap(), Netlink::open().unwrap())).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !netlink.link(name).unwrap().is_some_and(|link| link.running) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(events.next(left).unwrap().is_some(), "{name} does not run");
    }
}
