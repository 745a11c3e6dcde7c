//! What comes from the underlay: the packet sockets, and a thread for each.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use adit_linux::error::Error;
use adit_linux::sockets::packet_ring::PacketRing;
use adit_linux::sockets::poll::Waker;
use adit_linux::tun::TunQueue;
use adit_tunnel::{Counters, Tunnel};
use arc_swap::ArcSwap;

use super::dedup::HandoverDedup;
use super::inbound::{Inbound, Up};
use crate::clock::Clock;

/// Starts threads that take what the underlay delivers, and knows them.
pub(super) struct ReceiverPool {
    pub(super) tunnel: Arc<ArcSwap<Tunnel>>,
    /// For how many there are counters.
    pub(super) peers: usize,
    pub(super) queues: Vec<Arc<TunQueue>>,
    /// Whether the device takes UDP GSO packets.
    pub(super) udp: bool,
    pub(super) underlay: Ipv4Addr,
    /// Bytes of the largest datagram that takes the fast way.
    pub(super) mtu: usize,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
    pub(super) started: Mutex<Running>,
}

/// Sockets that hear, and whose datagrams nobody takes yet.
pub(super) struct BoundRings(Vec<PacketRing>);

impl BoundRings {
    /// How many datagrams wait to be taken.
    pub(super) fn heard(&self) -> Result<usize, Error> {
        self.0.iter().map(PacketRing::count).sum()
    }

    /// Starts a thread for each socket, but for what another one has handed up.
    pub(super) fn start(self, listening: &ReceiverPool, dedup: HandoverDedup) -> Result<(), Error> {
        let dedup = std::iter::once(dedup).chain(std::iter::repeat_with(HandoverDedup::default));
        for ((queue, ring), dedup) in listening.queues.iter().zip(self.0).zip(dedup) {
            let counters = Arc::new(Counters::new(listening.peers));
            let inbound = Inbound {
                ring,
                up: listening.up(queue, Arc::clone(&counters)),
                dedup,
                clock: listening.clock,
                stop: Arc::clone(&listening.stop),
                waker: listening.waker.clone(),
            };
            let mut started = listening.started.lock().unwrap_or_else(PoisonError::into_inner);
            let name = format!("adit-in-{}", started.threads.len());
            started.threads.push(super::spawn(&name, move || {
                super::confine(false);
                inbound.run();
            })?);
            started.counters.push(counters);
        }
        Ok(())
    }
}

/// What has been started.
#[derive(Default)]
pub(super) struct Running {
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) counters: Vec<Arc<Counters>>,
}

impl ReceiverPool {
    /// Begins to listen on one interface, or on all of them. A socket of all interfaces costs every IPv4 packet of
    /// the host a copy of its descriptor, whatever it is about; so where programs in the kernel leave
    /// little to take, it is one of the underlay's interfaces.
    pub(super) fn open(&self, device: Option<u32>) -> Result<BoundRings, Error> {
        // What programs decline is little.
        let queues = if device.is_some() { 1 } else { self.queues.len() };
        PacketRing::open_group(self.underlay, device, queues, self.mtu).map(BoundRings)
    }

    /// What was started, to be waited for.
    pub(super) fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.started.lock().unwrap_or_else(PoisonError::into_inner).threads)
    }

    /// The way up to the device.
    pub(super) fn up(&self, queue: &Arc<TunQueue>, counters: Arc<Counters>) -> Up {
        Up { queue: Arc::clone(queue), udp: self.udp, tunnel: Arc::clone(&self.tunnel), counters }
    }
}
