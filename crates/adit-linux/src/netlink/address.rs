//! IPv4 addresses of interfaces.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::error::Result;

/// An IPv4 address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address, with the length of its network's prefix.
    pub prefix: Ipv4Net,
    /// Its name, usually the interface's.
    pub label: Option<String>,
    /// Whether the world can send to it, as far as the machine knows: its scope is neither the link nor the host.
    pub is_global: bool,
    /// Whether it is not the first one that the interface has of its network.
    pub is_secondary: bool,
}

impl Netlink {
    /// All addresses, or those of one interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.index = index.unwrap_or(0);
        let what = || match index {
            Some(index) => format!("cannot list the addresses of interface {index}"),
            None => "cannot list the addresses".to_owned(),
        };
        let answers = self.socket.dump(&RouteNetlinkMessage::GetAddress(message), what)?;
        let all = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => of_message(message),
            _ => None,
        });
        Ok(all.filter(|address| index.is_none_or(|index| index == address.index)).collect())
    }

    /// Gives an address to an interface; while that is up, the kernel adds the route to the
    /// address's network.
    ///
    /// # Errors
    /// It has it already, there is no such interface, no CAP_NET_ADMIN.
    pub fn add_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(about(index, prefix));
        let what = || format!("cannot add the address {prefix} to interface {index}");
        self.socket.request(message, NLM_F_CREATE | NLM_F_EXCL, what).map(drop)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// It does not have it, no CAP_NET_ADMIN.
    pub fn delete_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(about(index, prefix));
        let what = || format!("cannot remove the address {prefix} from interface {index}");
        self.socket.request(message, 0, what).map(drop)
    }
}

fn about(index: u32, prefix: Ipv4Net) -> AddressMessage {
    let address = IpAddr::V4(prefix.addr());
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix.prefix_len();
    message.header.scope = match prefix.addr() {
        address if address.is_loopback() => AddressScope::Host,
        address if address.is_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    // Both, as for every interface that is not point-to-point with another address at its far end.
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if prefix.prefix_len() < 31 {
        message.attributes.push(AddressAttribute::Broadcast(prefix.broadcast()));
    }
    message
}

/// `None` for an IPv6 address.
pub(super) fn of_message(message: AddressMessage) -> Option<Address> {
    let mut local = None;
    let mut label = None;
    let is_global = message.header.scope == AddressScope::Universe;
    let is_secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => local = Some(address),
            AddressAttribute::Label(text) => label = Some(text),
            _ => {}
        }
    }
    let prefix = Ipv4Net::new(local?, message.header.prefix_len).ok()?;
    Some(Address { index: message.header.index, prefix, label, is_global, is_secondary })
}
