//! Path probes and ICMP errors from the underlay: the sockets around [`Prober`], which decides.

use std::sync::Arc;

use adit_linux::error::Error;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::raw::RawSocket;
use adit_tunnel::{Counters, DropReason, Dropped, Instant, PeerIndex, Prober, Traffic, Tunnel, UnderlayIcmp};

use super::icmp_replies::ReplySender;
use super::offload::TrafficReader;
use super::outbound::MAX_DATAGRAM;
use super::raw_senders::RawSenders;
use super::receivers::ReceiverPool;
use super::tx_path::family_of;
use crate::next_hop::NextHops;
use crate::tunnel_interface::TunnelInterface;
use crate::underlay_sources::UnderlaySources;

/// ICMP messages that are handled before other work gets its turn.
const BATCH: usize = 256;
/// Probes that one system call sends.
const FRAMES: usize = 4;

/// The sockets that receive routers' ICMP errors, those that send probes, and the prober.
pub(super) struct Probing {
    pub(super) icmp: Vec<IcmpSocket>,
    raw: RawSenders,
    /// ICMP errors to the hosts inside.
    replies: ReplySender,
    prober: Prober,
    /// The probe that is sent next.
    probe: Box<[u8]>,
    counters: PlaneCounters,
    /// What an offload has exchanged with a peer; `None` without an offload.
    pub(super) offloaded: Option<TrafficReader>,
}

/// A socket for the ICMP errors of one family.
pub(super) struct IcmpSocket {
    pub(super) socket: RawSocket,
    /// Messages that the socket has dropped, as far as they are counted.
    overflowed: u32,
}

impl IcmpSocket {
    /// How many messages were dropped since the last call.
    fn dropped(&mut self) -> u32 {
        let dropped = self.socket.dropped();
        dropped.wrapping_sub(std::mem::replace(&mut self.overflowed, dropped))
    }
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
    fn traffic(&self, offloaded: Option<&TrafficReader>) -> impl Fn(PeerIndex) -> Traffic {
        let receivers = self.receivers.counters();
        move |peer| {
            let shards = self.others.iter().chain(&receivers);
            let offloaded = offloaded.map_or_else(Traffic::default, |read| read(peer));
            shards.fold(offloaded, |traffic, shard| traffic.plus(shard.traffic(peer)))
        }
    }
}

impl Probing {
    pub(super) fn open(
        tunnel: &Tunnel,
        sources: UnderlaySources,
        interface: &TunnelInterface,
        counters: PlaneCounters,
        offloaded: Option<TrafficReader>,
    ) -> Result<Self, Error> {
        let icmp = sources.iter().map(|source| {
            let socket = RawSocket::icmp_errors(source.address)?;
            Ok(IcmpSocket { socket, overflowed: 0 })
        });
        Ok(Self {
            icmp: icmp.collect::<Result<_, Error>>()?,
            raw: RawSenders::open(sources, MAX_DATAGRAM, FRAMES)?,
            replies: ReplySender::open(interface)?,
            prober: Prober::new(tunnel),
            probe: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            counters,
            offloaded,
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

    /// What the plane has exchanged with a peer.
    pub(super) fn traffic(&self) -> impl Fn(PeerIndex) -> Traffic {
        self.counters.traffic(self.offloaded.as_ref())
    }

    /// Handles the ICMP errors that have arrived, at most a batch. Returns true if the tunnel has
    /// learned from any.
    pub(super) fn take_icmp(&mut self, tunnel: &Tunnel, buffer: &mut [u8], now: Instant) -> bool {
        let Self { icmp, prober, counters, offloaded, replies, .. } = self;
        let traffic = counters.traffic(offloaded.as_ref());
        let mut has_learned = false;
        for icmp in icmp {
            for _ in 0..BATCH {
                let Ok(len) = icmp.socket.recv(buffer) else { break };
                let Some(packet) = buffer.get(..len) else { break };
                let outcome = prober.handle_icmp(tunnel, packet, now, &counters.own, &traffic);
                relay(replies, &outcome, packet);
                has_learned |= has_changed_state(&outcome);
            }
            let dropped = icmp.dropped();
            if dropped > 0 {
                counters.own.count_drop(DropReason::QueueFull, Dropped::at(now), u64::from(dropped));
            }
        }
        has_learned
    }

    /// Sends the probes that are due, and relays errors that have been proven. Returns true if the
    /// tunnel may have learned from either. Nothing is sent from an address that is not this
    /// host's.
    pub(super) fn advance(&mut self, tunnel: &Tunnel, next_hops: &NextHops, now: Instant) -> bool {
        let mut has_learned = false;
        if self.prober.poll_timeout().is_some_and(|deadline| deadline <= now) {
            has_learned = self.prober.has_open_rounds();
            let traffic = self.counters.traffic(self.offloaded.as_ref());
            self.prober.handle_timeout(tunnel, now, &self.counters.own, traffic);
        }
        while let Some((message, proof)) = self.prober.poll_confirmed() {
            let outcome = tunnel.on_confirmed_icmp(&message, proof, now, &self.counters.own);
            relay(&mut self.replies, &outcome, &message);
            has_learned |= has_changed_state(&outcome);
        }
        while let Some(probe) = self.prober.poll_transmit(tunnel, &self.counters.own, &mut self.probe) {
            let Some(probe) = self.probe.get(..probe) else { break };
            let family = family_of(probe);
            if next_hops.is_source_missing(family) {
                continue;
            }
            let sender = self.raw.of(family);
            if let Some(frame) = sender.frame().get_mut(LINK_HEADER..LINK_HEADER + probe.len()) {
                frame.copy_from_slice(probe);
                sender.commit(probe.len(), None);
            }
        }
        self.raw.flush();
        // A probe that cannot be sent is one that is not answered.
        for sender in self.raw.iter_mut() {
            let _ = sender.take_sent();
        }
        has_learned
    }
}

/// Whether an ICMP error has changed what the tunnel knows of a path.
fn has_changed_state(outcome: &UnderlayIcmp) -> bool {
    match outcome {
        UnderlayIcmp::Relay { .. } | UnderlayIcmp::StateChanged { .. } | UnderlayIcmp::AboutProbe { .. } => {
            true
        }
        // The tunnel has learned from those all the same.
        UnderlayIcmp::Ignored(reason) => {
            matches!(reason, DropReason::IcmpNotAnswerable | DropReason::IcmpRateLimited)
        }
        UnderlayIcmp::Doubtful { .. } | UnderlayIcmp::NotOurs => false,
    }
}

/// Sends the reply that an ICMP error asks for.
fn relay(replies: &mut ReplySender, outcome: &UnderlayIcmp, message: &[u8]) {
    if let UnderlayIcmp::Relay { reply, offending, .. } = outcome
        && let Some(offending) = message.get(offending.clone())
    {
        replies.queue(reply, offending);
        replies.flush();
    }
}
