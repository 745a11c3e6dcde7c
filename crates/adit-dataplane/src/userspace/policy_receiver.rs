//! The receiver for peers that are left to the host's IP stack: a raw socket, which gets only what
//! the policies of IPsec let pass. It is open while there are such peers.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::sockets::raw::RawSocket;
use adit_tunnel::{Counters, Instant, Tunnel};

use super::catch_all::CatchAllReceiver;
use super::coalesce::Coalescer;
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
        let sources: Vec<Ipv4Addr> = peers.map(|(_, peer)| peer.underlay).collect();
        if sources.is_empty() {
            self.open = None;
        } else if let Err(error) = self.receive_from(&sources) {
            tracing::error!(%error, "cannot receive from the peers that a policy of IPsec covers");
        }
    }

    fn receive_from(&mut self, sources: &[Ipv4Addr]) -> Result<(), Error> {
        if self.open.is_none() {
            let mut deliverer = self.pool.deliverer(Arc::clone(&self.counters));
            deliverer.policy_checked = true;
            self.open = Some(CatchAllReceiver {
                socket: RawSocket::ipip(self.pool.underlay)?,
                coalescer: Coalescer::new(1, deliverer.host.takes_udp),
                deliverer,
            });
        }
        self.open.as_ref().map_or(Ok(()), |receiver| receiver.socket.only_from(sources))
    }

    /// Delivers what has arrived.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant) {
        if let Some(receiver) = &mut self.open {
            receiver.receive(buffer, now, |_| ());
        }
    }

    /// Readable when something has arrived.
    pub(super) fn ready(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref().map(|receiver| receiver.socket.as_fd())
    }
}
