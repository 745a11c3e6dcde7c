//! Events: the changes in a network namespace that the kernel reports (`RTNLGRP_*`).

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{self, Address};
use super::link::{self, Link};
use super::neighbour::{self, Neighbour};
use super::route::{self, Route};
use super::socket::Socket;
use crate::error::{Error, Result};
use crate::sockets::poll::readable_within;

/// A kind of object whose changes are reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Interfaces.
    Link,
    /// IPv4 addresses.
    Address,
    /// IPv6 addresses.
    AddressV6,
    /// IPv4 routes.
    Route,
    /// IPv6 routes.
    RouteV6,
    /// Neighbours of both families.
    Neighbour,
    /// IPv4 routing rules (`ip rule`).
    Rule,
    /// IPv6 routing rules (`ip -6 rule`).
    RuleV6,
}

/// Events that one call of [`Events::queued`] reads.
const MAX_QUEUED: usize = 4096;

impl Group {
    fn number(self) -> u32 {
        match self {
            Self::Link => libc::RTNLGRP_LINK,
            Self::Address => libc::RTNLGRP_IPV4_IFADDR,
            Self::AddressV6 => libc::RTNLGRP_IPV6_IFADDR,
            Self::Route => libc::RTNLGRP_IPV4_ROUTE,
            Self::RouteV6 => libc::RTNLGRP_IPV6_ROUTE,
            Self::Neighbour => libc::RTNLGRP_NEIGH,
            Self::Rule => libc::RTNLGRP_IPV4_RULE,
            Self::RuleV6 => libc::RTNLGRP_IPV6_RULE,
        }
    }
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface was added or changed. This is its present state.
    Link(Link),
    /// The interface of this number was removed.
    LinkGone(u32),
    /// A route was added, changed or removed. The kernel does not report the routes that it removes
    /// with an interface that goes down.
    RouteChanged {
        /// The route.
        route: Route,
        /// True if it was removed.
        gone: bool,
    },
    /// An address was added, renewed or removed.
    AddressChanged {
        /// The address.
        address: Address,
        /// True if it was removed.
        gone: bool,
    },
    /// A neighbour's entry was added or changed.
    NeighbourChanged(Neighbour),
    /// A neighbour's entry was removed.
    NeighbourGone(Neighbour),
    /// A routing rule was added or removed.
    RulesChanged,
    /// Changes were lost because too many waited to be read. Read the whole state again.
    Overrun,
}

/// A subscription to changes. Subscribe first and read the state after it; then no change in
/// between is missed.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    waiting: VecDeque<Event>,
}

/// Bytes of the kernel's memory for changes that wait to be read: room for thousands.
const RECEIVE_BUFFER: usize = 1 << 20;

impl Events {
    /// Subscribes to changes in the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`super::Netlink::open`].
    pub fn open(groups: &[Group]) -> Result<Self> {
        let numbers: Vec<u32> = groups.iter().map(|group| group.number()).collect();
        let events = Self { socket: Socket::open(&numbers)?, waiting: VecDeque::new() };
        events.set_receive_buffer(RECEIVE_BUFFER)?;
        Ok(events)
    }

    /// Sets how many bytes of the kernel's memory may wait to be read before an [`Event::Overrun`].
    /// The kernel doubles the number and allows no more than `net.core.rmem_max`.
    ///
    /// # Errors
    /// The kernel refuses to set it.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        let what = "cannot size the receive buffer of a netlink socket";
        self.socket.set_receive_buffer(bytes).map_err(|error| Error::new(what, error))
    }

    /// Reads what is queued, without waiting: at most 4096 events, so that a storm of changes does
    /// not hold the caller.
    pub fn queued(&mut self) -> impl Iterator<Item = Result<Event>> + '_ {
        std::iter::from_fn(|| self.try_next().transpose()).take(MAX_QUEUED)
    }

    /// Returns the next change, if one waits.
    ///
    /// # Errors
    /// The socket cannot be read. Lost changes are an [`Event::Overrun`] and no error.
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Ok(Some(event));
            }
            match self.socket.notifications() {
                Ok(Some(messages)) => self.waiting.extend(messages.into_iter().filter_map(of_message)),
                Ok(None) => return Ok(None),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Event::Overrun)),
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Returns the next change, or `None` if none arrives within `timeout`.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable_within(&self.socket, left).map_err(failed)? {
                return Ok(None);
            }
        }
    }
}

impl AsFd for Events {
    /// The descriptor is readable when the kernel has reported something. It may be nothing that
    /// [`Events::try_next`] returns.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(error: io::Error) -> Error {
    Error::new("cannot read the changes in the network", error)
}

fn of_message(message: RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link::of_message(message).map(Event::Link),
        // A port that leaves a bridge is reported as a removed link of the bridge's family.
        RouteNetlinkMessage::DelLink(message) => (message.header.interface_family == AddressFamily::Unspec)
            .then_some(Event::LinkGone(message.header.index)),
        RouteNetlinkMessage::NewAddress(message) => {
            address::of_message(message).map(|address| Event::AddressChanged { address, gone: false })
        }
        RouteNetlinkMessage::DelAddress(message) => {
            address::of_message(message).map(|address| Event::AddressChanged { address, gone: true })
        }
        RouteNetlinkMessage::NewRoute(message) => {
            route::of_message(message).map(|route| Event::RouteChanged { route, gone: false })
        }
        RouteNetlinkMessage::DelRoute(message) => {
            route::of_message(message).map(|route| Event::RouteChanged { route, gone: true })
        }
        RouteNetlinkMessage::NewNeighbour(message) => {
            neighbour::of_message(message).map(Event::NeighbourChanged)
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            neighbour::of_message(message).map(Event::NeighbourGone)
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => Some(Event::RulesChanged),
        _ => None,
    }
}
