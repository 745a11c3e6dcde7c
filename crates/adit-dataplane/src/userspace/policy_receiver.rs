//! The receiver for peers that are left to the host's IP stack: a raw socket, which gets only what
//! the policies of IPsec let pass. It is open while there are such peers.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_tunnel::{Counters, Instant, Tunnel};

use super::catch_all::{BATCH, CatchAllReceiver};
use super::receivers::ReceiverPool;

/// See the module.
pub(super) struct PolicyReceiver {
    pool: Arc<ReceiverPool>,
    counters: Arc<Counters>,
    open: Option<CatchAllReceiver>,
}

impl PolicyReceiver {
    pub(super) fn new(pool: Arc<ReceiverPool>, counters: Arc<Counters>) -> Self {
        Self { pool, counters, open: None }
    }

    /// Receives from those peers of `tunnel` that are left to the stack now.
    pub(super) fn follow(&mut self, tunnel: &Tunnel) {
        let peers = tunnel.peers().filter(|(index, _)| tunnel.is_left_to_stack(*index));
        let sources: Vec<IpAddr> = peers.flat_map(|(_, peer)| peer.underlay.iter()).collect();
        if sources.is_empty() {
            self.open = None;
        } else if let Err(error) = self.receive_from(&sources) {
            tracing::error!(%error, "cannot receive from the peers that a policy of IPsec covers");
        }
    }

    fn receive_from(&mut self, sources: &[IpAddr]) -> Result<(), Error> {
        if self.open.is_none() {
            let mut deliverer = self.pool.deliverer(Arc::clone(&self.counters));
            deliverer.policy_checked = true;
            self.open = Some(CatchAllReceiver::open(self.pool.underlay, self.pool.protocols, deliverer)?);
        }
        self.open.as_ref().map_or(Ok(()), |receiver| receiver.only_from(sources))
    }

    /// Delivers a batch of what has arrived.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant) {
        if let Some(receiver) = &mut self.open {
            receiver.receive(buffer, BATCH, now);
        }
    }

    /// Readable when something has arrived.
    pub(super) fn ready(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.iter().flat_map(CatchAllReceiver::ready)
    }
}
