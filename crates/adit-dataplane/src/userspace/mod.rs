//! The userspace data plane: TUN on the inside, packet sockets on the outside, a thread for
//! each direction of each queue, run to completion. Nothing is allocated, locked or logged a
//! packet.
//!
//! ```text
//!   device ──► outbound ──► tunnel.encapsulate ──► cut, outer header ──► AF_XDP | packet | raw ──► underlay
//!   device ◄── join ◄── tunnel.decapsulate ◄── inbound ◄── packet socket ◄── underlay
//!                       tunnel.on_underlay_icmp ◄── watcher ◄── raw ICMP socket, netlink
//! ```

pub mod coalesce;
mod inbound;
mod outbound;
mod patience;
pub mod segment;
#[cfg(test)]
mod tests;
mod watcher;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use adit_linux::error::Error;
use adit_linux::frames::{FrameSender, LINK_HEADER};
use adit_linux::packet_ring::PacketRing;
use adit_linux::poll::Waker;
use adit_linux::raw::RawSocket;
use adit_linux::raw_frames::RawFrameSender;
use adit_linux::tun::Tun;
use adit_tunnel::{Counters, Instant, Reply, Totals, Tunnel};
use adit_wire::icmpv4::MAX_ERROR_LEN;

use crate::clock::Clock;
use crate::ebpf::{EbpfError, FastPath};
use crate::next_hop::NextHops;
use crate::plane::{DataPlane, PlaneKind};

use inbound::{Inbound, Up};
use outbound::Outbound;
use watcher::Watcher;

/// A running userspace data plane.
pub struct UserspacePlane {
    tunnel: Arc<Tunnel>,
    counters: Vec<Arc<Counters>>,
    clock: Clock,
    stop: Arc<AtomicBool>,
    device_gone: Arc<AtomicBool>,
    waker: Waker,
    threads: Vec<JoinHandle<()>>,
    /// Open as long as the plane: the kernel must not answer for a protocol it does not know.
    _silencer: RawSocket,
}

impl UserspacePlane {
    /// Starts forwarding between `tun` and the underlay of the calling thread's network
    /// namespace. When it returns, a datagram sent now goes through: the sockets are open and
    /// the peers' next hops have been asked for.
    ///
    /// # Errors
    /// A socket that could not be opened, with what to do.
    pub fn start(tunnel: Arc<Tunnel>, tun: Tun, underlay: Ipv4Addr) -> Result<Self, Error> {
        Self::start_behind(tunnel, tun, underlay, None).map_err(|error| match error {
            EbpfError::Linux(error) => error,
            other => Error::new("cannot start", std::io::Error::other(other)),
        })
    }

    /// The same behind programs that take what they can; they are put to work here.
    pub(crate) fn start_behind(
        tunnel: Arc<Tunnel>,
        tun: Tun,
        underlay: Ipv4Addr,
        fast_path: Option<FastPath>,
    ) -> Result<Self, EbpfError> {
        let udp = tun.offloads().udp;
        let queues = tun.into_queues();
        let silencer = RawSocket::silencer(underlay)?;
        let mtu =
            tunnel.peers().map(|(peer, _)| usize::from(tunnel.path_mtu(peer).mtu)).max().unwrap_or(1500);
        let rings = PacketRing::open_group(underlay, queues.len(), mtu)?;
        let next_hops = Arc::new(NextHops::new(tunnel.peers().len()));
        let clock = Clock;
        let stop = Arc::new(AtomicBool::new(false));
        let device_gone = Arc::new(AtomicBool::new(false));
        let waker = Waker::new()?;
        let shard = || Arc::new(tunnel.counters());

        let watcher = Watcher {
            icmp: RawSocket::icmp_errors(underlay)?,
            raw: RawFrameSender::open(MAX_ERROR_LEN, 1)?,
            tunnel: Arc::clone(&tunnel),
            counters: shard(),
            next_hops: Arc::clone(&next_hops),
            fast_path,
            underlay,
            clock,
            stop: Arc::clone(&stop),
            waker: waker.clone(),
        }
        .prepare()?;

        let mut outbound = Vec::new();
        let mut inbound = Vec::new();
        for (number, (queue, ring)) in queues.into_iter().zip(rings).enumerate() {
            let queue = Arc::new(queue);
            outbound.push(Outbound {
                queue: Arc::clone(&queue),
                number,
                tunnel: Arc::clone(&tunnel),
                counters: shard(),
                next_hops: Arc::clone(&next_hops),
                raw: RawFrameSender::open(outbound::MAX_DATAGRAM, outbound::RAW_BATCH)?,
                link: None,
                clock,
                stop: Arc::clone(&stop),
                device_gone: Arc::clone(&device_gone),
                waker: waker.clone(),
            });
            inbound.push(Inbound {
                ring,
                up: Up { queue, udp, tunnel: Arc::clone(&tunnel), counters: shard() },
                clock,
                stop: Arc::clone(&stop),
                waker: waker.clone(),
            });
        }
        let mut plane = Self {
            counters: std::iter::once(&watcher.counters)
                .chain(outbound.iter().map(|outbound| &outbound.counters))
                .chain(inbound.iter().map(|inbound| &inbound.up.counters))
                .cloned()
                .collect(),
            tunnel,
            clock,
            stop,
            device_gone,
            waker,
            threads: Vec::new(),
            _silencer: silencer,
        };
        // A thread inherits the namespace of the one that starts it.
        plane.spawn("adit-watch", move || watcher.run())?;
        for (number, (outbound, inbound)) in outbound.into_iter().zip(inbound).enumerate() {
            plane.spawn(&format!("adit-out-{number}"), move || outbound.run())?;
            plane.spawn(&format!("adit-in-{number}"), move || inbound.run())?;
        }
        Ok(plane)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| Error::new(format!("cannot start the thread {name}"), error))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Queues an ICMP error. The kernel routes it, and fills in its own address towards the sender.
#[cold]
fn queue_reply(raw: &mut RawFrameSender, reply: &Reply, offending: &[u8]) {
    let mut out = [0; MAX_ERROR_LEN];
    let len = reply.write(offending, &mut out);
    raw.frame()[LINK_HEADER..LINK_HEADER + len].copy_from_slice(&out[..len]);
    raw.commit(len, None);
}

impl DataPlane for UserspacePlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Userspace
    }

    fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    fn totals(&self) -> Totals {
        Totals::sum(self.counters.iter().map(AsRef::as_ref))
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn failure(&self) -> Option<&'static str> {
        self.device_gone.load(Ordering::Relaxed).then_some("the tunnel's device was deleted by somebody else")
    }

    fn shutdown(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a packet thread had panicked");
            }
        }
    }
}

impl Drop for UserspacePlane {
    fn drop(&mut self) {
        self.shutdown();
    }
}
