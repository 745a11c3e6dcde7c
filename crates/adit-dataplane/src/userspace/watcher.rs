//! What is not a datagram of the tunnel: ICMP errors from inside it, probes of its paths, the underlay's routes
//! and neighbours as they change, and the tunnel's deadlines. One slow thread beside the fast ones.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_linux::error::Error;
use adit_linux::netlink::{Event, Events, Group, Netlink, ROUTE_PROTOCOL};
use adit_linux::sockets::packet_listeners;
use adit_linux::sockets::poll::{Waker, wait_readable_any};
use adit_tunnel::Tunnel;
use arc_swap::ArcSwap;

use super::commands::{Command, CommandReceiver};
use super::offload_sync::OffloadSync;
use super::probing::Probing;
use super::tunnel4_guard::Tunnel4State;
use super::underlay::{At, Underlay, everybody};
use crate::clock::Clock;
use crate::ebpf::EbpfError;
use crate::next_hop::{LinkDevice, Mac, NextHops};

/// How often neighbours are asked to prove that they are still there, as the kernel itself does
/// for those it sends to (RFC 4861 7.3.1; Linux `delay_first_probe_time` is 5 s).
const REFRESH: Duration = Duration::from_secs(2);
/// How often everything is looked at again though nothing was said: a lost event must not last.
const AUDIT: Duration = Duration::from_secs(30);
/// How often it is looked whether somebody listens: the longest a capture misses what leaves.
const LISTENERS: Duration = Duration::from_millis(250);
/// How long a start waits for the peers' next hops to answer.
const SETTLE: Duration = Duration::from_millis(300);

/// What the thread works on.
pub(crate) struct Watcher {
    pub(crate) tunnel: Arc<Tunnel>,
    /// Where packet threads find it.
    pub(crate) decides: Arc<ArcSwap<Tunnel>>,
    pub(crate) orders: CommandReceiver,
    pub(crate) probing: Probing,
    pub(crate) next_hops: Arc<NextHops>,
    pub(crate) tunnel4: Option<Tunnel4State>,
    /// Where there is one, what is sent from userspace is rare, and the kernel routes it.
    pub(crate) fast: Option<OffloadSync>,
    pub(crate) underlay: Ipv4Addr,
    /// The tunnel's interface.
    pub(crate) device: String,
    pub(crate) clock: Clock,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) waker: Waker,
}

/// A watcher that listens to the kernel and has looked at it once.
pub(crate) struct Prepared {
    watcher: Watcher,
    netlink: Netlink,
    events: Events,
    /// The index of the tunnel's interface.
    device: u32,
    /// The last look at all peers was left for an order, and is to be taken again.
    is_interrupted: bool,
}

impl Watcher {
    /// Subscribes, then looks: nothing that happens in between is missed. Waits a moment for
    /// neighbours to answer, so that the first datagram need not take the slow way.
    pub(crate) fn prepare(self) -> Result<Prepared, EbpfError> {
        let events = Events::open(&[Group::Link, Group::Address, Group::Route, Group::Neighbour])?;
        let mut netlink = Netlink::open()?;
        let device = netlink.link(&self.device)?.map_or(0, |link| link.index);
        let mut prepared = Prepared { watcher: self, netlink, events, device, is_interrupted: false };
        let deadline = std::time::Instant::now() + SETTLE;
        while !prepared.look() {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                break;
            }
            let Prepared { watcher, events, device, .. } = &mut prepared;
            let _ = wait_readable_any(&[events.as_fd()], &watcher.waker, Some(left));
            drain(events, *device);
        }
        prepared.look_for_taps();
        if let Some(fast) = &mut prepared.watcher.fast {
            fast.open(&prepared.watcher.tunnel)?;
        }
        Ok(prepared)
    }
}

