//! Probes of the paths to the peers, and ICMP errors from inside the tunnel: what comes, what is to be sent, and to
//! whom it is passed on. What becomes of them, `adit-tunnel` decides.

use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_tunnel::{Counters, DropReason, Instant, PeerIndex, Prober, Tunnel, UnderlayIcmp};

use super::offload_sync::OffloadSync;
use super::outbound::MAX_DATAGRAM;
use super::{queue_reply, reply_sender};

/// ICMP messages that are taken in before something else has its turn.
const BATCH: usize = 256;
/// Sent in a system call.
const FRAMES: usize = 4;

/// The socket that hears routers, the one that probes, and who asks.
pub(super) struct Probing {
    pub(super) icmp: RawSocket,
    raw: RawFrameSender,
    /// To the hosts inside, where those are elsewhere.
    replies: Option<RawFrameSender>,
    prober: Prober,
    counters: Arc<Counters>,
    /// Those of the threads that send.
    senders: Vec<Arc<Counters>>,
    /// ICMP that came faster than it was read, as far as it is counted.
    overflowed: u32,
}

impl Probing {
    pub(super) fn open(
        tunnel: &Tunnel,
        underlay: std::net::Ipv4Addr,
        inside: &NetScope,
        counters: Arc<Counters>,
        senders: Vec<Arc<Counters>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            icmp: RawSocket::icmp_errors(underlay)?,
            raw: RawFrameSender::open(MAX_DATAGRAM, FRAMES)?,
            replies: reply_sender(inside)?,
            prober: Prober::new(tunnel),
            counters,
            senders,
            overflowed: 0,
        })
    }

    /// The tunnel has other peers.
    pub(super) fn follow(&mut self, tunnel: &Tunnel) {
        self.prober.follow(tunnel);
    }

    /// When [`Probing::advance`] is to be called, if nothing comes before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.prober.next_deadline()
    }

    /// Takes in what routers say.
    pub(super) fn take_icmp(&mut self, tunnel: &Tunnel, buffer: &mut [u8], now: Instant) {
        for _ in 0..BATCH {
            let Ok(len) = self.icmp.recv(buffer) else { break };
            let Some(packet) = buffer.get(..len) else { break };
            let outcome = self.prober.on_icmp(tunnel, packet, now, &self.counters);
            self.relay(&outcome, packet);
        }
        let overflowed = self.icmp.dropped();
        let more = overflowed.wrapping_sub(self.overflowed);
        if more > 0 {
            self.counters.count_drop(DropReason::QueueFull, None, u64::from(more));
            self.overflowed = overflowed;
        }
    }

    /// Asks what is to be asked, and passes on what has turned out to be true.
    pub(super) fn advance(&mut self, tunnel: &Tunnel, fast: Option<&OffloadSync>, now: Instant) {
        if self.prober.next_deadline().is_some_and(|deadline| deadline <= now) {
            let senders = &self.senders;
            let sent = |peer: PeerIndex| {
                let slow: u64 = senders.iter().map(|counters| counters.sent(peer)).sum();
                slow + fast.map_or(0, |fast| fast.sent(peer))
            };
            self.prober.advance(tunnel, now, &self.counters, sent);
        }
        while let Some(message) = self.prober.take_proven() {
            let outcome = tunnel.on_proven_icmp(&message, now, &self.counters);
            self.relay(&outcome, &message);
        }
        while let Some(frame) = self.raw.frame().get_mut(LINK_HEADER..) {
            let Some(len) = self.prober.transmit(tunnel, &self.counters, frame) else { break };
            self.raw.commit(len, None);
        }
        self.raw.flush();
        // One that cannot be sent is one that is not answered.
        let _ = self.raw.take_sent();
    }

    fn relay(&mut self, outcome: &UnderlayIcmp, message: &[u8]) {
        if let UnderlayIcmp::Relay { reply, offending, .. } = outcome
            && let Some(offending) = message.get(offending.clone())
        {
            let raw = self.replies.as_mut().unwrap_or(&mut self.raw);
            queue_reply(raw, reply, offending);
            raw.flush();
        }
    }
}
