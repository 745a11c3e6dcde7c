//! Datagrams for us on interfaces that nobody thought of: routes may be asymmetric.

use adit_linux::error::Error;
use adit_linux::packet_ring::Received;
use adit_linux::raw::RawSocket;
use adit_linux::virtio_net::VirtioNetHeader;
use adit_tunnel::Instant;

use super::coalesce::Coalescer;
use super::inbound::Up;

/// A raw socket for what no packet socket listens to.
pub(super) struct Strays {
    pub(super) socket: RawSocket,
    pub(super) up: Up,
    pub(super) coalescer: Coalescer,
}

impl Strays {
    /// Leaves what comes by these interfaces to others.
    pub(super) fn except(&self, devices: &[u32]) -> Result<(), Error> {
        self.socket.only_from_others_than(devices)
    }

    /// Hands up what waits; whether anything of a peer's was among it, so that its interface is the
    /// underlay's too.
    pub(super) fn take(&mut self, buffer: &mut [u8], now: Instant) -> bool {
        let mut found = false;
        while let Ok(len) = self.socket.recv(buffer) {
            let received = Received { header: VirtioNetHeader::PLAIN, datagram: 0..len };
            found |= self.up.datagram(buffer, &received, &mut self.coalescer, now);
            self.up.flush(buffer, &mut self.coalescer);
        }
        found
    }
}
