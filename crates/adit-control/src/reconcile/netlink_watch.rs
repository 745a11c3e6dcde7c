//! Netlink's notifications about both sides of an overlay.

use std::os::fd::AsFd;
use std::time::Duration;

use adit_linux::error::{Error, Result};
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Events, Group};
use adit_linux::sockets::poll::{Waker, wait_readable};

use crate::reconcile::route_events::PendingEvents;

/// The groups of the inner side, which may also be the underlay's side.
const INNER_GROUPS: [Group; 5] =
    [Group::Link, Group::Address, Group::AddressV6, Group::Route, Group::RouteV6];
/// The groups of an underlay elsewhere. Its routes are the data plane's business: it looks up the
/// next hop of each peer.
const UNDERLAY_GROUPS: [Group; 2] = [Group::Link, Group::Address];

/// Subscriptions in the calling thread's network namespace, and on the inner side if that is
/// another.
pub(crate) struct NetlinkWatcher {
    subscriptions: Vec<Events>,
}

impl NetlinkWatcher {
    /// Subscribes to both sides.
    ///
    /// # Errors
    /// Fails if the inner namespace cannot be entered, or if netlink cannot be opened.
    pub(crate) fn open(inner: &NetScope) -> Result<Self> {
        let mut subscriptions = vec![inner.run(|| Events::open(&INNER_GROUPS))??];
        if inner.netns.is_some() {
            subscriptions.push(Events::open(&UNDERLAY_GROUPS)?);
        }
        Ok(Self { subscriptions })
    }

    /// Adds what has changed since the last call to `pending`. If nothing has, it waits for at most
    /// `timeout`, or until it is woken. Returns true if there was an event.
    ///
    /// # Errors
    /// Fails if a socket cannot be read: events are lost then.
    pub(crate) fn poll(
        &mut self,
        timeout: Duration,
        waker: &Waker,
        pending: &mut PendingEvents,
    ) -> Result<bool> {
        let sources: Vec<_> = self.subscriptions.iter().map(AsFd::as_fd).collect();
        wait_readable(&sources, waker, timeout)
            .map_err(|error| Error::new("cannot wait for changes of the network", error))?;
        self.drain(pending)
    }

    /// As [`Self::poll`], without waiting. In a storm of changes some are left for the next call.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub(crate) fn drain(&mut self, pending: &mut PendingEvents) -> Result<bool> {
        let mut any = false;
        for events in &mut self.subscriptions {
            for event in events.queued() {
                pending.add(event?);
                any = true;
            }
        }
        Ok(any)
    }
}
