//! Path probes and ICMP errors from the underlay: the sockets around [`Prober`], which decides.

use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::flow_source::FlowSource;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_tunnel::{Counters, DropReason, Instant, PeerIndex, Prober, Tunnel, UnderlayIcmp};

use super::icmp_replies::{queue_reply, reply_sender};
use super::outbound::MAX_DATAGRAM;

/// ICMP messages that are handled before other work gets its turn.
const BATCH: usize = 256;
/// Probes that one system call sends.
const FRAMES: usize = 4;

/// The socket that receives routers' ICMP errors, the one that sends probes, and the prober.
pub(super) struct Probing {
    pub(super) icmp: RawSocket,
    raw: RawFrameSender,
    /// ICMP errors to the hosts inside.
    replies: RawFrameSender,
    prober: Prober,
    counters: Arc<Counters>,
    /// Counters of the sending threads.
    senders: Vec<Arc<Counters>>,
    /// ICMP messages that the socket has dropped, as far as they are counted.
    overflowed: u32,
}

impl Probing {
    pub(super) fn open(
        tunnel: &Tunnel,
        source: FlowSource,
        scope: &NetScope,
        counters: Arc<Counters>,
        senders: Vec<Arc<Counters>>,
    ) -> Result<Self, Error> {
        Ok(Self {
            icmp: RawSocket::icmp_errors(source.address)?,
            raw: RawFrameSender::open_from(source, MAX_DATAGRAM, FRAMES)?,
            replies: reply_sender(scope)?,
            prober: Prober::new(tunnel),
            counters,
            senders,
            overflowed: 0,
        })
    }

    /// Goes on with a tunnel that has other peers.
    pub(super) fn follow(&mut self, tunnel: &Tunnel) {
        self.prober.follow(tunnel);
    }

    /// When to call [`Probing::advance`] next, if nothing arrives before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.prober.poll_timeout()
    }

    /// Handles the ICMP errors that have arrived.
    pub(super) fn take_icmp(&mut self, tunnel: &Tunnel, buffer: &mut [u8], now: Instant) {
        for _ in 0..BATCH {
            let Ok(len) = self.icmp.recv(buffer) else { break };
            let Some(packet) = buffer.get(..len) else { break };
            let outcome = self.prober.handle_icmp(tunnel, packet, now, &self.counters);
            self.relay(&outcome, packet);
        }
        let overflowed = self.icmp.dropped();
        let more = overflowed.wrapping_sub(self.overflowed);
        if more > 0 {
            self.counters.count_drop(DropReason::QueueFull, None, u64::from(more));
            self.overflowed = overflowed;
        }
    }

    /// Sends the probes that are due, and relays errors that a probe has confirmed. `offloaded`
    /// says how many datagrams an offload has sent to a peer.
    pub(super) fn advance(&mut self, tunnel: &Tunnel, offloaded: impl Fn(PeerIndex) -> u64, now: Instant) {
        if self.prober.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let senders = &self.senders;
            let sent = |peer: PeerIndex| {
                let by_userspace: u64 = senders.iter().map(|counters| counters.sent(peer)).sum();
                by_userspace + offloaded(peer)
            };
            self.prober.handle_timeout(tunnel, now, &self.counters, sent);
        }
        while let Some(message) = self.prober.poll_confirmed() {
            let outcome = tunnel.on_confirmed_icmp(&message, now, &self.counters);
            self.relay(&outcome, &message);
        }
        while let Some(frame) = self.raw.frame().get_mut(LINK_HEADER..) {
            let Some(len) = self.prober.poll_transmit(tunnel, &self.counters, frame) else { break };
            self.raw.commit(len, None);
        }
        self.raw.flush();
        // A probe that cannot be sent is one that is not answered.
        let _ = self.raw.take_sent();
    }

    fn relay(&mut self, outcome: &UnderlayIcmp, message: &[u8]) {
        if let UnderlayIcmp::Relay { reply, offending, .. } = outcome
            && let Some(offending) = message.get(offending.clone())
        {
            queue_reply(&mut self.replies, reply, offending);
            self.replies.flush();
        }
    }
}
