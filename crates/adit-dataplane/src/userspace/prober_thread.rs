//! The prober's thread. It reads ICMP errors, which anybody on the Internet can send, so it does
//! nothing else: it keeps its open sockets and no right, and works while the watcher looks up
//! routes.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::process::privileges::PacketThread;
use adit_linux::sockets::poll::{EventFd, Waker, wait_readable};
use adit_tunnel::{PeerIndex, Tunnel};
use arc_swap::ArcSwap;

use super::probing::Probing;
use super::threads;
use crate::clock::Clock;
use crate::liveness::{Heartbeat, LONGEST_SLEEP};
use crate::next_hop::NextHops;

/// Bytes of the largest datagram, rounded up.
const BUFFER_LEN: usize = 65_536;

/// How the prober's thread and the watcher wake each other.
#[derive(Clone)]
pub(super) struct ProberSignals {
    /// The tunnel has other peers, or our address has come or gone.
    pub(super) changed: EventFd,
    /// The prober has changed what the tunnel knows of a path.
    pub(super) learned: EventFd,
}

impl ProberSignals {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { changed: EventFd::new()?, learned: EventFd::new()? })
    }
}

/// What the thread works with.
pub(super) struct ProberThread {
    pub(super) probing: Probing,
    /// The tunnel that the prober follows.
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) current: Arc<ArcSwap<Tunnel>>,
    pub(super) next_hops: Arc<NextHops>,
    pub(super) signals: ProberSignals,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
}

impl ProberThread {
    /// Works until the plane stops.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(super) fn run(mut self, heartbeat: &Heartbeat) -> Result<(), String> {
        let mut buffer = vec![0u8; BUFFER_LEN];
        // The first look at an offload's counts reads a file, which the confined thread cannot.
        self.probing.traffic()(PeerIndex::new(0));
        threads::confine(if self.probing.offloaded.is_some() {
            PacketThread::ReadsMaps
        } else {
            PacketThread::Plain
        });
        while !self.stop.load(Ordering::Relaxed) {
            heartbeat.beat();
            self.wait().map_err(|error| format!("cannot wait for ICMP errors: {error}"))?;
            self.signals.changed.drain();
            self.follow();
            let now = self.clock.now();
            let mut has_learned = self.probing.take_icmp(&self.tunnel, &mut buffer, now);
            if self.may_probe() {
                has_learned |= self.probing.advance(&self.tunnel, &self.next_hops, now);
            }
            // Userspace reads it from the tunnel, an offload has to be told.
            if has_learned && self.probing.offloaded.is_some() {
                self.signals.learned.notify();
            }
        }
        Ok(())
    }

    fn follow(&mut self) {
        let current = self.current.load_full();
        if !Arc::ptr_eq(&current, &self.tunnel) {
            self.probing.follow(&current);
            self.tunnel = current;
        }
    }

    /// Whether this host has an address of ours. Without one nothing is probed.
    fn may_probe(&self) -> bool {
        let mut addresses = self.tunnel.config().underlay.iter();
        addresses.any(|address| !self.next_hops.is_source_missing(Family::of(address)))
    }

    fn wait(&self) -> std::io::Result<()> {
        let Self { probing, signals, clock, waker, .. } = self;
        let deadline = probing.next_deadline().filter(|_| self.may_probe());
        let left = deadline.map_or(LONGEST_SLEEP, |deadline| deadline.since(clock.now()).min(LONGEST_SLEEP));
        let icmp = probing.icmp.iter().map(|icmp| icmp.socket.as_fd());
        let ready: Vec<_> = icmp.chain([signals.changed.as_fd()]).collect();
        wait_readable(&ready, waker, left)
    }
}
