//! The receiver pool: packet sockets on the underlay, each with a thread.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use adit_linux::error::Error;
use adit_linux::process::privileges::PacketThread;
use adit_linux::sockets::packet_ring::PacketRing;
use adit_linux::sockets::poll::Waker;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_tunnel::{Counters, Reassembler, Tunnel, UnderlayAddresses};
use arc_swap::ArcSwap;

use super::dedup::HandoverDedup;
use super::host_link::HostLink;
use super::inbound::{Deliverer, Inbound};
use super::threads;
use crate::clock::Clock;
use crate::liveness::{self, Thread};

/// Starts receiver threads and keeps track of them.
pub(super) struct ReceiverPool {
    pub(super) tunnel: Arc<ArcSwap<Tunnel>>,
    /// Number of peers that the counters have room for.
    pub(super) peers: usize,
    /// The way to the host.
    pub(super) host: Arc<HostLink>,
    /// Number of receivers on all interfaces.
    pub(super) queues: usize,
    pub(super) underlay: UnderlayAddresses,
    /// What peers send.
    pub(super) protocols: &'static [TunnelProtocol],
    /// Bytes of the largest datagram that fits a frame of a ring.
    pub(super) mtu: usize,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
    pub(super) running: Mutex<Running>,
}

/// Bound sockets that collect datagrams, and that no thread reads yet.
pub(super) struct BoundRings(Vec<PacketRing>);

impl BoundRings {
    /// Number of datagrams that wait in the rings.
    pub(super) fn queued(&self) -> Result<usize, Error> {
        self.0.iter().map(PacketRing::count).sum()
    }

    /// Starts a thread for each socket. They skip what `dedup` has recorded.
    pub(super) fn start(self, pool: &ReceiverPool, dedup: &HandoverDedup) -> Result<(), Error> {
        for ring in self.0 {
            let counters = Arc::new(Counters::new(pool.peers));
            let inbound = Inbound {
                ring,
                deliverer: pool.deliverer(Arc::clone(&counters)),
                dedup: dedup.clone(),
                reassembler: Reassembler::default(),
                clock: pool.clock,
                stop: Arc::clone(&pool.stop),
                waker: pool.waker.clone(),
            };
            let mut running = pool.running.lock().unwrap_or_else(PoisonError::into_inner);
            let name = format!("adit-in-{}", running.threads.len());
            running.threads.push(liveness::spawn(&name, liveness::PACKET_THREAD_LIMIT, |heartbeat| {
                threads::confine(PacketThread::Plain);
                inbound.run(heartbeat)
            })?);
            running.counters.push(counters);
        }
        Ok(())
    }
}

/// Receiver threads that have been started, and their counters.
#[derive(Default)]
pub(super) struct Running {
    pub(super) threads: Vec<Thread>,
    pub(super) counters: Vec<Arc<Counters>>,
}

impl ReceiverPool {
    /// Binds sockets to one interface, or to all of them.
    ///
    /// A socket of all interfaces costs every packet of the host a copy of its descriptor. So
    /// behind an offload, which leaves little to receive, each underlay interface has one socket.
    pub(super) fn bind(&self, device: Option<u32>) -> Result<BoundRings, Error> {
        // An offload declines little: one queue is enough.
        let queues = if device.is_some() { 1 } else { self.queues };
        let groups = self
            .underlay
            .iter()
            .map(|address| PacketRing::open_group(address, self.protocols, device, queues, self.mtu));
        let groups: Vec<Vec<PacketRing>> = groups.collect::<Result<_, _>>()?;
        Ok(BoundRings(groups.into_iter().flatten().collect()))
    }

    /// Takes the threads out, to wait for their end.
    pub(super) fn take_threads(&self) -> Vec<Thread> {
        std::mem::take(&mut self.running.lock().unwrap_or_else(PoisonError::into_inner).threads)
    }

    /// Why a receiver ended early, if one did.
    pub(super) fn failure(&self) -> Option<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.threads.iter().find_map(Thread::failure)
    }

    /// The counters of all receivers that have been started.
    pub(super) fn counters(&self) -> Vec<Arc<Counters>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).counters.clone()
    }

    /// Makes a deliverer.
    pub(super) fn deliverer(&self, counters: Arc<Counters>) -> Deliverer {
        let (host, tunnel) = (Arc::clone(&self.host), Arc::clone(&self.tunnel));
        Deliverer { host, tunnel, counters, policy_checked: false }
    }
}
