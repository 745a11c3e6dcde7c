//! Addresses of interfaces, of both families.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::error::Result;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address and the prefix length of its network.
    pub prefix: IpNet,
    /// Its label, usually the name of the interface. Those of IPv6 have none.
    pub label: Option<String>,
    /// True if its scope is global: neither the link nor the host.
    pub is_global: bool,
    /// True if the interface has another address, the primary one, in the same network; of IPv6,
    /// if it is a temporary address (RFC 8981).
    pub is_secondary: bool,
    /// True if it is not yet known to be unique, or known not to be. Nothing can be sent from it.
    /// Only those of IPv6 are (RFC 4862 section 5.4).
    pub is_tentative: bool,
    /// True if new flows should use another one. Only those of IPv6 are (RFC 4862 section 5.5.4).
    pub is_deprecated: bool,
}

impl Netlink {
    /// Lists all addresses, or those of one interface.
    ///
    /// # Errors
    /// There is no such interface.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>> {
        let mut message = AddressMessage::default();
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
    /// address's network. One of IPv6 is not checked for duplicates, so it can be used at once.
    ///
    /// # Errors
    /// The interface has the address already (`EEXIST`) or does not exist, or CAP_NET_ADMIN is
    /// missing.
    pub fn add_address(&mut self, index: u32, prefix: IpNet) -> Result<()> {
        let mut message = about(index, prefix);
        if prefix.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let what = || format!("cannot add the address {prefix} to interface {index}");
        self.socket.request(message, NLM_F_CREATE | NLM_F_EXCL, what).map(drop)
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    /// The interface does not have the address (`EADDRNOTAVAIL`), or CAP_NET_ADMIN is missing.
    pub fn delete_address(&mut self, index: u32, prefix: IpNet) -> Result<()> {
        let message = RouteNetlinkMessage::DelAddress(about(index, prefix));
        let what = || format!("cannot remove the address {prefix} from interface {index}");
        self.socket.request(message, 0, what).map(drop)
    }
}

fn about(index: u32, prefix: IpNet) -> AddressMessage {
    let address = prefix.addr();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = prefix.prefix_len();
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    message.header.scope = match address {
        address if address.is_loopback() => AddressScope::Host,
        _ if is_link_local => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    // Both are equal on every interface that has no other address at its far end.
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message.header.family = AddressFamily::Inet6;
    if let IpNet::V4(prefix) = prefix {
        message.header.family = AddressFamily::Inet;
        if prefix.prefix_len() < 31 {
            message.attributes.push(AddressAttribute::Broadcast(prefix.broadcast()));
        }
    }
    message
}

/// Returns `None` for an address of another family.
pub(super) fn of_message(message: AddressMessage) -> Option<Address> {
    let (mut local, mut remote) = (None, None);
    let mut label = None;
    let is_global = message.header.scope == AddressScope::Universe;
    let is_v6 = message.header.family == AddressFamily::Inet6;
    let flags = message.header.flags;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(address),
            // Of IPv6 it is the only one, unless the far end has an address too.
            AddressAttribute::Address(address) if is_v6 => remote = Some(address),
            AddressAttribute::Label(text) => label = Some(text),
            _ => {}
        }
    }
    let prefix = IpNet::new(local.or(remote)?, message.header.prefix_len).ok()?;
    let is_tentative = AddressHeaderFlags::Tentative | AddressHeaderFlags::Dadfailed;
    Some(Address {
        index: message.header.index,
        prefix,
        label,
        is_global,
        is_secondary: flags.contains(AddressHeaderFlags::Secondary),
        is_tentative: flags.intersects(is_tentative),
        is_deprecated: flags.contains(AddressHeaderFlags::Deprecated),
    })
}
