//! A timeout and a wait that several test programs use.

use std::time::{Duration, Instant};

use adit_linux::netlink::{Events, Group, Netlink};
use adit_linux::netns::NetNs;

/// How long a test waits for an event. Every event here takes far less.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Waits until an interface carries traffic. A veth whose other end came up after it drops
/// everything until the kernel has processed that.
pub(crate) fn await_running(netns: &NetNs, name: &str) {
    let (mut events, mut netlink) =
        netns.run(|| (Events::open(&[Group::Link]).unwrap(), Netlink::open().unwrap())).unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !netlink.link(name).unwrap().is_some_and(|link| link.running) {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(events.next(left).unwrap().is_some(), "{name} is not running");
    }
}
