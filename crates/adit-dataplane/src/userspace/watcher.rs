//! The watcher: one slow thread beside the packet threads. It follows routes, neighbours and the
//! host's rules, keeps the offload in step, and runs the tunnel's timers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::netlink::{Event, Events, Group, Netlink, ROUTE_PROTOCOL};
use adit_linux::sockets::packet_listeners::PacketListeners;
use adit_linux::sockets::poll::{Waker, wait_readable};
use adit_tunnel::{Path, PeerIndex, Tunnel};
use arc_swap::ArcSwap;

use super::commands::{Command, CommandReceiver};
use super::offload::Offload;
use super::offload_sync::OffloadSync;
use super::policy_receiver::PolicyReceiver;
use super::prober_thread::ProberSignals;
use super::protocol_claim::ProtocolClaim;
use super::underlay::Underlay;
use crate::clock::Clock;
use crate::host_rules::HostRulesWatch;
use crate::liveness::Heartbeat;
use crate::next_hop::{LinkDevice, Mac, NextHops};
use crate::tunnel_interface::TunnelInterface;
use crate::underlay_sources::UnderlaySources;

/// How often neighbours must confirm that they are reachable, as the kernel asks of those that it
/// sends to itself (RFC 4861 section 7.3.1; Linux `delay_first_probe_time` is 5 s).
const NEIGHBOUR_REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// How often everything is looked up again without an event, in case one was lost.
const FULL_LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// How often to look for captures: the longest time for which one misses outgoing packets.
const TAP_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a start waits for the next hops to answer.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_millis(300);
/// Bytes of the largest datagram, rounded up.
const BUFFER_LEN: usize = 65_536;

/// What the watcher works with.
pub(super) struct Watcher<O> {
    pub(super) tunnel: Arc<Tunnel>,
    /// Where packet threads find the tunnel.
    pub(super) current: Arc<ArcSwap<Tunnel>>,
    pub(super) commands: CommandReceiver,
    pub(super) prober: ProberSignals,
    pub(super) next_hops: Arc<NextHops>,
    pub(super) claims: Arc<[ProtocolClaim]>,
    /// Behind an offload userspace sends little, and the kernel routes that.
    pub(super) offload: Option<OffloadSync<O>>,
    pub(super) host_rules: HostRulesWatch,
    pub(super) policy_receiver: PolicyReceiver,
    pub(super) sources: UnderlaySources,
    /// `None` where there is no `/proc`: any interface may then have a capture.
    pub(super) listeners: Option<PacketListeners>,
    pub(super) interface: TunnelInterface,
    pub(super) clock: Clock,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
}

/// A watcher that is subscribed to the kernel's events and has looked at the underlay once.
pub(super) struct Prepared<O> {
    watcher: Watcher<O>,
    netlink: Netlink,
    events: Events,
    /// Index of the tunnel interface; 0 if it is in another network namespace.
    device: u32,
    /// A command interrupted the last look at all peers, which must be repeated.
    is_interrupted: bool,
}

impl<O: Offload> Watcher<O> {
    /// Subscribes before it looks, so that no change in between is missed. Then it waits a moment
    /// for neighbours to answer, so that the first datagram need not take the slow path.
    pub(super) fn prepare(self) -> Result<Prepared<O>, O::Error> {
        let mut groups = vec![Group::Link, Group::Neighbour];
        groups.extend(self.sources.iter().flat_map(|source| match source.address {
            IpAddr::V4(_) => [Group::Address, Group::Route, Group::Rule],
            IpAddr::V6(_) => [Group::AddressV6, Group::RouteV6, Group::RuleV6],
        }));
        let events = Events::open(&groups)?;
        let netlink = Netlink::open()?;
        let interface = &self.interface;
        let device = if interface.scope.netns.is_none() { interface.index } else { 0 };
        let mut prepared = Prepared { watcher: self, netlink, events, device, is_interrupted: false };
        // Before anything is sent or accepted.
        prepared.watcher.follow_host_rules();
        prepared.await_neighbours();
        prepared.look_for_taps();
        let Watcher { offload, host_rules, tunnel, .. } = &mut prepared.watcher;
        if let Some(offload) = offload {
            offload.open(tunnel, host_rules.relays_directly())?;
        }
        Ok(prepared)
    }

    /// Follows the host's own rules. Returns true if the next hops must be looked up again.
    fn follow_host_rules(&mut self) -> bool {
        let is_news = self.host_rules.look(&self.tunnel);
        if is_news {
            self.follow_policies();
        }
        is_news
    }

    /// Receives from the peers that are left to the host's stack now.
    fn follow_policies(&mut self) {
        self.policy_receiver.follow(&self.tunnel);
        self.claims.iter().for_each(ProtocolClaim::renew);
    }

    fn receive_catch_all(&mut self, buffer: &mut [u8]) -> bool {
        let now = self.clock.now();
        self.policy_receiver.receive(buffer, now);
        self.offload.as_mut().is_some_and(|offload| offload.receive_catch_all(buffer, now))
    }
}

