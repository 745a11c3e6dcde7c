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
    /// The address and the prefix length of its network.
    pub prefix: Ipv4Net,
    /// Its label, usually the name of the interface.
    pub label: Option<String>,
    /// True if its scope is global: neither the link nor the host.
    pub is_global: bool,
    /// True if the interface has another address, the primary one, in the same network.
    pub is_secondary: bool,
}

impl Netlink {
    /// Lists all addresses, or those of one interface.
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

    /// Adds an address to an interface. While the interface is up, the kernel has a route to the
    /// address's network.
    ///
    /// # Errors
    /// The interface has the address already (`EEXIST`) or does not exist, or CAP_NET_ADMIN is
    /// missing.
    pub fn add_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(about(index, prefix));
        let what = || format!("cannot add the address {prefix} to interface {index}");
        self.socket.request(message, NLM_F_CREATE | NLM_F_EXCL, what).map(drop)
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    /// The interface does not have the address (`EADDRNOTAVAIL`), or CAP_NET_ADMIN is missing.
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
    // Both are equal on every interface that has no other address at its far end.
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    if prefix.prefix_len() < 31 {
        message.attributes.push(AddressAttribute::Broadcast(prefix.broadcast()));
    }
    message
}

/// Returns `None` for an IPv6 address.
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
