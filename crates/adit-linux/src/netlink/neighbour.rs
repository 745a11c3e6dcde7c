//! IPv4 neighbours: which link-layer address an address on the link has (RFC 826).

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    self, NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::error::Result;

/// What is known of a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface it is behind.
    pub index: u32,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its link-layer address, if that is known and an Ethernet's.
    pub mac: Option<[u8; 6]>,
    /// How well it is known.
    pub state: NeighbourState,
}

/// How well a neighbour is known (`NUD_*`, after RFC 4861 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for; no answer yet.
    Incomplete,
    /// It has answered lately.
    Reachable,
    /// It has answered, long ago.
    Stale,
    /// It is being used though stale, and will be asked if it does not show itself.
    Delay,
    /// It is being asked whether it is still there.
    Probe,
    /// It did not answer.
    Failed,
    /// The link needs no such addresses.
    Noarp,
    /// An administrator says so.
    Permanent,
    /// Nothing is known, or something new to us.
    None,
}

impl NeighbourState {
    /// Whether its link-layer address is one to send to.
    #[must_use]
    pub fn is_usable(self) -> bool {
        match self {
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::Noarp | Self::Permanent => true,
            Self::Incomplete | Self::Failed | Self::None => false,
        }
    }
}

impl Netlink {
    /// The neighbours behind an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>> {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        // Here the index is an attribute: the header's is not looked at in a listing.
        message.attributes.push(NeighbourAttribute::IfIndex(index));
        let what = || format!("cannot list the neighbours behind interface {index}");
        let answers = self.socket.dump(&RouteNetlinkMessage::GetNeighbour(message), what)?;
        let all = answers.into_iter().filter_map(in_answer);
        Ok(all.filter(|neighbour| neighbour.index == index).collect())
    }

    /// What is known of the neighbour `ip` behind an interface, if anything.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn neighbour(&mut self, index: u32, ip: Ipv4Addr) -> Result<Option<Neighbour>> {
        let what = || format!("cannot look up the neighbour {ip} behind interface {index}");
        match self.socket.request(RouteNetlinkMessage::GetNeighbour(about(index, ip)), 0, what) {
            Ok(answers) => Ok(answers.into_iter().find_map(in_answer)),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tells the kernel that the neighbour is being used, so that it asks for one that is not
    /// known, and after a while whether one that is known is still there. Returns at once. One that an
    /// administrator has set is left alone: the kernel would forget it and ask.
    ///
    /// # Errors
    /// There is no such interface, no CAP_NET_ADMIN.
    pub fn use_neighbour(&mut self, index: u32, ip: Ipv4Addr) -> Result<()> {
        let known = self.neighbour(index, ip)?;
        if known.is_some_and(|known| known.state == NeighbourState::Permanent) {
            return Ok(());
        }
        let mut message = about(index, ip);
        message.header.flags = NeighbourFlags::Use;
        let what = || format!("cannot have the neighbour {ip} behind interface {index} looked for");
        self.socket.request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE, what).map(drop)
    }

    /// Sets a neighbour's link-layer address for good.
    ///
    /// # Errors
    /// As [`Self::use_neighbour`].
    pub fn set_neighbour(&mut self, index: u32, ip: Ipv4Addr, mac: [u8; 6]) -> Result<()> {
        let mut message = about(index, ip);
        message.header.state = neighbour::NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        let what = || format!("cannot set the neighbour {ip} behind interface {index}");
        self.socket
            .request(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE, what)
            .map(drop)
    }

    /// Forgets a neighbour.
    ///
    /// # Errors
    /// It is not known, or as [`Self::use_neighbour`].
    pub fn delete_neighbour(&mut self, index: u32, ip: Ipv4Addr) -> Result<()> {
        let what = || format!("cannot remove the neighbour {ip} behind interface {index}");
        self.socket.request(RouteNetlinkMessage::DelNeighbour(about(index, ip)), 0, what).map(drop)
    }
}

fn about(index: u32, ip: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)));
    message
}

fn in_answer(answer: RouteNetlinkMessage) -> Option<Neighbour> {
    match answer {
        RouteNetlinkMessage::NewNeighbour(message) => of_message(message),
        _ => None,
    }
}

/// `None` for an IPv6 neighbour or a bridge's forwarding entry.
pub(super) fn of_message(message: NeighbourMessage) -> Option<Neighbour> {
    if message.header.family != AddressFamily::Inet {
        return None;
    }
    let mut ip = None;
    let mut mac = None;
    for attribute in message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => ip = Some(address),
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
