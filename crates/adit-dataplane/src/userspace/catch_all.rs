//! The catch-all receiver: a raw socket for datagrams that arrive by an interface without a packet
//! socket, since routes may be asymmetric.

use std::net::Ipv4Addr;

use adit_linux::error::Error;
use adit_linux::sockets::packet_ring::Received;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::virtio_net::{Checksum, PartialChecksum, VirtioNetHeader};
use adit_tunnel::{Instant, Tunnel};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::{Protocol, Validation, checksum, tcp, udp};

use super::coalesce::Coalescer;
use super::inbound::Deliverer;

/// Datagrams that are delivered before other work gets its turn.
pub(super) const BATCH: usize = 256;
/// More datagrams than the socket can hold.
pub(super) const ALL: usize = 1 << 16;

/// See the module.
pub(super) struct CatchAllReceiver {
    pub(super) socket: RawSocket,
    pub(super) deliverer: Deliverer,
    pub(super) coalescer: Coalescer,
}

impl CatchAllReceiver {
    /// Ignores what arrives by these interfaces from now on.
    pub(super) fn exclude(&self, devices: &[u32]) -> Result<(), Error> {
        self.socket.only_from_others_than(devices)
    }

    /// Delivers the datagrams that wait, at most `limit`, and calls `record` with each before.
    /// Returns true if any came from a peer: its interface then belongs to the underlay.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        limit: usize,
        now: Instant,
        mut record: impl FnMut(&[u8]),
    ) -> bool {
        let tunnel = self.deliverer.tunnel.load_full();
        let mut any = false;
        for _ in 0..limit {
            let Ok(len) = self.socket.recv(buffer) else { break };
            record(buffer.get(..len).unwrap_or(buffer));
            if self.deliverer.policy_checked && !is_left_to_stack(&tunnel, buffer) {
                continue;
            }
            let partial = buffer.get(..len).and_then(partial_checksum);
            let checksum = partial.map_or(Checksum::Unknown, Checksum::Partial);
            let header = VirtioNetHeader { checksum, ..VirtioNetHeader::PLAIN };
            let received = Received { header, datagram: 0..len };
            any |= self.deliverer.datagram(&tunnel, buffer, &received, &mut self.coalescer, now);
            self.deliverer.flush(buffer, &mut self.coalescer);
        }
        any
    }
}

/// Whether the source of a datagram is a peer that is left to the host's stack. Another receiver
/// has the datagrams of all others.
fn is_left_to_stack(tunnel: &Tunnel, outer: &[u8]) -> bool {
    let source = outer.get(12..).and_then(|rest| rest.first_chunk::<4>());
    let peer = source.and_then(|source| tunnel.lookup_outer(Ipv4Addr::from(*source)));
    peer.is_some_and(|peer| tunnel.is_left_to_stack(peer))
}

/// The inner checksum, if another interface of this machine or the machine's host left it for a
/// device to complete: the field then holds the sum of the pseudo-header alone. A raw socket does
/// not tell, so this looks. One complete checksum in 65,536 looks the same; completing it again
/// changes nothing.
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
