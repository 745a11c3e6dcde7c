//! Receivers behind an offload: a packet socket on each underlay interface, and the catch-all
//! receiver for every other interface.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_tunnel::Instant;

use super::catch_all::{BATCH, CatchAllReceiver};
use super::offload::Interfaces;
use super::receivers::ReceiverPool;

/// Bytes of the largest datagram, rounded up.
const BUFFER_LEN: usize = 65_536;

/// See the module.
pub(super) struct InterfaceReceivers {
    pool: Arc<ReceiverPool>,
    catch_all: CatchAllReceiver,
    /// Interfaces that have a packet socket.
    bound: Vec<u32>,
    any_interface: bool,
}

impl InterfaceReceivers {
    pub(super) fn new(pool: Arc<ReceiverPool>, catch_all: CatchAllReceiver) -> Self {
        Self { pool, catch_all, bound: Vec::new(), any_interface: false }
    }

    /// Whether a peer's datagram has arrived by an interface that no route leads to. From then on
    /// any interface may belong to the underlay.
    pub(super) fn any_interface(&self) -> bool {
        self.any_interface
    }

    /// Binds a packet socket to each of these interfaces that has none.
    ///
    /// Until the catch-all receiver excludes an interface, both sockets get its datagrams. So this
    /// delivers what the catch-all receiver has, and the new receiver drops its copies.
    pub(super) fn bind(&mut self, interfaces: &Interfaces) -> Result<(), Error> {
        for device in interfaces.keys() {
            if self.bound.contains(device) {
                continue;
            }
            let rings = self.pool.bind(Some(*device))?;
            self.bound.push(*device);
            self.catch_all.exclude(&self.bound)?;
            let queued = rings.queued()?;
            let now = self.pool.clock.now();
            let dedup = self.catch_all.hand_over(&mut vec![0; BUFFER_LEN], queued, now);
            rings.start(&self.pool, &dedup)?;
        }
        Ok(())
    }

    /// Receives a batch from all interfaces without a packet socket. Returns true if the underlay's
    /// interfaces must be looked up again.
    pub(super) fn receive_catch_all(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let is_news = self.catch_all.receive(buffer, BATCH, now) && !self.any_interface;
        self.any_interface |= is_news;
        is_news
    }

    /// Readable when the catch-all receiver has a datagram.
    pub(super) fn ready(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.catch_all.ready()
    }
}
