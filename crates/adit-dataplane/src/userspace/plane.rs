//! The plane itself: starts the threads, answers for them, and ends them.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_linux::error::Error;
use adit_linux::process::privileges::PacketThread;
use adit_linux::sockets::packet_listeners::PacketListeners;
use adit_linux::sockets::packet_ring::PacketRing;
use adit_linux::sockets::poll::Waker;
use adit_tunnel::{Counters, Instant, TableDelta, Totals, Tunnel};
use arc_swap::ArcSwap;

use super::catch_all::CatchAllReceiver;
use super::commands::{self, CommandSender};
use super::dedup::HandoverDedup;
use super::host_link::HostLink;
use super::icmp_replies::ReplySender;
use super::interface_receivers::InterfaceReceivers;
use super::offload::{NoOffload, Offload};
use super::offload_sync::OffloadSync;
use super::outbound::{self, Outbound};
use super::policy_receiver::PolicyReceiver;
use super::prober_thread::{ProberSignals, ProberThread};
use super::probing::{PlaneCounters, Probing};
use super::protocol_claim::ProtocolClaim;
use super::raw_senders::RawSenders;
use super::receivers::ReceiverPool;
use super::threads;
use super::watcher::Watcher;
use crate::capacity::Capacity;
use crate::clock::Clock;
use crate::host_rules::{HostRules, HostRulesWatch};
use crate::liveness::{self, Thread};
use crate::next_hop::NextHops;
use crate::plane::{DataPlane, PlaneKind};
use crate::tunnel_interface::TunnelInterface;
use crate::underlay_sources::UnderlaySources;

/// Largest outer datagram, in bytes, of a tunnel without peers.
const DEFAULT_MTU: usize = 1500;

/// How long the watcher may stand still: with thousands of peers a look at all routes takes
/// seconds, and on a machine without memory it takes longer.
const WATCHER_LIMIT: Duration = Duration::from_secs(60);

/// A running userspace data plane.
pub struct UserspacePlane {
    /// The current tunnel. Packet threads load it anew for each batch.
    tunnel: Arc<ArcSwap<Tunnel>>,
    capacity: Capacity,
    commands: CommandSender,
    next_hops: Arc<NextHops>,
    counters: Vec<Arc<Counters>>,
    receivers: Arc<ReceiverPool>,
    stop: Arc<AtomicBool>,
    device_gone: Arc<AtomicBool>,
    waker: Waker,
    threads: Vec<Thread>,
    /// What the host's own rules mean, as the watcher has seen last.
    host_rules: Arc<ArcSwap<HostRules>>,
    /// Held until the plane is dropped and not until it ends: another plane may start in its place,
    /// and the kernel must not answer the peers in between. One for each address of ours; none
    /// behind an offload.
    claims: Arc<[ProtocolClaim]>,
}

impl UserspacePlane {
    /// Starts forwarding between the tunnel interface and the underlay of the calling thread's
    /// network namespace. `mark` is the firewall mark of what leaves; 0 is none. When it returns,
    /// datagrams pass: the sockets are open, and the peers' next hops have been looked up.
    ///
    /// # Errors
    /// Fails if a socket cannot be opened; the error says what to do.
    pub fn start(tunnel: Arc<Tunnel>, interface: &TunnelInterface, mark: u32) -> Result<Self, Error> {
        Self::start_behind::<NoOffload>(tunnel, interface, mark, None)
    }