impl<O: Offload> Prepared<O> {
    /// Looks until every next hop is known, at most for [`NEIGHBOUR_TIMEOUT`].
    fn await_neighbours(&mut self) {
        let deadline = Instant::now() + NEIGHBOUR_TIMEOUT;
        while !self.look() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let Self { watcher, events, device, .. } = self;
            let _ = wait_readable(&[events.as_fd()], &watcher.waker, left);
            drain(events, watcher.sources, *device);
        }
    }

    /// Works until the plane stops.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub(super) fn run(mut self, heartbeat: &Heartbeat) -> Result<(), String> {
        let mut buffer = vec![0u8; BUFFER_LEN];
        // Behind an offload the kernel itself keeps the neighbours fresh.
        let look_interval =
            if self.watcher.offload.is_some() { FULL_LOOK_INTERVAL } else { NEIGHBOUR_REFRESH_INTERVAL };
        let mut looked = Instant::now();
        while !self.watcher.stop.load(Ordering::Relaxed) {
            let due = if self.is_interrupted { Duration::ZERO } else { look_interval };
            heartbeat.beat();
            self.wait(due.saturating_sub(looked.elapsed()))
                .map_err(|error| format!("cannot wait for the underlay's events: {error}"))?;
            while let Some(command) = self.watcher.commands.next() {
                // The sender may have given up; it then makes the change in another way.
                let _ = command.done.send(self.update_peers(&command));
            }
            // Before the offload is synchronised, so that nothing learned meanwhile is missed.
            self.watcher.prober.learned.drain();
            let has_new_interface = self.watcher.receive_catch_all(&mut buffer);
            let has_changed = drain(&mut self.events, self.watcher.sources, self.device);
            let has_new_rules = self.watcher.follow_host_rules();
            if has_changed || has_new_interface || has_new_rules || looked.elapsed() >= due {
                self.look();
                looked = Instant::now();
            }
            self.look_for_taps();
            self.run_timers();
            if let Some(offload) = &mut self.watcher.offload {
                offload.sync(&self.watcher.tunnel, self.watcher.host_rules.relays_directly());
            }
        }
        Ok(())
    }

    /// Waits for something to do, at most until the next look.
    fn wait(&self, until_look: Duration) -> std::io::Result<()> {
        let Watcher { prober, commands, offload, host_rules, policy_receiver, waker, .. } = &self.watcher;
        let left = until_look.min(TAP_CHECK_INTERVAL);
        let mut sources = vec![prober.learned.as_fd(), self.events.as_fd(), commands.ready.as_fd()];
        sources.extend(offload.iter().flat_map(OffloadSync::ready));
        sources.extend(host_rules.news());
        sources.extend(policy_receiver.ready());
        wait_readable(&sources, waker, left)
    }

    fn run_timers(&self) {
        let Watcher { tunnel, clock, .. } = &self.watcher;
        let now = clock.now();
        if tunnel.next_deadline().is_some_and(|deadline| deadline <= now) {
            tunnel.on_deadline(now);
        }
    }

    /// Brings the next hops up to date. Returns true when every peer behind Ethernet has one.
    fn look(&mut self) -> bool {
        let own = self.look_for_sources();
        let Watcher { offload, tunnel, sources, claims, .. } = &mut self.watcher;
        claims.iter().for_each(|claim| claim.look(tunnel));
        let looked = match offload {
            Some(offload) => own.and_then(|own| offload.look(&mut self.netlink, tunnel, *sources, own)),
            None => self.look_at_all(),
        };
        match looked {
            Ok(is_complete) => is_complete,
            Err(error) => {
                tracing::warn!(%error, "cannot read the underlay's routes; the kernel routes outgoing packets");
                self.watcher.next_hops.set_device(None);
                true
            }
        }
    }

    /// Lets nothing be sent from an address of ours while it is not this host's, before anything
    /// else is looked up, which takes long with many peers. Returns the interfaces that have our
    /// addresses.
    fn look_for_sources(&mut self) -> Result<BTreeSet<u32>, Error> {
        let Watcher { offload, next_hops, prober, sources, .. } = &mut self.watcher;
        // If the kernel cannot be asked, it stays as it is.
        let addresses = self.netlink.addresses(None)?;
        let mut devices = BTreeSet::new();
        for source in sources.iter() {
            let family = Family::of(source.address);
            let own = addresses.iter().filter(|address| address.prefix.addr() == source.address);
            let own: Vec<u32> = own.map(|address| address.index).collect();
            let is_missing = own.is_empty();
            devices.extend(own);
            if is_missing != next_hops.is_source_missing(family) {
                next_hops.set_source_missing(family, is_missing);
                prober.changed.notify();
                if let Some(offload) = offload {
                    offload.set_sending(family, !is_missing);
                }
            }
        }
        Ok(devices)
    }

    /// Changes the peers. Userspace comes first: it takes what the offload does not know yet.
    fn update_peers(&mut self, command: &Command) -> Result<(), String> {
        self.watcher.tunnel = Arc::clone(&command.tunnel);
        for claim in self.watcher.claims.iter() {
            claim.renew();
            claim.look(&command.tunnel);
        }
        // Before a packet thread knows a new peer.
        if self.watcher.host_rules.publish(&command.tunnel) {
            self.watcher.follow_policies();
        }
        let Watcher { tunnel, current, prober, offload, sources, .. } = &mut self.watcher;
        current.store(Arc::clone(tunnel));
        prober.changed.notify();
        match offload {
            Some(offload) => offload.update_peers(&mut self.netlink, tunnel, *sources, &command.steps),
            None => {
                let device = self.watcher.next_hops.device();
                let added = command.steps.added.iter().copied();
                self.look_at(added, device).map(drop).map_err(|error| error.to_string())
            }
        }
    }

    fn look_for_taps(&mut self) {
        let Watcher { next_hops, listeners, .. } = &mut self.watcher;
        let Some(listeners) = listeners else { return next_hops.set_tapped(true) };
        let tapped = next_hops.device().map(|device| listeners.is_tapped(device.index));
        match tapped.unwrap_or(Ok(false)) {
            Ok(tapped) => next_hops.set_tapped(tapped),
            Err(error) => tracing::debug!(%error, "captures are taken to be as before"),
        }
    }

    fn look_at_all(&mut self) -> Result<bool, Error> {
        let tunnel = Arc::clone(&self.watcher.tunnel);
        let (device, is_complete) = self.look_at(tunnel.paths(), None)?;
        if device.is_none() && !self.is_interrupted {
            self.watcher.next_hops.set_device(None);
        }
        Ok(is_complete)
    }

    /// Sets the next hops of these peers. Frames leave by `device`, or else by the first interface
    /// that a route leads to. A waiting command interrupts it.
    fn look_at(
        &mut self,
        paths: impl Iterator<Item = (PeerIndex, Path)> + Clone,
        mut device: Option<LinkDevice>,
    ) -> Result<(Option<LinkDevice>, bool), Error> {
        let Watcher { tunnel, sources, next_hops, commands, .. } = &self.watcher;
        self.is_interrupted = false;
        let seen = Underlay::look(&mut self.netlink, tunnel, *sources, paths)?;
        let mut is_complete = true;
        let mut known: HashMap<(u32, IpAddr), Option<Mac>> = HashMap::new();
        for (peer, route) in &seen.routes {
            let peer = *peer;
            if commands.any_waits() {
                self.is_interrupted = true;
                break;
            }
            let route = route.as_ref().filter(|_| !tunnel.is_left_to_stack(peer));
            let ethernet = route.and_then(|route| Some((route, seen.ethernet(route.device)?)));
            // Without a route the kernel refuses each datagram, which is then counted.
            let Some((route, link, mac)) = ethernet.and_then(|(route, link)| Some((route, link, link.mac?)))
            else {
                next_hops.set(peer, None);
                continue;
            };
            // Frames are made for one interface; the kernel routes to peers behind others.
            let chosen = *device.get_or_insert(LinkDevice { index: link.index, mac });
            if chosen.index != link.index {
                next_hops.set(peer, None);
                continue;
            }
            next_hops.set_device(Some(chosen));
            let next = (link.index, route.next_hop);
            let mac = match known.get(&next) {
                Some(mac) => *mac,
                None => {
                    let mac = use_neighbour(&mut self.netlink, link.index, route.next_hop)?;
                    known.insert(next, mac);
                    mac
                }
            };
            is_complete &= mac.is_some();
            next_hops.set(peer, mac);
        }
        Ok((device, is_complete))
    }
}

