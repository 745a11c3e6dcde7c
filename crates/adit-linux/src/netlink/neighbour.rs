//! Neighbours: the link-layer addresses of addresses on a link (RFC 826, RFC 4861).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    self, NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::error::Result;

/// The kernel's entry about a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface by which it is reached.
    pub index: u32,
    /// Its address.
    pub ip: IpAddr,
    /// Its link-layer address, if it is known and an Ethernet address.
    pub mac: Option<[u8; 6]>,
    /// The state of the entry.
    pub state: NeighbourState,
}

/// The state of a neighbour's entry (`NUD_*`, after RFC 4861 section 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// The kernel has asked for the address and has no answer yet.
    Incomplete,
    /// The neighbour was reachable recently.
    Reachable,
    /// The neighbour was reachable a longer time ago.
    Stale,
    /// The entry is stale and in use. The kernel will probe unless the neighbour confirms it.
    Delay,
    /// The kernel probes whether the neighbour is still reachable.
    Probe,
    /// The neighbour did not answer.
    Failed,
    /// The link uses no link-layer addresses.
    Noarp,
    /// An administrator has set the entry.
    Permanent,
    /// There is no state, or one unknown to this version.
    None,
}

impl NeighbourState {
    /// Returns true if packets can be sent to the link-layer address in the entry.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::Noarp | Self::Permanent => true,
            Self::Incomplete | Self::Failed | Self::None => false,
        }
    }
}

impl Netlink {
    /// Lists the neighbours on an interface, of both families. The kernel's own entries are among
    /// them, such as those of the multicast groups that it has sent to.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Unspec;
        // In a listing the kernel reads the interface from an attribute and not from the header.
        message.attributes.push(NeighbourAttribute::IfIndex(index));
        let what = || format!("cannot list the neighbours on interface {index}");
        let answers = self.socket.dump(&RouteNetlinkMessage::GetNeighbour(message), what)?;
        let all = answers.into_iter().filter_map(in_answer);
        Ok(all.filter(|neighbour| neighbour.index == index).collect())
    }

    /// Returns the entry of the neighbour `ip` on an interface, if there is one.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn neighbour(&mut self, index: u32, ip: impl Into<IpAddr>) -> Result<Option<Neighbour>> {
        let ip = ip.into();
        let what = || format!("cannot look up the neighbour {ip} on interface {index}");
        match self.socket.request(RouteNetlinkMessage::GetNeighbour(about(index, ip)), 0, what) {
            Ok(answers) => Ok(answers.into_iter().find_map(in_answer)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Marks the neighbour as in use (`NTF_USE`). The kernel then resolves an unknown neighbour,
    /// and after a while probes a known one. Returns at once. An entry that an administrator has
    /// set is left alone, because the kernel would forget it and resolve it.
    ///
    /// # Errors
    /// There is no such interface, or CAP_NET_ADMIN is missing.
    pub fn use_neighbour(&mut self, index: u32, ip: impl Into<IpAddr>) -> Result<()> {
        let ip = ip.into();
        let known = self.neighbour(index, ip)?;
        if known.is_some_and(|known| known.state == NeighbourState::Permanent) {
            return Ok(());
        }
        let mut message = about(index, ip);
        message.header.flags = NeighbourFlags::Use;
        let what = || format!("cannot resolve the neighbour {ip} on interface {index}");
        self.socket.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE, what).map(drop)
    }

    /// Sets a neighbour's link-layer address permanently.
    ///
    /// # Errors
    /// As [`Self::use_neighbour`].
    pub fn set_neighbour(&mut self, index: u32, ip: impl Into<IpAddr>, mac: [u8; 6]) -> Result<()> {
        let ip = ip.into();
        let mut message = about(index, ip);
        message.header.state = neighbour::NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let what = || format!("cannot set the neighbour {ip} on interface {index}");
        self.socket
            .request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, what)
            .map(drop)
    }

    /// Removes a neighbour's entry.
    ///
    /// # Errors
    /// There is none (`ENOENT`), or as [`Self::use_neighbour`].
    pub fn delete_neighbour(&mut self, index: u32, ip: impl Into<IpAddr>) -> Result<()> {
        let ip = ip.into();
        let what = || format!("cannot remove the neighbour {ip} on interface {index}");
        self.socket.request(RouteNetlinkMessage::DelNeighbour(about(index, ip)), 0, what).map(drop)
    }
}

fn about(index: u32, ip: IpAddr) -> NeighbourMessage {
    let (family, address) = match ip {
        IpAddr::V4(ip) => (AddressFamily::Inet, NeighbourAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, NeighbourAddress::Inet6(ip)),
    };
    let mut message = NeighbourMessage::default();
    message.header.family = family;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}

fn in_answer(answer: RouteNetlinkMessage) -> Option<Neighbour> {
    match answer {
        RouteNetlinkMessage::NewNeighbour(message) => of_message(message),
        _ => None,
    }
}

/// Returns `None` for an entry without an address of IP, such as a bridge's forwarding entry.
pub(super) fn of_message(message: NeighbourMessage) -> Option<Neighbour> {
    let mut ip = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(address.into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => ip = Some(address.into()),
            NeighbourAttribute::LinkLayerAddress(address) => mac = address.try_into().ok(),
            _ => {}
        }
    }
    let state = match message.header.state {
        neighbour::NeighbourState::Incomplete => NeighbourState::Incomplete,
        neighbour::NeighbourState::Reachable => NeighbourState::Reachable,
        neighbour::NeighbourState::Stale => NeighbourState::Stale,
        neighbour::NeighbourState::Delay => NeighbourState::Delay,
        neighbour::NeighbourState::Probe => NeighbourState::Probe,
        neighbour::NeighbourState::Failed => NeighbourState::Failed,
        neighbour::NeighbourState::Noarp => NeighbourState::Noarp,
        neighbour::NeighbourState::Permanent => NeighbourState::Permanent,
        _ => NeighbourState::None,
    };
    Some(Neighbour { index: message.header.ifindex, ip: ip?, mac, state })
}
