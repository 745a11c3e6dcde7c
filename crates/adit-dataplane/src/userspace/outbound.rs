//! The sender: one thread per receiver on the hidden end of the tunnel interface. It takes
//! datagrams and GSO packets, asks the tunnel, segments, puts the outer header before each
//! datagram, and sends in batches.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_linux::family::Family;
use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::frames::{FrameSender, REFUSED_LEN, Sent};
use adit_linux::sockets::packet_ring::{PacketRing, Ready};
use adit_linux::sockets::poll::{Waker, wait_readable};
use adit_linux::sockets::virtio_net::{Checksum, VirtioNetHeader};
use adit_tunnel::{Counters, DropReason, Dropped, Encapsulated, Inner, Instant, Origin, PeerIndex, Tunnel};
use adit_wire::checksum::ChecksumState;
use adit_wire::encapsulation::OuterHeader;
use adit_wire::ipv4::{self, Ipv4Packet};
use adit_wire::ipv6::{self, FragmentsV6, Ipv6Packet};
use adit_wire::validation::Validation;
use adit_wire::{fragment, tcp};
use arc_swap::ArcSwap;

use super::busy_poll::BusyPoll;
use super::icmp_replies::ReplySender;
use super::raw_senders::RawSenders;
use super::segment::GsoPacket;
use super::tx_path::{BATCH, Link, TxPath, family_of};
use crate::clock::Clock;
use crate::liveness::{Heartbeat, LONGEST_SLEEP};
use crate::next_hop::{LinkDevice, NextHops};

/// Datagrams that one system call sends through the kernel's routing.
pub(super) const RAW_BATCH: usize = 16;
/// The largest IPv4 datagram.
pub(super) const MAX_DATAGRAM: usize = 65_535;
/// Bytes of the largest datagram with its headers, rounded up.
const LARGE: usize = 66_000;

/// What the thread works with.
pub(super) struct Outbound {
    pub(super) number: usize,
    pub(super) tunnel: Arc<ArcSwap<Tunnel>>,
    pub(super) counters: Arc<Counters>,
    pub(super) next_hops: Arc<NextHops>,
    /// The firewall mark of what leaves.
    pub(super) mark: u32,
    pub(super) raw: RawSenders,
    /// ICMP errors to the hosts inside.
    pub(super) replies: ReplySender,
    pub(super) link: Option<Link>,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) device_gone: Arc<AtomicBool>,
    pub(super) waker: Waker,
}

