//! The userspace data plane: TUN on the inside, packet sockets on the outside, a thread for
//! each direction of each queue, run to completion. Nothing is allocated, locked or logged a
//! packet.
//!
//! ```text
//!   device ──► outbound ──► tunnel.encapsulate ──► cut, outer header ──► AF_XDP | packet | raw ──► underlay
//!   device ◄── join ◄── tunnel.decapsulate ◄── inbound ◄── packet socket ◄── underlay
//!                       tunnel.on_underlay_icmp ◄── watcher ◄── raw ICMP socket, netlink
//! ```

mod busy_poll;
mod catch_all;
pub mod coalesce;
mod commands;
mod dedup;
mod inbound;
mod offload_sync;
mod outbound;
mod probing;
mod receivers;
pub mod segment;
#[cfg(test)]
mod tests;
mod tunnel4_guard;
mod underlay;
mod watcher;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use adit_linux::error::Error;
use adit_linux::net_scope::NetScope;
use adit_linux::process::privileges;
use adit_linux::sockets::frames::{FrameSender, LINK_HEADER};
use adit_linux::sockets::poll::Waker;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::sockets::raw_frames::RawFrameSender;
use adit_linux::tun::{Tun, TunQueue};
use adit_tunnel::{Counters, Instant, Reply, TableDelta, Totals, Tunnel};
use adit_wire::icmpv4::MAX_ERROR_LEN;
use arc_swap::ArcSwap;

use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::ebpf::{EbpfError, FastPath};
use crate::next_hop::NextHops;
use crate::plane::{DataPlane, PlaneKind};

use catch_all::CatchAllReceiver;
use coalesce::Coalescer;
use commands::CommandSender;
use dedup::HandoverDedup;
use offload_sync::OffloadSync;
use outbound::Outbound;
use probing::Probing;
use receivers::ReceiverPool;
use tunnel4_guard::Tunnel4State;
use watcher::Watcher;

/// A running userspace data plane.
pub struct UserspacePlane {
    /// What decides now: packet threads take it anew for each batch.
    tunnel: Arc<ArcSwap<Tunnel>>,
    capacity: Capacity,
    commands: CommandSender,
    counters: Vec<Arc<Counters>>,
    listening: Arc<ReceiverPool>,
    stop: Arc<AtomicBool>,
    device_gone: Arc<AtomicBool>,
    waker: Waker,
    threads: Vec<JoinHandle<()>>,
    /// Open as long as the plane: the kernel must not answer for a protocol it does not know.
    silencer: Option<RawSocket>,
}

