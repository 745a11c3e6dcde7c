//! What comes from the underlay: the packet sockets, and a thread for each.

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use adit_linux::error::Error;
use adit_linux::packet_ring::PacketRing;
use adit_linux::poll::Waker;
use adit_linux::tun::TunQueue;
use adit_tunnel::{Counters, Tunnel};

use super::inbound::{Inbound, Up};
use crate::clock::Clock;

/// Starts threads that take what the underlay delivers, and knows them.
pub(super) struct Listening {
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) queues: Vec<Arc<TunQueue>>,
    /// Whether the device takes UDP superpackets.
    pub(super) udp: bool,
    pub(super) underlay: Ipv4Addr,
    /// Bytes of the largest datagram that takes the fast way.
    pub(super) mtu: usize,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
    pub(super) started: Mutex<Started>,
}

/// What has been started.
#[derive(Default)]
pub(super) struct Started {
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) counters: Vec<Arc<Counters>>,
}

impl Listening {
    /// Listens on one interface, or on all of them. A socket of all interfaces costs every IPv4 packet of
    /// the host a copy of its descriptor, whatever it is about; so where programs in the kernel leave
    /// little to take, it is one of the underlay's interfaces.
    pub(super) fn listen(&self, device: Option<u32>) -> Result<(), Error> {
        // What programs decline is little.
        let queues = if device.is_some() { &self.queues[..1] } else { &self.queues[..] };
        let rings = PacketRing::open_group(self.underlay, device, queues.len(), self.mtu)?;
        for (queue, ring) in queues.iter().zip(rings) {
            let counters = Arc::new(self.tunnel.counters());
            let inbound = Inbound {
                ring,
                up: self.up(queue, Arc::clone(&counters)),
                clock: self.clock,
                stop: Arc::clone(&self.stop),
                waker: self.waker.clone(),
            };
            let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
            let name = format!("adit-in-{}", started.threads.len());
            started.threads.push(super::spawn(&name, move || {
                super::confine(false);
                inbound.run();
            })?);
            started.counters.push(counters);
        }
        Ok(())
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
