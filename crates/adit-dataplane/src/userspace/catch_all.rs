//! The catch-all receiver: a raw socket for each protocol and address. It gets datagrams that
//! arrive by an interface without a packet socket, since routes may be asymmetric.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use adit_linux::error::Error;
use adit_linux::sockets::packet_ring::Received;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::virtio_net::{Checksum, PartialChecksum, VirtioNetHeader};
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_tunnel::{Instant, Tunnel, UnderlayAddresses};
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::ipv6::{self, Ipv6Packet};
use adit_wire::{Protocol, Validation, checksum, tcp, udp};

use super::coalesce::Coalescer;
use super::dedup::HandoverDedup;
use super::inbound::Deliverer;

/// Datagrams that are delivered before other work gets its turn.
pub(super) const BATCH: usize = 256;
/// More datagrams than the socket can hold.
const ALL: usize = 1 << 16;

/// See the module.
pub(super) struct CatchAllReceiver {
    sockets: Vec<RawSocket>,
    deliverer: Deliverer,
    coalescer: Coalescer,
}

impl CatchAllReceiver {
    /// Opens the sockets at our underlay addresses.
    pub(super) fn open(
        underlay: UnderlayAddresses,
        protocols: &[TunnelProtocol],
        deliverer: Deliverer,
    ) -> Result<Self, Error> {
        let ends =
            underlay.iter().flat_map(|address| protocols.iter().map(move |protocol| (address, *protocol)));
        let sockets = ends.map(|(address, protocol)| RawSocket::tunneled(address, protocol));
        let coalescer = Coalescer::new(1, deliverer.host.takes_udp);
        Ok(Self { sockets: sockets.collect::<Result<_, _>>()?, deliverer, coalescer })
    }

    /// Readable when a datagram has arrived.
    pub(super) fn ready(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    /// Receives only from these sources from now on.
    pub(super) fn only_from(&self, sources: &[IpAddr]) -> Result<(), Error> {
        self.sockets.iter().try_for_each(|socket| socket.only_from(sources))
    }

    /// Ignores what arrives by these interfaces from now on.
    pub(super) fn exclude(&self, devices: &[u32]) -> Result<(), Error> {
        self.sockets.iter().try_for_each(|socket| socket.only_from_others_than(devices))
    }

    /// Delivers the datagrams that wait, at most `limit` of each protocol. Returns true if any came
    /// from a peer: its interface then belongs to the underlay.
    pub(super) fn receive(&mut self, buffer: &mut [u8], limit: usize, now: Instant) -> bool {
        (0..self.sockets.len()).fold(false, |any, at| any | self.receive_at(at, buffer, limit, now, |_| ()))
    }

    /// Delivers all datagrams that wait. Returns those of them that another socket, which has
    /// `queued` of them, receives too.
    pub(super) fn hand_over(&mut self, buffer: &mut [u8], queued: usize, now: Instant) -> HandoverDedup {
        let mut dedup = HandoverDedup::default();
        for at in 0..self.sockets.len() {
            let before = dedup.len();
            self.receive_at(at, buffer, ALL, now, |outer| dedup.record(outer));
            dedup.keep_last(queued, before);
        }
        dedup
    }

    fn receive_at(
        &mut self,
        at: usize,
        buffer: &mut [u8],
        limit: usize,
        now: Instant,
        mut record: impl FnMut(&[u8]),
    ) -> bool {
        let Self { sockets, deliverer, coalescer } = self;
        let tunnel = deliverer.tunnel.load_full();
        let mut any = false;
        for _ in 0..limit {
            let Some(Ok(len)) = sockets.get(at).map(|socket| socket.recv(buffer)) else { break };
            record(buffer.get(..len).unwrap_or(buffer));
            if deliverer.policy_checked && !is_left_to_stack(&tunnel, buffer) {
                continue;
            }
            let partial = buffer.get(..len).and_then(partial_checksum);
            let checksum = partial.map_or(Checksum::Unknown, Checksum::Partial);
            let header = VirtioNetHeader { checksum, ..VirtioNetHeader::PLAIN };
            let received = Received { header, datagram: 0..len };
            any |= deliverer.datagram(&tunnel, buffer, &received, coalescer, now);
            deliverer.flush(buffer, coalescer);
        }
        any
    }
}

/// Whether the source of a datagram is a peer that is left to the host's stack. Another receiver
/// has the datagrams of all others.
fn is_left_to_stack(tunnel: &Tunnel, outer: &[u8]) -> bool {
    let source: Option<IpAddr> = if ipv6::is_ipv6(outer) {
        outer.get(8..).and_then(|rest| rest.first_chunk::<16>()).map(|source| (*source).into())
    } else {
        outer.get(12..).and_then(|rest| rest.first_chunk::<4>()).map(|source| (*source).into())
    };
    let peer = source.and_then(|source| tunnel.lookup_outer(source));
    peer.is_some_and(|peer| tunnel.is_left_to_stack(peer))
}

/// The inner checksum, if another interface of this machine or the machine's host left it for a
/// device to complete: the field then holds the sum of the pseudo-header alone. A raw socket does
/// not tell, so this looks. One complete checksum in 65,536 looks the same; completing it again
/// changes nothing.
fn partial_checksum(bytes: &[u8]) -> Option<PartialChecksum> {
    // A raw socket of IPv6 removes extension headers.
    let (protocol, inner) = if ipv6::is_ipv6(bytes) {
        let outer = Ipv6Packet::parse(bytes, Validation::Datapath).ok()?;
        (outer.next_header(), outer.payload())
    } else {
        let outer = Ipv4Packet::parse(bytes, Validation::Datapath).ok()?;
        (outer.protocol(), outer.payload())
    };
    let (protocol, segment, pseudo) = match protocol {
        Protocol::IPV6 => {
            let inner = Ipv6Packet::parse(inner, Validation::Datapath).ok()?;
            let (protocol, segment) = (inner.next_header(), inner.payload());
            let len = u32::try_from(segment.len()).ok()?;
            let (source, destination) = (inner.source(), inner.destination());
            (protocol, segment, checksum::pseudo_header_v6(source, destination, protocol, len))
        }
        _ => {
            let inner = Ipv4Packet::parse(inner, Validation::Datapath).ok()?;
            if inner.is_fragment() {
                return None;
            }
            let (protocol, segment) = (inner.protocol(), inner.payload());
            let len = u16::try_from(segment.len()).ok()?;
            let (source, destination) = (inner.source(), inner.destination());
            (protocol, segment, checksum::pseudo_header_v4(source, destination, protocol, len))
        }
    };
    let offset = match protocol {
        Protocol::TCP => tcp::CHECKSUM_OFFSET,
        Protocol::UDP => udp::CHECKSUM_OFFSET,
        _ => return None,
    };
    let found = segment.get(offset..offset + 2)?;
    // Both are parts of the same bytes.
    let start = (segment.as_ptr().addr() - bytes.as_ptr().addr()) as u16;
    (found == pseudo.fold().to_be_bytes()).then_some(PartialChecksum { start, offset: offset as u16 })
}
