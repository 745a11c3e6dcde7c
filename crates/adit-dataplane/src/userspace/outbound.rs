//! From the device to the underlay: one thread a queue of the device. It reads datagrams and
//! GSO packets, asks the tunnel, cuts, puts the outer header before each, and sends in batches.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_linux::error::Error;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::packet::PacketSender;
use adit_linux::sockets::poll::{Waker, wait_readable};
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_linux::sockets::virtio_net::{self, Checksum, PartialChecksum, VirtioNetHeader};
use adit_linux::sockets::xdp::XdpSender;
use adit_linux::tun::TunQueue;
use adit_tunnel::{Counters, DropReason, Encapsulated, Inner, Instant, Origin, PeerIndex, Tunnel};
use adit_wire::checksum::ChecksumState;
use adit_wire::encapsulation::OuterHeader;
use adit_wire::ipv4::Ipv4Packet;
use adit_wire::validation::Validation;
use adit_wire::{fragment, tcp};
use arc_swap::ArcSwap;

use super::busy_poll::BusyPoll;
use super::queue_reply;
use super::segment::{GsoPacket, complete_checksum};
use crate::clock::Clock;
use crate::next_hop::{LinkDevice, Mac, NextHops};

/// Frames in a system call. Larger batches fill the receiver's caches before it wakes.
const BATCH: usize = 64;
/// Datagrams that the kernel routes, in a system call.
pub(crate) const RAW_BATCH: usize = 16;
/// The largest IPv4 datagram.
pub(crate) const MAX_DATAGRAM: usize = 65_535;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// What the thread works on.
pub(crate) struct Outbound {
    pub(crate) queue: Arc<TunQueue>,
    pub(crate) number: usize,
    pub(crate) tunnel: Arc<ArcSwap<Tunnel>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) next_hops: Arc<NextHops>,
    pub(crate) raw: RawFrameSender,
    /// To the hosts inside, where those are elsewhere.
    pub(crate) replies: Option<RawFrameSender>,
    pub(crate) link: Option<Link>,
    pub(crate) clock: Clock,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) device_gone: Arc<AtomicBool>,
    pub(crate) waker: Waker,
}

/// An open way out by one interface.
pub(crate) struct Link {
    device: LinkDevice,
    sender: Box<dyn FrameSender + Send>,
    /// Taps of this machine see what it sends.
    visible: bool,
}

impl Link {
    /// Opens the fastest sender the interface has: AF_XDP, else a packet socket; the latter too
    /// where a tap is to see what is sent.
    fn open(device: LinkDevice, queue: usize, capacity: usize, visible: bool) -> Result<Self, Error> {
        if visible {
            let sender = Box::new(PacketSender::open(device.index, capacity, BATCH)?);
            return Ok(Self { device, sender, visible });
        }
        let xdp = XdpSender::open(device.index, queue as u32, BATCH).and_then(|sender| {
            if sender.capacity() < capacity {
                return Err(Error::new(
                    "cannot send datagrams of this size over AF_XDP",
                    std::io::Error::from_raw_os_error(adit_linux::EMSGSIZE),
                ));
            }
            Ok(sender)
        });
        let sender: Box<dyn FrameSender + Send> = match xdp {
            Ok(sender) => Box::new(sender),
            Err(error) => {
                tracing::debug!(%error, "using a packet socket instead of AF_XDP");
                Box::new(PacketSender::open(device.index, capacity, BATCH)?)
            }
        };
        Ok(Self { device, sender, visible })
    }
}