    /// Starts forwarding behind an offload, which it opens.
    pub(crate) fn start_behind<O: Offload>(
        tunnel: Arc<Tunnel>,
        interface: &TunnelInterface,
        mark: u32,
        offload: Option<O>,
    ) -> Result<Self, O::Error> {
        let sources = UnderlaySources { addresses: tunnel.config().underlay, mark };
        let (sender, commands) = commands::channel()?;
        // From here on, dropping the plane ends what was started.
        let (mut plane, hidden_receivers) = Self::idle(&tunnel, interface, sender)?;
        // Without an offload a packet thread follows its next hop to another interface, or to a
        // socket that a capture sees. Behind one, the kernel routes what userspace sends.
        let rights = if offload.is_none() { PacketThread::OpensSenders } else { PacketThread::Plain };
        let offload = plane.start_receivers(interface, sources, offload)?;
        let host_rules =
            HostRulesWatch::open(interface, sources, offload.is_some(), Arc::clone(&plane.host_rules));
        let policy_receiver = PolicyReceiver::new(Arc::clone(&plane.receivers), plane.shard());
        let senders = plane.senders(hidden_receivers.len(), sources, interface)?;
        let counters = PlaneCounters {
            own: plane.shard(),
            others: plane.counters.clone(),
            receivers: Arc::clone(&plane.receivers),
        };
        let offloaded = offload.as_ref().map(OffloadSync::traffic);
        let prober = ProberThread {
            probing: Probing::open(&tunnel, sources, interface, counters, offloaded)?,
            tunnel: Arc::clone(&tunnel),
            current: Arc::clone(&plane.tunnel),
            next_hops: Arc::clone(&plane.next_hops),
            signals: ProberSignals::new()?,
            clock: Clock,
            stop: Arc::clone(&plane.stop),
            waker: plane.waker.clone(),
        };
        let watcher = Watcher {
            prober: prober.signals.clone(),
            tunnel,
            current: Arc::clone(&plane.tunnel),
            commands,
            next_hops: Arc::clone(&plane.next_hops),
            claims: Arc::clone(&plane.claims),
            offload,
            host_rules,
            policy_receiver,
            sources,
            listeners: PacketListeners::open().ok(),
            interface: interface.clone(),
            clock: Clock,
            stop: Arc::clone(&plane.stop),
            waker: plane.waker.clone(),
        };
        let watcher = watcher.prepare()?;
        let limit = liveness::PACKET_THREAD_LIMIT;
        plane.threads.push(liveness::spawn("adit-probe", limit, |heartbeat| prober.run(heartbeat))?);
        plane.threads.push(liveness::spawn("adit-watch", WATCHER_LIMIT, |heartbeat| watcher.run(heartbeat))?);
        let senders = senders.into_iter().zip(hidden_receivers);
        plane.start_senders(senders, rights)?;
        Ok(plane)
    }

    /// A plane without threads, and the receivers on the hidden end.
    fn idle(
        tunnel: &Arc<Tunnel>,
        interface: &TunnelInterface,
        commands: CommandSender,
    ) -> Result<(Self, Vec<Vec<PacketRing>>), Error> {
        let hidden = interface.open()?;
        let host = HostLink {
            sender: hidden.sender,
            mtu: usize::from(interface.mtu),
            takes_udp: hidden.offloads.udp,
            identification: AtomicU16::default(),
        };
        let mtus = tunnel.peers().map(|(peer, _)| usize::from(tunnel.path_mtu(peer).mtu));
        let mtu = mtus.max().unwrap_or(DEFAULT_MTU);
        let capacity = Capacity::with_headroom(tunnel);
        let current = Arc::new(ArcSwap::new(Arc::clone(tunnel)));
        let stop = Arc::new(AtomicBool::new(false));
        let waker = Waker::new()?;
        let receivers = ReceiverPool {
            tunnel: Arc::clone(&current),
            peers: capacity.peers,
            host: Arc::new(host),
            queues: interface.queues,
            underlay: tunnel.config().underlay,
            protocols: interface.protocols(),
            mtu,
            clock: Clock,
            stop: Arc::clone(&stop),
            waker: waker.clone(),
            running: Mutex::default(),
        };
        let plane = Self {
            tunnel: current,
            capacity,
            commands,
            next_hops: Arc::new(NextHops::new(capacity.peers)),
            counters: Vec::new(),
            receivers: Arc::new(receivers),
            stop,
            device_gone: Arc::new(AtomicBool::new(false)),
            waker,
            threads: Vec::new(),
            host_rules: Arc::default(),
            claims: Arc::new([]),
        };
        Ok((plane, hidden.receivers))
    }

