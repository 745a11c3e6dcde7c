//! From the underlay to the device: one thread a queue. It receives in batches, asks the
//! tunnel, joins what belongs together, and writes GSO packets to the device.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_linux::sockets::packet_ring::{PacketRing, Ready, Received};
use adit_linux::sockets::poll::{Waker, wait_readable};
use adit_linux::sockets::virtio_net::{Checksum, Gso, VirtioNetHeader};
use adit_linux::tun::TunQueue;
use adit_tunnel::{Counters, Decapsulated, DropReason, Instant, Outer, Tunnel};
use adit_wire::checksum::ChecksumState;
use adit_wire::{ipv4, tcp};
use arc_swap::ArcSwap;

use super::busy_poll::BusyPoll;
use super::coalesce::{Coalescer, MAX_SEGMENTS};
use super::dedup::HandoverDedup;
use crate::clock::Clock;

/// Datagrams that are joined and handed up together.
const BATCH: usize = 64;
/// Capacity for the largest datagram, with its headers.
const LARGE: usize = 66_000;

/// What the thread works on.
pub(crate) struct Inbound {
    pub(crate) ring: PacketRing,
    pub(crate) up: Up,
    /// What another socket has handed up.
    pub(crate) dedup: HandoverDedup,
    pub(crate) clock: Clock,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) waker: Waker,
}

impl Inbound {
    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        let mut coalescer = Coalescer::new(BATCH, self.up.udp);
        let mut large = vec![0u8; LARGE].into_boxed_slice();
        let mut busy_poll = BusyPoll::new();
        while !self.stop.load(Ordering::Relaxed) {
            if self.batch(&mut coalescer, &mut large) > 0 {
                busy_poll.reset();
            } else if !busy_poll.spin() {
                self.ring.clear_error();
                wait_readable(&self.ring, &self.waker);
                busy_poll.reset();
            }
        }
    }

    /// Hands up what waits, at most a batch; how many datagrams that were.
    #[inline]
    fn batch(&mut self, coalescer: &mut Coalescer, large: &mut [u8]) -> usize {
        let Self { ring, up, dedup, clock, .. } = self;
        // Nothing is written, locked or waited for: what decides may become another meanwhile.
        let tunnel = up.tunnel.load();
        let mut now = None;
        let mut count = 0;
        while count < BATCH {
            let Some(ready) = ring.take() else { break };
            count += 1;
            let now = *now.get_or_insert_with(|| clock.now());
            match ready {
                Ready::Datagram(received) => {
                    if !dedup.is_duplicate(&ring.arena()[received.datagram.clone()]) {
                        up.datagram(&tunnel, ring.arena(), &received, coalescer, now);
                    }
                }
                Ready::Large { link } => {
                    // In order: what came before it goes up before it.
                    up.flush(ring.arena(), coalescer);
                    let received = ring.receive_large(large, link);
                    let received = received.filter(|it| !dedup.is_duplicate(&large[it.datagram.clone()]));
                    if let Some(received) = received {
                        up.datagram(&tunnel, large, &received, coalescer, now);
                        up.flush(large, coalescer);
                    }
                }
                Ready::Nothing => up.counters.count_drop(DropReason::OuterMalformed, None, 1),
            }
        }
        up.flush(ring.arena(), coalescer);
        ring.release();
        count
    }
}

/// The way up: from the tunnel to the device.
pub(crate) struct Up {
    pub(crate) queue: Arc<TunQueue>,
    /// Whether the device takes UDP GSO packets.
    pub(crate) udp: bool,
    pub(crate) tunnel: Arc<ArcSwap<Tunnel>>,
    pub(crate) counters: Arc<Counters>,
}

impl Up {
    /// Writes what was joined to the device, and begins anew.
    #[inline]
    pub(super) fn flush(&self, arena: &mut [u8], coalescer: &mut Coalescer) {
        for index in 0..coalescer.packets() {
            let packet = coalescer.finish(arena, index);
            let header = packet.header.to_bytes();
            let mut pieces = [IoSlice::new(&[]); MAX_SEGMENTS + 1];
            pieces[0] = IoSlice::new(&header);
            let mut used = 1;
            for (slot, piece) in pieces[1..].iter_mut().zip(coalescer.pieces(arena, &packet)) {
                *slot = IoSlice::new(piece);
                used += 1;
            }
            if self.queue.write(&pieces[..used]).is_err() {
                self.counters.count_drop(DropReason::DeviceWriteFailed, None, packet.datagrams as u64);
            }
        }
        coalescer.clear();
    }

    /// Asks the tunnel; whether it took the datagram, which waits in `coalescer` then unless it was the tunnel's.
    #[inline]
    pub(super) fn datagram(
        &self,
        tunnel: &Tunnel,
        arena: &mut [u8],
        received: &Received,
        coalescer: &mut Coalescer,
        now: Instant,
    ) -> bool {
        let bytes = &arena[received.datagram.clone()];
        let outer = Outer { bytes, segments: segments(bytes, &received.header) };
        let (peer, inner, set_ecn, max_mss) = match tunnel.decapsulate(&outer, now, &self.counters) {
            Decapsulated::Deliver { peer, inner, set_ecn, max_mss } => (peer, inner, set_ecn, max_mss),
            Decapsulated::Answer { .. } => return true,
            Decapsulated::Drop(_) => return false,
        };
        let cut = inner.start;
        let inner = received.datagram.start + inner.start..received.datagram.start + inner.end;
        // A checksum that would start in the outer header is nobody's.
        let header = received.header.without_front(cut as u16).unwrap_or(VirtioNetHeader::PLAIN);
        let bytes = &mut arena[inner.clone()];
        if let Some(ecn) = set_ecn {
            let _ = ipv4::set_ecn(bytes, ecn);
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

/// How many datagrams a GSO packet from another interface of this machine stands for.
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
