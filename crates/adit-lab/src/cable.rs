//! Cables: a veth pair between two hosts, with an address at each end.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::LabError;
use crate::host::Host;

/// One end of a cable.
#[derive(Clone, Copy)]
pub struct CableEnd<'a> {
    /// The host at this end.
    pub host: &'a Host,
    /// The name of its new interface.
    pub device: &'a str,
    /// The interface's address.
    pub address: Ipv4Addr,
}

impl<'a> CableEnd<'a> {
    /// An end at `host`, whose interface `device` gets `address`.
    #[must_use]
    pub const fn new(host: &'a Host, device: &'a str, address: Ipv4Addr) -> Self {
        Self { host, device, address }
    }
}

/// Connects two hosts by a cable whose ends have addresses with this prefix length.
///
/// # Errors
/// Fails if the kernel refuses the pair or an address.
pub fn connect(a: CableEnd<'_>, b: CableEnd<'_>, prefix_len: u8) -> Result<(), LabError> {
    a.host.connect(a.device, b.host, b.device)?;
    for end in [a, b] {
        end.host.address(end.device, network(end.address, prefix_len))?;
    }
    Ok(())
}

/// Connects a host to its gateway by a cable, and gives it a default route through the gateway.
///
/// # Errors
/// Fails if the kernel refuses the pair, an address or the route.
pub fn connect_to_gateway(host: CableEnd<'_>, gateway: CableEnd<'_>, prefix_len: u8) -> Result<(), LabError> {
    connect(gateway, host, prefix_len)?;
    host.host.route(Ipv4Net::default(), Some(gateway.address), None)
}

/// An address with the length of its network's prefix, at most 32.
#[must_use]
pub fn network(address: Ipv4Addr, prefix_len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address, prefix_len)
}