impl Outbound {
    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        let mut buffer = vec![0u8; virtio_net::LEN + MAX_DATAGRAM + 1].into_boxed_slice();
        let mut scratch = vec![0u8; MAX_DATAGRAM].into_boxed_slice();
        let mut busy_poll = BusyPoll::new();
        while !self.stop.load(Ordering::Relaxed) {
            match self.drain(&mut buffer, &mut scratch) {
                Ok(true) => busy_poll.reset(),
                Ok(false) if busy_poll.spin() => {}
                Ok(false) => {
                    wait_readable(self.queue.as_ref(), &self.waker);
                    busy_poll.reset();
                }
                Err(error) => {
                    tracing::error!(%error, "the tunnel's device is gone");
                    self.device_gone.store(true, Ordering::Relaxed);
                    break;
                }
            }
        }
    }

    /// Forwards all that waits; whether anything did.
    fn drain(&mut self, buffer: &mut [u8], scratch: &mut [u8]) -> io::Result<bool> {
        let decides = Arc::clone(&self.tunnel);
        // Nothing is written, locked or waited for: what decides may become another meanwhile.
        let mut tunnel = decides.load();
        let mut now = self.clock.now();
        let mut since_clock = 0;
        let mut any = false;
        let done = loop {
            match self.queue.read(buffer) {
                Ok(len) => {
                    any = true;
                    self.packet(&tunnel, &buffer[..len], scratch, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            since_clock += 1;
            if since_clock == BATCH {
                since_clock = 0;
                now = self.clock.now();
                tunnel = decides.load();
                if self.stop.load(Ordering::Relaxed) {
                    break Ok(any);
                }
            }
        };
        if any {
            self.flush();
        }
        done
    }

    #[inline]
    fn packet(&mut self, tunnel: &Tunnel, packet: &[u8], scratch: &mut [u8], now: Instant) {
        let Some((header, bytes)) = packet.split_first_chunk::<{ virtio_net::LEN }>() else { return };
        let header = VirtioNetHeader::from_bytes(header);
        let Ok(gso_packet) = GsoPacket::new(bytes, &header) else {
            self.counters.count_drop(uncuttable(bytes), None, 1);
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
            Encapsulated::Reply { reply, .. } => {
                let len = gso_packet.datagram_len(0);
                if let Some(partial) = gso_packet.write(0, scratch) {
                    complete_checksum(&mut scratch[..len], partial);
                }
                queue_reply(self.replies.as_mut().unwrap_or(&mut self.raw), &reply, &scratch[..len]);
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
        let tx_path = self.tx_path(tunnel, peer, outer.len() + gso_packet.largest());
        let state = if complete { ChecksumState::Complete } else { ChecksumState::Partial };
        for index in 0..gso_packet.count() {
            let len = gso_packet.datagram_len(index);
            let header = outer.for_segment(len as u16, nth_identification(outer, index));
            let counters = &self.counters;
            tx_path.send(&mut self.link, &mut self.raw, &header, len, |inner| {
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

    /// Fragments inside (RFC 4459 3.1): the peer's host reassembles, not the peer.
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
        let tx_path = self.tx_path(tunnel, peer, outer.len() + max_datagram);
        for index in 0..gso_packet.count() {
            let len = gso_packet.datagram_len(index);
            // A fragment's checksum cannot be completed later: it covers the whole datagram.
            if let Some(partial) = gso_packet.write(index, scratch) {
                complete_checksum(&mut scratch[..len], partial);
            }
            let pieces = Ipv4Packet::parse(&scratch[..len], Validation::Datapath)
                .ok()
                .and_then(|datagram| fragment::fragments(&datagram, max_datagram).ok());
            let Some(pieces) = pieces else {
                self.counters.count_drop(DropReason::InnerMalformed, Some(peer), 1);
                continue;
            };
            for piece in pieces {
                let id = if outer.dont_fragment() { 0 } else { tunnel.identifications(peer, 1) };
                let header = outer.for_segment(piece.len() as u16, id);
                tx_path.send(&mut self.link, &mut self.raw, &header, piece.len(), |inner| {
                    let (header, payload) = inner[..piece.len()].split_at_mut(piece.header().len());
                    header.copy_from_slice(piece.header());
                    payload.copy_from_slice(&scratch[piece.payload()]);
                    None
                });
            }
        }
    }

    /// How datagrams of `len` bytes leave for `peer` now.
    #[inline]
    fn tx_path(&mut self, tunnel: &Tunnel, peer: PeerIndex, len: usize) -> TxPath {
        let Some((device, mac)) = self.next_hops.get(peer) else { return TxPath::Routed };
        let visible = self.next_hops.tapped();
        let fits = |link: &Link| link.device.index == device.index && link.visible == visible;
        if !self.link.as_ref().is_some_and(fits) {
            // What the path takes, not what this datagram needs: later ones may be larger.
            let capacity = usize::from(tunnel.path_mtu(peer).mtu).max(len);
            self.reopen(device, capacity, visible);
        }
        match &self.link {
            Some(link) if link.device.index == device.index && link.sender.capacity() >= len => {
                TxPath::Link(mac, device.mac)
            }
            _ => TxPath::Routed,
        }
    }

    #[cold]
    fn reopen(&mut self, device: LinkDevice, capacity: usize, visible: bool) {
        self.flush();
        self.link = None;
        match Link::open(device, self.number, capacity.max(1500), visible) {
            Ok(link) => self.link = Some(link),
            // Said once a device: the next hops stay unused until it changes again.
            Err(error) => {
                tracing::warn!(%error, "the kernel routes what leaves the tunnel");
                self.next_hops.set_device(None);
            }
        }
    }

    fn flush(&mut self) {
        if let Some(link) = &mut self.link {
            link.sender.flush();
            count_refused(&self.counters, link.sender.as_mut());
        }
        self.raw.flush();
        count_refused(&self.counters, &mut self.raw);
        if let Some(replies) = &mut self.replies {
            replies.flush();
            // Nothing of the underlay's.
            let _ = replies.take_sent();
        }
    }
}

/// IPv6 GSO packets are not malformed, only not ours to carry.
fn uncuttable(bytes: &[u8]) -> DropReason {
    match bytes.first().map(|first| first >> 4) {
        Some(6) => DropReason::InnerNotIpv4,
        _ => DropReason::InnerMalformed,
    }
}

fn count_refused(counters: &Counters, sender: &mut dyn FrameSender) {
    let refused = sender.take_sent().refused;
    if refused > 0 {
        counters.count_drop(DropReason::UnderlaySendFailed, None, refused);
    }
}

/// Link-layer addresses, or the kernel's own routing.
#[derive(Clone, Copy)]
enum TxPath {
    Link(Mac, Mac),
    Routed,
}

impl TxPath {
    /// Puts one datagram into a frame: link header, outer header, and `len` bytes of the inner
    /// datagram that `fill` writes.
    #[inline]
    fn send(
        self,
        link: &mut Option<Link>,
        raw: &mut RawFrameSender,
        header: &OuterHeader,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<PartialChecksum>,
    ) {
        let (sender, addresses): (&mut dyn FrameSender, _) = match (self, link) {
            (Self::Link(destination, source), Some(link)) => {
                (link.sender.as_mut(), Some((destination, source)))
            }
            _ => (raw, None),
        };
        let completes = sender.completes_checksums();
        let (front, rest) = sender.frame().split_at_mut(LINK_HEADER);
        if let Some((destination, source)) = addresses {
            write_link_header(front, destination, source);
        }
        let (capacity, inner) = rest.split_at_mut(header.len());
        capacity.copy_from_slice(header.as_bytes());
        let mut partial = fill(inner);
        if !completes && let Some(partial) = partial.take() {
            complete_checksum(&mut inner[..len], partial);
        }
        let partial =
            partial.map(|partial| PartialChecksum { start: partial.start + header.len() as u16, ..partial });
        sender.commit(header.len() + len, partial);
    }
}

/// Atomic datagrams all carry 0, others count up from the first (RFC 6864).
#[inline]
fn nth_identification(outer: &OuterHeader, index: usize) -> u16 {
    if outer.dont_fragment() { 0 } else { outer.identification().wrapping_add(index as u16) }
}

#[inline]
fn write_link_header(front: &mut [u8], destination: Mac, source: Mac) {
    front[..6].copy_from_slice(&destination);
    front[6..12].copy_from_slice(&source);
    front[12..14].copy_from_slice(&ETHERTYPE_IPV4);
}