impl Outbound {
    /// Works until the plane stops or the tunnel interface is gone. `rings` are those of a receiver
    /// on the hidden end.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(super) fn run(mut self, mut rings: Vec<PacketRing>, heartbeat: &Heartbeat) -> Result<(), String> {
        let mut large = vec![0u8; LARGE].into_boxed_slice();
        let mut scratch = vec![0u8; MAX_DATAGRAM].into_boxed_slice();
        let mut busy_poll = BusyPoll::new();
        while !self.stop.load(Ordering::Relaxed) {
            heartbeat.beat();
            let mut count = 0;
            for ring in &mut rings {
                count += self.batch(ring, &mut large, &mut scratch);
            }
            if count > 0 {
                busy_poll.reset();
            } else if !busy_poll.spin() {
                // An interface that was set down is an error that clears; one that was deleted
                // stays away.
                rings.iter().for_each(PacketRing::clear_error);
                if rings.iter().any(PacketRing::is_unbound) {
                    tracing::error!("the tunnel interface is gone");
                    self.device_gone.store(true, Ordering::Relaxed);
                    break;
                }
                wait_readable(&rings, &self.waker, LONGEST_SLEEP)
                    .map_err(|error| format!("cannot wait for packets of the host: {error}"))?;
                busy_poll.reset();
            }
        }
        Ok(())
    }

    /// Forwards the packets that wait, at most a batch. Returns their number.
    fn batch(&mut self, receiver: &mut PacketRing, large: &mut [u8], scratch: &mut [u8]) -> usize {
        let current = Arc::clone(&self.tunnel);
        // Loading writes, locks and waits for nothing. Another tunnel may take this one's place
        // meanwhile.
        let tunnel = current.load();
        let mut now = None;
        let mut count = 0;
        while count < BATCH {
            let Some(ready) = receiver.take() else { break };
            count += 1;
            let now = *now.get_or_insert_with(|| self.clock.now());
            match ready {
                Ready::Datagram(received) => {
                    let bytes = receiver.bytes(received.datagram);
                    self.packet(&tunnel, &received.header, bytes, scratch, now);
                }
                Ready::Large { link } => match receiver.receive_large(large, link) {
                    Some(received) => {
                        let bytes = large.get(received.datagram).unwrap_or_default();
                        self.packet(&tunnel, &received.header, bytes, scratch, now);
                    }
                    // A GSO packet of a kind that the virtio-net header cannot describe.
                    None => self.counters.count_drop(DropReason::InnerMalformed, Dropped::at(now), 1),
                },
                Ready::Nothing => {
                    self.counters.count_drop(DropReason::InnerMalformed, Dropped::at(now), 1);
                }
            }
        }
        if count > 0 {
            receiver.release();
            self.flush();
        }
        count
    }

    #[inline]
    fn packet(
        &mut self,
        tunnel: &Tunnel,
        header: &VirtioNetHeader,
        bytes: &[u8],
        scratch: &mut [u8],
        now: Instant,
    ) {
        let Ok(gso_packet) = GsoPacket::new(bytes, header) else {
            let dropped = Dropped::datagram(bytes, now);
            self.counters.count_drop(DropReason::InnerMalformed, dropped, 1);
            return;
        };
        let inner = Inner {
            bytes,
            largest_datagram: gso_packet.largest(),
            segments: gso_packet.count() as u16,
            origin: Origin::Unknown,
        };
        match tunnel.encapsulate(&inner, now, &self.counters) {
            Encapsulated::Forward { peer, outer, max_mss } => {
                let complete = matches!(header.checksum, Checksum::Unknown | Checksum::Verified);
                self.forward(tunnel, peer, &outer, &gso_packet, max_mss, complete);
            }
            Encapsulated::Fragment { peer, max_datagram, outer, .. } => {
                self.fragment(tunnel, peer, &outer, &gso_packet, max_datagram, scratch);
            }
            Encapsulated::ForwardInFragments { peer, max_datagram, outer } => {
                self.forward_in_fragments(tunnel, peer, &outer, &gso_packet, max_datagram, scratch);
            }
            Encapsulated::Reply { reply, .. } => {
                let len = gso_packet.write_whole(0, scratch);
                self.replies.queue(&reply, &scratch[..len]);
            }
            Encapsulated::Drop(_) => {}
        }
    }

    #[inline]
    fn forward(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        outer: &OuterHeader,
        gso_packet: &GsoPacket<'_>,
        max_mss: Option<u16>,
        complete: bool,
    ) {
        let Some(path) = self.tx_path(tunnel, peer, outer, outer.len() + gso_packet.largest()) else {
            self.count_unsent(peer, gso_packet);
            return;
        };
        let state = if complete { ChecksumState::Complete } else { ChecksumState::Partial };
        for index in 0..gso_packet.count() {
            let len = gso_packet.datagram_len(index);
            let header = outer.for_segment(len as u16, nth_identification(outer, index));
            let counters = &self.counters;
            path.send(&mut self.link, &mut self.raw, header.as_bytes(), len, |inner| {
                let partial = gso_packet.write(index, inner);
                if let Some(max_mss) = max_mss
                    && tcp::clamp_mss(&mut inner[..len], max_mss, state).is_some()
                {
                    counters.count_mss_clamped(peer);
                }
                partial
            });
        }
    }

    /// Fragments the inner datagram (RFC 4459 section 3.1), so that its destination reassembles it
    /// and not the peer.
    #[cold]
    fn fragment(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        outer: &OuterHeader,
        gso_packet: &GsoPacket<'_>,
        max_datagram: usize,
        scratch: &mut [u8],
    ) {
        let Some(path) = self.tx_path(tunnel, peer, outer, outer.len() + max_datagram) else {
            self.count_unsent(peer, gso_packet);
            return;
        };
        for index in 0..gso_packet.count() {
            // A fragment's checksum cannot be completed later, because it covers the whole
            // datagram.
            let len = gso_packet.write_whole(index, scratch);
            let Some(pieces) = fragments_v4(&scratch[..len], max_datagram) else {
                let dropped = Dropped::datagram(&scratch[..len], self.clock.now()).of_peer(Some(peer));
                self.counters.count_drop(DropReason::InnerMalformed, dropped, 1);
                continue;
            };
            for piece in pieces {
                let id = if outer.dont_fragment() { 0 } else { tunnel.identifications(peer, 1) };
                let header = outer.for_segment(piece.len() as u16, id);
                path.send(&mut self.link, &mut self.raw, header.as_bytes(), piece.len(), |inner| {
                    let (header, payload) = inner[..piece.len()].split_at_mut(piece.header().len());
                    header.copy_from_slice(piece.header());
                    payload.copy_from_slice(&scratch[piece.payload()]);
                    None
                });
            }
        }
    }

    /// Sends a packet of IPv6 in fragments of the outer datagram, which the peer reassembles: a
    /// path must carry 1280 bytes, whatever it leaves (RFC 4213 section 3.2.2, RFC 2473 section
    /// 7.1).
    #[cold]
    fn forward_in_fragments(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        outer: &OuterHeader,
        gso_packet: &GsoPacket<'_>,
        max_datagram: usize,
        scratch: &mut [u8],
    ) {
        let Some(path) = self.tx_path(tunnel, peer, outer, max_datagram) else {
            self.count_unsent(peer, gso_packet);
            return;
        };
        for index in 0..gso_packet.count() {
            let (front, inner) = scratch.split_at_mut(outer.len());
            let len = gso_packet.write_whole(index, inner);
            let header = outer.for_segment(len as u16, nth_identification(outer, index));
            front.copy_from_slice(header.as_bytes());
            let whole = &scratch[..outer.len() + len];
            let mut send = |header: &[u8], payload: Range<usize>| {
                let payload = &whole[payload];
                path.send(&mut self.link, &mut self.raw, header, payload.len(), |to| {
                    to[..payload.len()].copy_from_slice(payload);
                    None
                });
            };
            let is_sent = if ipv6::is_ipv6(whole) {
                let identification = tunnel.fragment_identification(peer);
                fragments_v6(whole, max_datagram, identification)
                    .map(|pieces| pieces.for_each(|piece| send(&piece.header, piece.payload)))
            } else {
                fragments_v4(whole, max_datagram)
                    .map(|pieces| pieces.for_each(|piece| send(piece.header(), piece.payload())))
            };
            if is_sent.is_none() {
                let dropped = Dropped::datagram(&whole[outer.len()..], self.clock.now()).of_peer(Some(peer));
                self.counters.count_drop(DropReason::UnderlaySendFailed, dropped, 1);
            }
        }
    }

    #[cold]
    fn count_unsent(&self, peer: PeerIndex, gso_packet: &GsoPacket<'_>) {
        let datagrams = gso_packet.count() as u64;
        let dropped = Dropped::datagram(gso_packet.bytes(), self.clock.now()).of_peer(Some(peer));
        self.counters.count_drop(DropReason::UnderlaySendFailed, dropped, datagrams);
    }

    /// How datagrams of `len` bytes leave for `peer` now. `None`: not at all, because our address
    /// is not this host's.
    #[inline]
    fn tx_path(
        &mut self,
        tunnel: &Tunnel,
        peer: PeerIndex,
        outer: &OuterHeader,
        len: usize,
    ) -> Option<TxPath> {
        let family = family_of(outer.as_bytes());
        if self.next_hops.is_source_missing(family) {
            return None;
        }
        let Some((device, mac)) = self.next_hops.get(peer) else {
            // It is not shown that the kernel applies a policy of IPsec to IPv6 packets whose
            // header we write, so a peer that has one gets nothing.
            let is_refused = family == Family::V6 && tunnel.is_left_to_stack(peer);
            return (!is_refused).then_some(TxPath::Routed);
        };
        let visible = self.next_hops.tapped();
        let fits = |link: &Link| link.device.index == device.index && link.visible == visible;
        if !self.link.as_ref().is_some_and(fits) {
            // Sized for the path, not for this datagram: later ones may be larger.
            let capacity = usize::from(tunnel.path_mtu(peer).mtu).max(len);
            self.reopen(device, capacity, visible);
        }
        match &self.link {
            Some(link) if link.device.index == device.index && link.sender.capacity() >= len => {
                Some(TxPath::Link(mac, device.mac))
            }
            _ => Some(TxPath::Routed),
        }
    }

    #[cold]
    fn reopen(&mut self, device: LinkDevice, capacity: usize, visible: bool) {
        self.flush();
        self.link = None;
        match Link::open(device, self.mark, self.number, capacity.max(1500), visible) {
            Ok(link) => self.link = Some(link),
            // Logged once per interface: its next hops stay unused until the interface changes.
            Err(error) => {
                tracing::warn!(%error, "the kernel routes what leaves the tunnel");
                self.next_hops.set_device(None);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            link.sender.flush();
            count_refused(&self.counters, link.sender.as_mut(), &self.tunnel, self.clock);
        }
        for sender in self.raw.iter_mut() {
            sender.flush();
            count_refused(&self.counters, sender, &self.tunnel, self.clock);
        }
        self.replies.flush();
    }
}

