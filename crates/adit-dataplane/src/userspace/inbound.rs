//! The receiver: one thread per packet socket. It receives in batches, asks the tunnel, coalesces
//! datagrams into GSO packets, and writes them to the tunnel interface.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_linux::sockets::arena::Arena;
use adit_linux::sockets::packet_ring::{PacketRing, Ready, Received};
use adit_linux::sockets::poll::{Waker, wait_readable};
use adit_linux::sockets::virtio_net::{Checksum, Gso, VirtioNetHeader};
use adit_tunnel::{
    Counters, Decapsulated, DropReason, Dropped, Instant, Outer, Reassembler, Reassembly, Tunnel,
    is_fragment_v6,
};
use adit_wire::checksum::ChecksumState;
use adit_wire::{ipv4, ipv6, tcp};
use arc_swap::ArcSwap;

use super::busy_poll::BusyPoll;
use super::coalesce::Coalescer;
use super::dedup::HandoverDedup;
use super::host_link::HostLink;
use crate::clock::Clock;
use crate::liveness::{Heartbeat, LONGEST_SLEEP};

/// Datagrams that are coalesced and delivered together.
const BATCH: usize = 64;
/// Bytes of the largest datagram with its headers, rounded up.
const LARGE: usize = 66_000;

/// What the thread works with.
pub(super) struct Inbound {
    pub(super) ring: PacketRing,
    pub(super) deliverer: Deliverer,
    /// Datagrams that another socket has delivered already.
    pub(super) dedup: HandoverDedup,
    /// Outer fragments of IPv6.
    pub(super) reassembler: Reassembler,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
}

impl Inbound {
    /// Works until the plane stops.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(super) fn run(mut self, heartbeat: &Heartbeat) -> Result<(), String> {
        let mut coalescer = Coalescer::new(BATCH, self.deliverer.host.takes_udp);
        let mut large = vec![0u8; LARGE].into_boxed_slice();
        let mut busy_poll = BusyPoll::new();
        while !self.stop.load(Ordering::Relaxed) {
            heartbeat.beat();
            if self.batch(&mut coalescer, &mut large) > 0 {
                busy_poll.reset();
            } else if !busy_poll.spin() {
                self.ring.clear_error();
                wait_readable(std::slice::from_ref(&self.ring), &self.waker, LONGEST_SLEEP)
                    .map_err(|error| format!("cannot wait for datagrams of the peers: {error}"))?;
                busy_poll.reset();
            }
        }
        Ok(())
    }

    /// Delivers the datagrams that wait, at most a batch. Returns their number.
    #[inline]
    fn batch(&mut self, coalescer: &mut Coalescer, large: &mut [u8]) -> usize {
        let Self { ring, deliverer, dedup, reassembler, clock, .. } = self;
        // Loading writes, locks and waits for nothing. Another tunnel may take this one's place
        // meanwhile.
        let tunnel = deliverer.tunnel.load();
        let mut now = None;
        let mut count = 0;
        while count < BATCH {
            let Some(ready) = ring.take() else { break };
            count += 1;
            let now = *now.get_or_insert_with(|| clock.now());
            match ready {
                Ready::Datagram(received) => {
                    let bytes = ring.bytes(received.datagram.clone());
                    if is_fragment_v6(bytes) {
                        let whole = deliverer.reassemble(&tunnel, reassembler, bytes, now);
                        deliverer.flush(ring, coalescer);
                        if let Some(whole) = whole {
                            let received =
                                Received { header: VirtioNetHeader::PLAIN, datagram: 0..whole.len() };
                            deliverer.datagram(&tunnel, whole, &received, coalescer, now);
                            deliverer.flush(whole, coalescer);
                        }
                    } else if !dedup.is_duplicate(bytes) {
                        deliverer.datagram(&tunnel, ring, &received, coalescer, now);
                    }
                }
                Ready::Large { link } => {
                    // Datagrams that arrived before it must be delivered before it.
                    deliverer.flush(ring, coalescer);
                    let received = ring.receive_large(large, link);
                    let received = received.filter(|it| !dedup.is_duplicate(&large[it.datagram.clone()]));
                    if let Some(received) = received {
                        deliverer.datagram(&tunnel, large, &received, coalescer, now);
                        deliverer.flush(large, coalescer);
                    }
                }
                Ready::Nothing => {
                    deliverer.counters.count_drop(DropReason::OuterMalformed, Dropped::at(now), 1);
                }
            }
        }
        deliverer.flush(ring, coalescer);
        ring.release();
        count
    }
}

