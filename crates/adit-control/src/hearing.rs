//! What changes on both sides of an overlay, as the kernel tells it.

use std::os::fd::AsFd;
use std::time::Duration;

use adit_linux::error::{Error, Result};
use adit_linux::inside::Inside;
use adit_linux::netlink::{Events, Group};
use adit_linux::poll::readable_any_within;

const GROUPS: [Group; 3] = [Group::Link, Group::Address, Group::Route];

/// Ears on the side of the calling thread, and on the inside where that is elsewhere.
pub(crate) struct Hearing {
    ears: Vec<Events>,
}

impl Hearing {
    pub(crate) fn open(inside: &Inside) -> Result<Self> {
        let mut ears = vec![Events::open(&GROUPS)?];
        if inside.netns.is_some() {
            ears.push(inside.run(|| Events::open(&GROUPS))??);
        }
        Ok(Self { ears })
    }

    /// Whether anything has changed since it was last asked, waiting for at most `patience`.
    pub(crate) fn hears(&mut self, patience: Duration) -> Result<bool> {
        let sources: Vec<_> = self.ears.iter().map(AsFd::as_fd).collect();
        readable_any_within(&sources, patience)
            .map_err(|error| Error::new("cannot wait for what changes in the network", error))?;
        self.drain()
    }

    /// Forgets what it has heard; whether there was anything.
    pub(crate) fn drain(&mut self) -> Result<bool> {
        let mut any = false;
        for events in &mut self.ears {
            while events.try_next()?.is_some() {
                any = true;
            }
        }
        Ok(any)
    }
}