    /// Starts to receive: from all interfaces without an offload, and by the offload's interfaces,
    /// which the watcher finds, behind one.
    fn start_receivers<O: Offload>(
        &mut self,
        interface: &TunnelInterface,
        sources: UnderlaySources,
        offload: Option<O>,
    ) -> Result<Option<OffloadSync<O>>, Error> {
        let pool = Arc::clone(&self.receivers);
        let Some(offload) = offload else {
            let device = &interface.hidden_name;
            let claims = sources
                .addresses
                .iter()
                .map(|address| ProtocolClaim::open(device, address, interface.protocols()));
            self.claims = claims.collect::<Result<_, _>>()?;
            pool.bind(None)?.start(&pool, &HandoverDedup::default())?;
            return Ok(None);
        };
        let deliverer = pool.deliverer(self.shard());
        let catch_all = CatchAllReceiver::open(sources.addresses, interface.protocols(), deliverer)?;
        let receivers = InterfaceReceivers::new(Arc::clone(&pool), catch_all);
        Ok(Some(OffloadSync::new(offload, receivers, interface.clone())))
    }

    /// One sender for each receiver on the hidden end, its thread not started yet.
    fn senders(
        &mut self,
        count: usize,
        sources: UnderlaySources,
        interface: &TunnelInterface,
    ) -> Result<Vec<Outbound>, Error> {
        (0..count).map(|number| self.sender(number, sources, interface)).collect()
    }

    fn sender(
        &mut self,
        number: usize,
        sources: UnderlaySources,
        interface: &TunnelInterface,
    ) -> Result<Outbound, Error> {
        Ok(Outbound {
            number,
            tunnel: Arc::clone(&self.tunnel),
            counters: self.shard(),
            next_hops: Arc::clone(&self.next_hops),
            mark: sources.mark,
            raw: RawSenders::open(sources, outbound::MAX_DATAGRAM, outbound::RAW_BATCH)?,
            replies: ReplySender::open(interface)?,
            link: None,
            clock: Clock,
            stop: Arc::clone(&self.stop),
            device_gone: Arc::clone(&self.device_gone),
            waker: self.waker.clone(),
        })
    }

    fn start_senders(
        &mut self,
        senders: impl Iterator<Item = (Outbound, Vec<PacketRing>)>,
        rights: PacketThread,
    ) -> Result<(), Error> {
        for (number, (sender, receiver)) in senders.enumerate() {
            let name = format!("adit-out-{number}");
            self.threads.push(liveness::spawn(&name, liveness::PACKET_THREAD_LIMIT, move |heartbeat| {
                threads::confine(rights);
                sender.run(receiver, heartbeat)
            })?);
        }
        Ok(())
    }

    /// Counters for one thread; the totals include them.
    fn shard(&mut self) -> Arc<Counters> {
        let shard = Arc::new(Counters::new(self.capacity.peers));
        self.counters.push(Arc::clone(&shard));
        shard
    }
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
        let running = self.receivers.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals = Totals::sum(self.counters.iter().chain(&running.counters).map(AsRef::as_ref));
        totals.peers.truncate(self.tunnel.load().peer_slots());
        totals
    }

    fn own_totals(&self) -> Totals {
        self.totals()
    }

    fn host_rules(&self) -> Arc<HostRules> {
        self.host_rules.load_full()
    }

    fn check(&self) -> Result<(), String> {
        if self.device_gone.load(Ordering::Relaxed) {
            return Err("the tunnel interface was deleted by somebody else".to_owned());
        }
        let failure = self.threads.iter().find_map(Thread::failure);
        failure.or_else(|| self.receivers.failure()).map_or(Ok(()), Err)
    }

    fn now(&self) -> Instant {
        Clock.now()
    }

    fn shutdown(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.waker.wake();
        // The watcher may start receivers, so those end last.
        std::mem::take(&mut self.threads).into_iter().for_each(Thread::join);
        self.receivers.take_threads().into_iter().for_each(Thread::join);
    }
}

impl Drop for UserspacePlane {
    fn drop(&mut self) {
        self.shutdown();
    }
}