impl UserspacePlane {
    /// Starts forwarding between `tun` and the underlay of the calling thread's network
    /// namespace. When it returns, a datagram sent now goes through: the sockets are open and
    /// the peers' next hops have been asked for.
    ///
    /// # Errors
    /// A socket that could not be opened, with what to do.
    pub fn start(tunnel: Arc<Tunnel>, tun: Tun, underlay: Ipv4Addr) -> Result<Self, Error> {
        // Without programs there is nothing that could fail but system calls.
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
        let device = tun.name().to_owned();
        let inside = tun.scope().clone();
        let queues: Vec<Arc<TunQueue>> = tun.into_queues().into_iter().map(Arc::new).collect();
        let mtu =
            tunnel.peers().map(|(peer, _)| usize::from(tunnel.path_mtu(peer).mtu)).max().unwrap_or(1500);
        let capacity = Capacity::with_headroom(&tunnel);
        let next_hops = Arc::new(NextHops::new(capacity.peers));
        let (commands, orders) = commands::channel()?;
        let decides = Arc::new(ArcSwap::new(Arc::clone(&tunnel)));
        let stop = Arc::new(AtomicBool::new(false));
        let device_gone = Arc::new(AtomicBool::new(false));
        let waker = Waker::new()?;
        let listening = Arc::new(ReceiverPool {
            tunnel: Arc::clone(&decides),
            peers: capacity.peers,
            queues: queues.clone(),
            udp,
            underlay,
            mtu,
            clock: Clock,
            stop: Arc::clone(&stop),
            waker: waker.clone(),
            started: Mutex::default(),
        });
        // From here on, dropping it ends what was started.
        let mut plane = Self {
            tunnel: Arc::clone(&decides),
            capacity,
            commands,
            counters: Vec::new(),
            listening: Arc::clone(&listening),
            stop: Arc::clone(&stop),
            device_gone: Arc::clone(&device_gone),
            waker: waker.clone(),
            threads: Vec::new(),
            silencer: None,
        };
        let fast = match (fast_path, queues.first()) {
            (Some(programs), Some(queue)) => Some(OffloadSync {
                programs,
                catch_all: CatchAllReceiver {
                    socket: RawSocket::ipip(underlay)?,
                    up: listening.up(queue, plane.shard()),
                    coalescer: Coalescer::new(1, udp),
                },
                listening,
                devices: BTreeMap::new(),
                listened: Vec::new(),
                any_interface: false,
            }),
            _ => {
                plane.silencer = Some(RawSocket::protocol4_placeholder(underlay)?);
                listening.open(None)?.start(&listening, HandoverDedup::default())?;
                None
            }
        };
        // Behind programs the kernel routes what leaves from here. Else a packet thread follows its way out to another
        // interface, or to where a capture sees it.
        let opens_sockets = fast.is_none();
        let mut outbound = Vec::new();
        let mut senders = Vec::new();
        for (number, queue) in queues.into_iter().enumerate() {
            let counters = plane.shard();
            senders.push(Arc::clone(&counters));
            outbound.push(Outbound {
                queue,
                number,
                tunnel: Arc::clone(&decides),
                counters,
                next_hops: Arc::clone(&next_hops),
                raw: RawFrameSender::open(outbound::MAX_DATAGRAM, outbound::RAW_BATCH)?,
                replies: reply_sender(&inside)?,
                link: None,
                clock: Clock,
                stop: Arc::clone(&stop),
                device_gone: Arc::clone(&device_gone),
                waker: waker.clone(),
            });
        }
        let watcher = Watcher {
            probing: Probing::open(&tunnel, underlay, &inside, plane.shard(), senders)?,
            tunnel,
            decides,
            orders,
            next_hops,
            // What programs decline does not get as far as the kernel's tunnel drivers.
            tunnel4: fast.is_none().then(|| Tunnel4State::of(&device)),
            fast,
            underlay,
            device,
            clock: Clock,
            stop,
            waker,
        }
        .prepare()?;
        plane.threads.push(spawn("adit-watch", move || watcher.run())?);
        for (number, outbound) in outbound.into_iter().enumerate() {
            plane.threads.push(spawn(&format!("adit-out-{number}"), move || {
                confine(opens_sockets);
                outbound.run();
            })?);
        }
        Ok(plane)
    }

    /// Counters for one thread, which are in the totals.
    fn shard(&mut self) -> Arc<Counters> {
        let shard = Arc::new(Counters::new(self.capacity.peers));
        self.counters.push(Arc::clone(&shard));
        shard
    }
}

/// A thread inherits the namespace of the one that starts it.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Error::new(format!("cannot start the thread {name}"), error))
}

/// What answers go out by, where the hosts inside are not reached as the underlay is.
fn reply_sender(inside: &NetScope) -> Result<Option<RawFrameSender>, Error> {
    let open = || RawFrameSender::open_in(inside, MAX_ERROR_LEN, outbound::RAW_BATCH);
    inside.is_separate().then(open).transpose()
}

/// Leaves the calling thread what moves packets. Where the kernel cannot, forwarding is worth more.
fn confine(opens_sockets: bool) {
    if let Err(error) = privileges::confine_packet_thread(opens_sockets) {
        tracing::warn!(%error, "a packet thread keeps more rights than it needs");
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

    fn tunnel(&self) -> Arc<Tunnel> {
        self.tunnel.load_full()
    }

    fn update_peers(&mut self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        if !self.capacity.holds(&tunnel, steps) {
            return Err("it has no room for more peers or networks".to_owned());
        }
        self.commands.update_peers(tunnel, steps)
    }

    fn totals(&self) -> Totals {
        let started = self.listening.started.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::sum(self.counters.iter().chain(&started.counters).map(AsRef::as_ref));
        totals.peers.truncate(self.tunnel.load().peer_slots());
        totals
    }

    fn own_totals(&self) -> Totals {
        self.totals()
    }

    fn check(&self) -> Result<(), String> {
        self.failure().map_or(Ok(()), |failure| Err(failure.to_owned()))
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn failure(&self) -> Option<&'static str> {
        self.device_gone.load(Ordering::Relaxed).then_some("the tunnel's device was deleted by somebody else")
    }

    fn shutdown(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        self.silencer = None;
        // The watcher may start threads that listen, so those are asked for when it has ended.
        join(std::mem::take(&mut self.threads));
        join(self.listening.take_threads());
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a packet thread had panicked");
        }
    }
}

impl Drop for UserspacePlane {
    fn drop(&mut self) {
        self.shutdown();
    }
}
