//! Path probes and ICMP errors from the underlay: the sockets around [`Prober`], which decides.

use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_tunnel::{Counters, DropReason, Instant, PeerIndex, Prober, Traffic, Tunnel, UnderlayIcmp};

use super::icmp_replies::{queue_reply, reply_sender};
use super::outbound::MAX_DATAGRAM;
use super::receivers::ReceiverPool;

/// ICMP messages that are handled before other work gets its turn.
const BATCH: usize = 256;
/// Probes that one system call sends.
const FRAMES: usize = 4;

/// The socket that receives routers' ICMP errors, the one that sends probes, and the prober.
pub(super) struct Probing {
    pub(super) icmp: RawSocket,
    raw: RawFrameSender,
    /// Replies to the hosts inside, if those are in another namespace or VRF.
    replies: Option<RawFrameSender>,
    prober: Prober,
    counters: PlaneCounters,
    /// ICMP messages that the socket has dropped, as far as they are counted.
    overflowed: u32,
}

/// The counters of a plane.
pub(super) struct PlaneCounters {
    /// Those of the prober's thread.
    pub(super) own: Arc<Counters>,
    /// Those of the threads that the plane has started with.
    pub(super) others: Vec<Arc<Counters>>,
    /// Has those of the receivers, which come with the interfaces.
    pub(super) receivers: Arc<ReceiverPool>,
}

impl PlaneCounters {
    /// What the plane has exchanged with a peer: itself, and by its offload.
    fn traffic(&self, offloaded: impl Fn(PeerIndex) -> Traffic) -> impl Fn(PeerIndex) -> Traffic {
        let receivers = self.receivers.counters();
        move |peer| {
            let shards = self.others.iter().chain(&receivers);
            shards.fold(offloaded(peer), |traffic, shard| traffic.plus(shard.traffic(peer)))
        }
    }
}

impl Probing {
    pub(super) fn open(
        tunnel: &Tunnel,
        underlay: Ipv4Addr,
        scope: &NetScope,
        counters: PlaneCounters,
    ) -> Result<Self, Error> {
        Ok(Self {
            icmp: RawSocket::icmp_errors(underlay)?,
            raw: RawFrameSender::open(MAX_DATAGRAM, FRAMES)?,
            replies: reply_sender(scope)?,
            prober: Prober::new(tunnel),
            counters,
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

    /// Handles the ICMP errors that have arrived. `offloaded` says what an offload has exchanged
    /// with a peer.
    pub(super) fn take_icmp(
        &mut self,
        tunnel: &Tunnel,
        buffer: &mut [u8],
        offloaded: impl Fn(PeerIndex) -> Traffic,
        now: Instant,
    ) {
        for _ in 0..BATCH {
            let Ok(len) = self.icmp.recv(buffer) else { break };
            let Some(packet) = buffer.get(..len) else { break };
            let PlaneCounters { own, .. } = &self.counters;
            let traffic = |peer| self.counters.traffic(&offloaded)(peer);
            let outcome = self.prober.handle_icmp(tunnel, packet, now, own, traffic);
            self.relay(&outcome, packet);
        }
        let overflowed = self.icmp.dropped();
        let more = overflowed.wrapping_sub(self.overflowed);
        if more > 0 {
            self.counters.own.count_drop(DropReason::QueueFull, None, u64::from(more));
            self.overflowed = overflowed;
        }
    }

    /// Sends the probes that are due, and relays errors that have been proven.
    pub(super) fn advance(
        &mut self,
        tunnel: &Tunnel,
        offloaded: impl Fn(PeerIndex) -> Traffic,
        now: Instant,
    ) {
        if self.prober.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let traffic = self.counters.traffic(offloaded);
            self.prober.handle_timeout(tunnel, now, &self.counters.own, traffic);
        }
        while let Some((message, proof)) = self.prober.poll_confirmed() {
            let outcome = tunnel.on_confirmed_icmp(&message, proof, now, &self.counters.own);
            self.relay(&outcome, &message);
        }
        while let Some(frame) = self.raw.frame().get_mut(LINK_HEADER..) {
            let Some(len) = self.prober.poll_transmit(tunnel, &self.counters.own, frame) else { break };
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
            let raw = self.replies.as_mut().unwrap_or(&mut self.raw);
            queue_reply(raw, reply, offending);
            raw.flush();
        }
    }
}
