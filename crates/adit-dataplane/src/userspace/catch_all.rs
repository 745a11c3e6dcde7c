//! Datagrams for us on interfaces that nobody thought of: routes may be asymmetric.

use adit_linux::error::Error;
use adit_linux::sockets::packet_ring::Received;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::virtio_net::{Checksum, PartialChecksum, VirtioNetHeader};
use adit_tunnel::Instant;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation, checksum, tcp, udp};

use super::coalesce::Coalescer;
use super::inbound::Up;

/// A raw socket for what no packet socket listens to.
pub(super) struct CatchAllReceiver {
    pub(super) socket: RawSocket,
    pub(super) up: Up,
    pub(super) coalescer: Coalescer,
}

impl CatchAllReceiver {
    /// Leaves what comes by these interfaces to others.
    pub(super) fn except(&self, devices: &[u32]) -> Result<(), Error> {
        self.socket.only_from_others_than(devices)
    }

    /// Hands up what waits, and tells of each datagram before; whether anything of a peer's was among it, so
    /// that its interface is the underlay's too.
    pub(super) fn take(&mut self, buffer: &mut [u8], now: Instant, mut tell: impl FnMut(&[u8])) -> bool {
        let tunnel = self.up.tunnel.load_full();
        let mut found = false;
        while let Ok(len) = self.socket.recv(buffer) {
            tell(buffer.get(..len).unwrap_or(buffer));
            let partial = buffer.get(..len).and_then(partial_checksum);
            let checksum = partial.map_or(Checksum::Unknown, Checksum::Partial);
            let header = VirtioNetHeader { checksum, ..VirtioNetHeader::PLAIN };
            let received = Received { header, datagram: 0..len };
            found |= self.up.datagram(&tunnel, buffer, &received, &mut self.coalescer, now);
            self.up.flush(buffer, &mut self.coalescer);
        }
        found
    }
}

/// What another interface of this machine, or the machine's host, left for a device to complete: the inner
/// checksum is the sum of the pseudo-header alone. A raw socket does not tell, so it is looked at. (One whole
/// checksum in 65,536 looks so too; completing it gives the same again.)
fn partial_checksum(outer: &[u8]) -> Option<PartialChecksum> {
    let outer = Ipv4Packet::parse(outer, Validation::Datapath).ok()?;
    let inner = Ipv4Packet::parse(outer.payload(), Validation::Datapath).ok()?;
    let offset = match inner.protocol() {
        Protocol::TCP => tcp::CHECKSUM_OFFSET,
        Protocol::UDP => udp::CHECKSUM_OFFSET,
        _ => return None,
    };
    if inner.is_fragment() {
        return None;
    }
    let segment = inner.payload();
    let len = u16::try_from(segment.len()).ok()?;
    let pseudo = checksum::pseudo_header_v4(inner.source(), inner.destination(), inner.protocol(), len);
    let found = segment.get(offset..offset + 2)?;
    let start = (outer.header_len() + inner.header_len()) as u16;
    (found == pseudo.fold().to_be_bytes()).then_some(PartialChecksum { start, offset: offset as u16 })
}