/// The link-layer address of a neighbour, if the kernel knows a usable one. The kernel does not see
/// our frames, so this also tells it that the entry is in use.
fn use_neighbour(netlink: &mut Netlink, device: u32, address: IpAddr) -> Result<Option<Mac>, Error> {
    let neighbour = netlink.neighbour(device, address)?;
    netlink.use_neighbour(device, address)?;
    let usable = neighbour.filter(|neighbour| neighbour.state.is_usable());
    Ok(usable.and_then(|neighbour| neighbour.mac))
}

/// Reads the events that are queued. Returns true if there was any but those of neighbours of a
/// family that we do not have, and of our routes: into the tunnel, behind which no peer is, or
/// without an interface. The events only say that something changed: a look finds out what.
fn drain(events: &mut Events, sources: UnderlaySources, device: u32) -> bool {
    let mut any = false;
    for event in events.queued().map_while(Result::ok) {
        any |= match event {
            Event::RouteChanged { route, .. } => {
                route.protocol != ROUTE_PROTOCOL || route.device.is_some_and(|found| found != device)
            }
            Event::NeighbourChanged(neighbour) | Event::NeighbourGone(neighbour) => {
                sources.has(Family::of(neighbour.ip)) && !neighbour.ip.is_multicast()
            }
            _ => true,
        };
    }
    any
}