fn fragments_v4(datagram: &[u8], max_len: usize) -> Option<fragment::Fragments<'_>> {
    let datagram = Ipv4Packet::parse(datagram, Validation::Datapath).ok()?;
    fragment::fragments(&datagram, max_len).ok()
}

fn fragments_v6(packet: &[u8], max_len: usize, identification: u32) -> Option<FragmentsV6> {
    let packet = Ipv6Packet::parse(packet, Validation::Datapath).ok()?;
    FragmentsV6::new(&packet, max_len, identification)
}

fn count_refused(counters: &Counters, sender: &mut dyn FrameSender, tunnel: &ArcSwap<Tunnel>, clock: Clock) {
    let sent = sender.take_sent();
    if sent.refused > 0 {
        count_lost(counters, &sent, tunnel, clock);
    }
}

/// Counts what the kernel refused to send.
#[cold]
fn count_lost(counters: &Counters, sent: &Sent, tunnel: &ArcSwap<Tunnel>, clock: Clock) {
    let dropped = lost(sent.last_refused.as_ref(), &tunnel.load(), clock.now());
    let counts = [
        (DropReason::UnderlaySendFailed, sent.refused - sent.without_route),
        (DropReason::UnderlayNoRoute, sent.without_route),
    ];
    for (reason, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        counters.count_drop(reason, dropped, count);
    }
}

/// Whose datagram was lost, by its outer and its inner header.
fn lost(headers: Option<&[u8; REFUSED_LEN]>, tunnel: &Tunnel, now: Instant) -> Dropped {
    let Some(headers) = headers else { return Dropped::at(now) };
    let (destination, inner): (Option<IpAddr>, _) = if ipv6::is_ipv6(headers) {
        let outer = Ipv6Packet::parse(headers, Validation::Lenient).ok();
        (outer.map(|outer| outer.destination().into()), ipv6::HEADER_LEN)
    } else {
        let outer = Ipv4Packet::parse(headers, Validation::Lenient).ok();
        (outer.map(|outer| outer.destination().into()), ipv4::HEADER_LEN)
    };
    let peer = destination.and_then(|address| tunnel.lookup_outer(address));
    Dropped::datagram(&headers[inner..], now).of_peer(peer)
}

/// The identification of datagram number `index`: 0 for atomic datagrams, else it counts up (RFC
/// 6864).
#[inline]
fn nth_identification(outer: &OuterHeader, index: usize) -> u16 {
    if outer.dont_fragment() { 0 } else { outer.identification().wrapping_add(index as u16) }
}