/// Delivers datagrams to the tunnel interface, and so to the host's stack.
pub(super) struct Deliverer {
    pub(super) host: Arc<HostLink>,
    pub(super) tunnel: Arc<ArcSwap<Tunnel>>,
    pub(super) counters: Arc<Counters>,
    /// Whether the host has applied its policies of IPsec to what is delivered.
    pub(super) policy_checked: bool,
}

impl Deliverer {
    /// Writes the coalesced packets to the tunnel interface, and empties the coalescer.
    #[inline]
    pub(super) fn flush<A: Arena + ?Sized>(&self, arena: &mut A, coalescer: &mut Coalescer) {
        for index in 0..coalescer.packets() {
            let packet = coalescer.finish(arena, index);
            if self.host.send(&packet.header, coalescer.pieces(arena, &packet)).is_err() {
                let first = coalescer.pieces(arena, &packet).next().unwrap_or_default();
                let dropped = Dropped::datagram(first, Clock.now());
                self.counters.count_drop(DropReason::DeviceWriteFailed, dropped, packet.datagrams as u64);
            }
        }
        coalescer.clear();
    }

    /// Takes an outer fragment of IPv6. Returns the packet that it completes. One from nobody we
    /// know is left to the tunnel, which refuses it.
    #[cold]
    fn reassemble<'r>(
        &self,
        tunnel: &Tunnel,
        reassembler: &'r mut Reassembler,
        fragment: &[u8],
        now: Instant,
    ) -> Option<&'r mut [u8]> {
        if !tunnel.is_from_peer(fragment) {
            let _ = tunnel.decapsulate(&Outer::datagram(fragment), now, &self.counters);
            return None;
        }
        match reassembler.take(fragment, now) {
            Reassembly::Whole(whole) => Some(whole),
            Reassembly::Waiting => None,
            Reassembly::Refused => {
                self.counters.count_drop(DropReason::OuterFragment, Dropped::datagram(fragment, now), 1);
                None
            }
        }
    }

    /// Decapsulates a datagram, which then waits in `coalescer` unless it was for the tunnel
    /// itself. Returns false if it was dropped.
    #[inline]
    pub(super) fn datagram<A: Arena + ?Sized>(
        &self,
        tunnel: &Tunnel,
        arena: &mut A,
        received: &Received,
        coalescer: &mut Coalescer,
        now: Instant,
    ) -> bool {
        let bytes = arena.bytes(received.datagram.clone());
        let segments = segments(bytes, &received.header);
        let outer = Outer { bytes, segments, policy_checked: self.policy_checked };
        let (peer, inner, set_ecn, max_mss) = match tunnel.decapsulate(&outer, now, &self.counters) {
            Decapsulated::Deliver { peer, inner, set_ecn, max_mss } => (peer, inner, set_ecn, max_mss),
            Decapsulated::Answer { .. } | Decapsulated::Unanswerable { .. } => return true,
            Decapsulated::LeftToStack | Decapsulated::NotOurs | Decapsulated::Drop(_) => return false,
        };
        let cut = inner.start;
        let inner = received.datagram.start + inner.start..received.datagram.start + inner.end;
        // A partial checksum that would start in the outer header is not valid.
        let header = received.header.without_front(cut as u16).unwrap_or(VirtioNetHeader::PLAIN);
        let bytes = arena.bytes_mut(inner.clone());
        if let Some(ecn) = set_ecn {
            let _ = if ipv6::is_ipv6(bytes) { ipv6::set_ecn(bytes, ecn) } else { ipv4::set_ecn(bytes, ecn) };
        }
        if let Some(max_mss) = max_mss {
            let state = match header.checksum {
                Checksum::Partial(_) => ChecksumState::Partial,
                Checksum::Unknown | Checksum::Verified => ChecksumState::Complete,
            };
            if tcp::clamp_mss(bytes, max_mss, state).is_some() {
                self.counters.count_mss_clamped(peer);
            }
        }
        coalescer.push(arena, inner, header);
        true
    }
}

/// Number of datagrams in a GSO packet from another interface of this machine.
#[inline]
fn segments(bytes: &[u8], header: &VirtioNetHeader) -> u16 {
    match header.gso {
        Gso::None => 1,
        _ => {
            let payload = bytes.len().saturating_sub(usize::from(header.header_len));
            payload.div_ceil(usize::from(header.gso_size.max(1))).clamp(1, usize::from(u16::MAX)) as u16
        }
    }
}
