//! The driver as a [`DataPlane`]: nothing runs here, everything is asked of the kernel.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use adit_linux::netlink::Netlink;
use adit_tunnel::{Instant, Totals, Tunnel};

use super::book::Book;
use super::filter::{RECEIVED, SENT};
use super::guard::Guard;
use crate::clock::Clock;
use crate::plane::{DataPlane, PlaneKind};

/// See the module.
#[derive(Debug)]
pub struct KernelPlane {
    tunnel: Arc<Tunnel>,
    guard: Arc<Guard>,
    devices: Vec<u32>,
    asked: Mutex<(Netlink, Book)>,
}

impl KernelPlane {
    /// The plane of interfaces and a table that are made already, in the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub fn of(
        tunnel: Arc<Tunnel>,
        guard: Arc<Guard>,
        devices: Vec<u32>,
    ) -> Result<Self, adit_linux::error::Error> {
        let plane = Self { tunnel, guard, devices, asked: Mutex::new((Netlink::open()?, Book::default())) };
        // What comes from now on is news.
        plane.look();
        Ok(plane)
    }

    /// All that the kernel has counted, and of it what is counted nowhere any more.
    fn look(&self) -> (Totals, Totals) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (netlink, book) = &mut *asked;
        let now = Clock.now();
        // What cannot be read is as it was when it was read last.
        match self.guard.counters() {
            Ok(counters) => book.note_drops(&counters),
            Err(error) => tracing::debug!(%error, "drops cannot be read"),
        }
        for (set, is_received) in [(RECEIVED, true), (SENT, false)] {
            let Ok(elements) = self.guard.elements(set) else { continue };
            for (key, counted) in elements {
                let address = key.as_slice().try_into().map(|key: [u8; 4]| Ipv4Addr::from(key));
                let peer = address.ok().and_then(|address| self.tunnel.lookup_outer(address));
                if let Some(peer) = peer {
                    book.note_traffic(peer.index(), is_received, counted, now);
                }
            }
        }
        let statistics = self.devices.iter().filter_map(|device| {
            let statistics = netlink.link_statistics(*device).ok()?;
            Some((*device, statistics))
        });
        book.note_devices(statistics.collect());
        (book.totals(self.tunnel.peers().len()), book.lost(self.tunnel.peers().len()))
    }
}

impl DataPlane for KernelPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Kernel
    }

    fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    fn totals(&self) -> Totals {
        self.look().0
    }

    fn own_totals(&self) -> Totals {
        // The kernel goes on counting, whoever asks.
        self.look().1
    }

    fn check(&self) -> Result<(), String> {
        self.guard.check()
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn failure(&self) -> Option<&'static str> {
        None
    }

    fn shutdown(&mut self) {}
}
