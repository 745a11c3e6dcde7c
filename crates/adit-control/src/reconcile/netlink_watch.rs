//! What changes on both sides of an overlay, as the kernel tells it.

use std::os::fd::AsFd;
use std::time::Duration;

use adit_linux::error::{Error, Result};
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Events, Group};
use adit_linux::sockets::poll::readable_any_within;

use crate::reconcile::route_events::Hearsay;

/// Of the inside, which may be where the outside is.
const INSIDE: [Group; 3] = [Group::Link, Group::Address, Group::Route];
/// Of an outside that is elsewhere: which way leads to a peer is the data plane's business.
const OUTSIDE: [Group; 2] = [Group::Link, Group::Address];

/// Ears on the side of the calling thread, and on the inside where that is elsewhere.
pub(crate) struct Hearing {
    ears: Vec<Events>,
}

impl Hearing {
    pub(crate) fn open(inside: &NetScope) -> Result<Self> {
        let mut ears = vec![inside.run(|| Events::open(&INSIDE))??];
        if inside.netns.is_some() {
            ears.push(Events::open(&OUTSIDE)?);
        }
        Ok(Self { ears })
    }

    /// Takes note of what has changed since it was last asked, waiting for at most `patience`; whether there was
    /// anything.
    pub(crate) fn hears(&mut self, patience: Duration, heard: &mut Hearsay) -> Result<bool> {
        let sources: Vec<_> = self.ears.iter().map(AsFd::as_fd).collect();
        readable_any_within(&sources, patience)
            .map_err(|error| Error::new("cannot wait for what changes in the network", error))?;
        self.drain(heard)
    }

    /// The same without waiting.
    pub(crate) fn drain(&mut self, heard: &mut Hearsay) -> Result<bool> {
        let mut any = false;
        for events in &mut self.ears {
            while let Some(event) = events.try_next()? {
                heard.note(event);
                any = true;
            }
        }
        Ok(any)
    }
}