impl Prepared {
    /// Works until told to stop.
    pub(crate) fn run(mut self) {
        let mut buffer = vec![0u8; 65_536];
        // With programs in front, the kernel itself keeps the neighbours fresh.
        let refresh = if self.watcher.fast.is_some() { AUDIT } else { REFRESH };
        let mut looked = std::time::Instant::now();
        while !self.watcher.stop.load(Ordering::Relaxed) {
            let deadline = self.watcher.probing.next_deadline();
            let left = deadline.map_or(LISTENERS, |deadline| deadline.since(self.watcher.clock.now()));
            let due = if self.is_interrupted { Duration::ZERO } else { refresh };
            let left = due.saturating_sub(looked.elapsed()).min(LISTENERS).min(left);
            let icmp = self.watcher.probing.icmp.as_fd();
            let mut sources = vec![icmp, self.events.as_fd(), self.watcher.orders.bell.as_fd()];
            sources.extend(self.watcher.fast.as_ref().map(|fast| fast.catch_all.socket.as_fd()));
            if let Err(error) = wait_readable_any(&sources, &self.watcher.waker, Some(left)) {
                tracing::error!(%error, "cannot wait for the underlay's events");
                return;
            }
            while let Some(order) = self.watcher.orders.next() {
                // Whoever does not wait any more has it done some other way.
                let _ = order.done.send(self.update_peers(&order));
            }
            self.watcher.probe(&mut buffer);
            let strayed = self.watcher.catch_all(&mut buffer);
            let changed = drain(&mut self.events, self.device);
            if changed || strayed || looked.elapsed() >= due {
                self.look();
                looked = std::time::Instant::now();
            }
            self.look_for_taps();
            let now = self.watcher.clock.now();
            if self.watcher.tunnel.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.watcher.tunnel.on_deadline(now);
            }
            if let Some(fast) = &mut self.watcher.fast {
                fast.sync(&self.watcher.tunnel);
            }
        }
    }

    /// Brings the next hops up to date; `true` when every peer behind Ethernet has one.
    fn look(&mut self) -> bool {
        let Watcher { fast, tunnel, underlay, tunnel4, .. } = &mut self.watcher;
        if let Some(tunnel4) = tunnel4 {
            tunnel4.look(tunnel, *underlay);
        }
        let looked = match fast {
            Some(fast) => fast.look(&mut self.netlink, tunnel, *underlay),
            None => self.try_look(),
        };
        match looked {
            Ok(settled) => settled,
            Err(error) => {
                tracing::warn!(%error, "cannot learn the underlay's routes; the kernel routes what leaves the tunnel");
                self.watcher.next_hops.set_device(None);
                true
            }
        }
    }

    /// Other peers from now on: in userspace first, which takes what programs do not know yet.
    fn update_peers(&mut self, order: &Command) -> Result<(), String> {
        if matches!(self.watcher.tunnel4, Some(Tunnel4State::Quiet { .. })) {
            return Err("the rule that keeps the kernel's tunnel drivers quiet names its peers".to_owned());
        }
        let Watcher { tunnel, decides, probing, fast, underlay, .. } = &mut self.watcher;
        *tunnel = Arc::clone(&order.tunnel);
        probing.follow(tunnel);
        decides.store(Arc::clone(tunnel));
        match fast {
            Some(fast) => fast.update_peers(&mut self.netlink, tunnel, *underlay, &order.steps),
            None => {
                let device = self.watcher.next_hops.device();
                self.look_at(&order.steps.added, device).map(drop).map_err(|error| error.to_string())
            }
        }
    }

    fn look_for_taps(&self) {
        let hops = &self.watcher.next_hops;
        let tapped =
            hops.device().is_some_and(|device| packet_listeners::is_tapped(device.index).unwrap_or(true));
        hops.set_tapped(tapped);
    }

    fn try_look(&mut self) -> Result<bool, Error> {
        let peers = everybody(&self.watcher.tunnel);
        let (device, settled) = self.look_at(&peers, None)?;
        if device.is_none() && !self.is_interrupted {
            self.watcher.next_hops.set_device(None);
        }
        Ok(settled)
    }

    /// Sets the next hops of these peers: behind the interface that frames are made for, or else behind the first
    /// that there is. Where nobody is to wait, it is left for what has been ordered meanwhile.
    fn look_at(
        &mut self,
        peers: &[At],
        mut device: Option<LinkDevice>,
    ) -> Result<(Option<LinkDevice>, bool), Error> {
        let Watcher { tunnel, underlay, next_hops: hops, orders, .. } = &self.watcher;
        self.is_interrupted = false;
        let seen = Underlay::look(&mut self.netlink, tunnel, *underlay, peers)?;
        let mut settled = true;
        let mut known: HashMap<(u32, Ipv4Addr), Option<Mac>> = HashMap::new();
        for (index, route) in &seen.routes {
            let index = *index;
            if orders.any_waits() {
                self.is_interrupted = true;
                break;
            }
            let ethernet = route.as_ref().and_then(|route| Some((route, seen.ethernet(route.device)?)));
            // No route: the kernel says so for each datagram, and counts it.
            let Some((route, link, mac)) = ethernet.and_then(|(route, link)| Some((route, link, link.mac?)))
            else {
                hops.set(index, None);
                continue;
            };
            // One interface has frames made for it; peers behind others are the kernel's.
            let chosen = *device.get_or_insert(LinkDevice { index: link.index, mac });
            if chosen.index != link.index {
                hops.set(index, None);
                continue;
            }
            hops.set_device(Some(chosen));
            let next = (link.index, route.next_hop);
            let mac = match known.get(&next) {
                Some(mac) => *mac,
                None => {
                    let neighbour = self.netlink.neighbour(link.index, route.next_hop)?;
                    // The kernel does not see what we send, so it has to be told that the entry is used.
                    self.netlink.use_neighbour(link.index, route.next_hop)?;
                    let usable = neighbour.filter(|neighbour| neighbour.state.is_usable());
                    let mac = usable.and_then(|neighbour| neighbour.mac);
                    known.insert(next, mac);
                    mac
                }
            };
            settled &= mac.is_some();
            hops.set(index, mac);
        }
        Ok((device, settled))
    }
}

impl Watcher {
    fn catch_all(&mut self, buffer: &mut [u8]) -> bool {
        let now = self.clock.now();
        self.fast.as_mut().is_some_and(|fast| fast.receive_catch_all(buffer, now))
    }

    fn probe(&mut self, buffer: &mut [u8]) {
        let now = self.clock.now();
        self.probing.take_icmp(&self.tunnel, buffer, now);
        self.probing.advance(&self.tunnel, self.fast.as_ref(), now);
    }
}

/// Empties the queue of events; `true` when there were any but of routes into the tunnel, behind which no peer is. What
/// they say is looked up anew.
fn drain(events: &mut Events, device: u32) -> bool {
    let mut any = false;
    while let Ok(Some(event)) = events.try_next() {
        any |= !matches!(event, Event::RouteChanged { route, .. }
            if route.protocol == ROUTE_PROTOCOL && route.device == Some(device));
    }
    any
}
