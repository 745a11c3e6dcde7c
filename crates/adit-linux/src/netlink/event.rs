//! What changes in a network namespace, as the kernel tells it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::socket::Socket;
use super::{Address, Link, Neighbour, Route, address, link, neighbour, route};
use crate::error::{Error, Result};
use crate::process::wait;

/// What to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Interfaces that come, go and change.
    Link,
    /// IPv4 addresses.
    Address,
    /// IPv4 routes.
    Route,
    /// IPv4 neighbours.
    Neighbour,
}

impl Group {
    fn number(self) -> u32 {
        match self {
            Self::Link => libc::RTNLGRP_LINK,
            Self::Address => libc::RTNLGRP_IPV4_IFADDR,
            Self::Route => libc::RTNLGRP_IPV4_ROUTE,
            Self::Neighbour => libc::RTNLGRP_NEIGH,
        }
    }
}

/// Something that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface came or changed; this is what it is now.
    Link(Link),
    /// The interface of this number is gone.
    LinkGone(u32),
    /// A route came, changed or went. The kernel does not tell of those that go with an interface
    /// that goes down.
    RouteChanged {
        /// The route.
        route: Route,
        /// Whether it went.
        gone: bool,
    },
    /// An address came (or was renewed) or went.
    AddressChanged {
        /// The address.
        address: Address,
        /// Whether it went.
        gone: bool,
    },
    /// What is known of a neighbour changed.
    NeighbourChanged(Neighbour),
    /// What was known of a neighbour is forgotten.
    NeighbourGone(Neighbour),
    /// More happened than could be kept: look at everything anew.
    Overrun,
}

/// What changes from the moment it was opened on. Subscribe first, then look: what happens in
/// between is then not missed.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    waiting: VecDeque<Event>,
}

/// Room for what happens while nobody listens: thousands of changes.
const RECEIVE_BUFFER: usize = 1 << 20;

impl Events {
    /// Subscribes to what happens in the calling thread's network namespace.
    ///
    /// # Errors
    /// As [`super::Netlink::open`].
    pub fn open(groups: &[Group]) -> Result<Self> {
        let numbers: Vec<u32> = groups.iter().map(|group| group.number()).collect();
        let events = Self { socket: Socket::open(&numbers)?, waiting: VecDeque::new() };
        events.set_receive_buffer(RECEIVE_BUFFER)?;
        Ok(events)
    }

    /// Sets how much may wait to be read, in bytes of the kernel's memory, before an
    /// [`Event::Overrun`]; the kernel doubles it and allows no more than `net.core.rmem_max`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<()> {
        let what = "cannot size the receive buffer of a netlink socket";
        self.socket.set_receive_buffer(bytes).map_err(|error| Error::new(what, error))
    }

    /// The next change, if one waits.
    ///
    /// # Errors
    /// What the kernel says; never that changes were lost, which is an event.
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

    /// The next change, waiting for at most `patience`.
    ///
    /// # Errors
    /// As [`Self::try_next`].
    pub fn next(&mut self, patience: Duration) -> Result<Option<Event>> {
        let deadline = std::time::Instant::now() + patience;
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(Some(event));
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if !wait(&self.socket, Some(left)).map_err(failed)? {
                return Ok(None);
            }
        }
    }
}

impl AsFd for Events {
    /// Can be read when something happened. That may be nothing that was asked for:
    /// [`Events::try_next`] knows.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(error: io::Error) -> Error {
    Error::new("cannot read what changes in the network", error)
}

fn of_message(message: RouteNetlinkMessage) -> Option<Event> {
    match message {
        RouteNetlinkMessage::NewLink(message) => link::of_message(message).map(Event::Link),
        // A port that leaves a bridge is told as a link of the bridge's family that goes.
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
        _ => None,
    }
}
