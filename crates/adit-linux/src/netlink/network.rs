//! What a control plane needs of a network namespace, so that it can be tested against a model.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Address, Link, Netlink, Route, RouteLookup};
use crate::error::Result;

/// Links, addresses and routes of one network namespace: the kernel's, by [`Netlink`], or a
/// test's. The methods are those of [`Netlink`], with the same errors.
pub trait Network {
    /// See [`Netlink::links`].
    ///
    /// # Errors
    /// As there.
    fn links(&mut self) -> Result<Vec<Link>>;
    /// See [`Netlink::link`].
    ///
    /// # Errors
    /// As there.
    fn link(&mut self, name: &str) -> Result<Option<Link>>;
    /// See [`Netlink::link_by_index`].
    ///
    /// # Errors
    /// As there.
    fn link_by_index(&mut self, index: u32) -> Result<Option<Link>>;
    /// See [`Netlink::set_up`].
    ///
    /// # Errors
    /// As there.
    fn set_up(&mut self, index: u32) -> Result<()>;
    /// See [`Netlink::set_down`].
    ///
    /// # Errors
    /// As there.
    fn set_down(&mut self, index: u32) -> Result<()>;
    /// See [`Netlink::set_mtu`].
    ///
    /// # Errors
    /// As there.
    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()>;
    /// See [`Netlink::set_alias`].
    ///
    /// # Errors
    /// As there.
    fn set_alias(&mut self, index: u32, alias: &str) -> Result<()>;
    /// See [`Netlink::set_txqueuelen`].
    ///
    /// # Errors
    /// As there.
    fn set_txqueuelen(&mut self, index: u32, packets: u32) -> Result<()>;
    /// See [`Netlink::delete_link`].
    ///
    /// # Errors
    /// As there.
    fn delete_link(&mut self, index: u32) -> Result<()>;
    /// See [`Netlink::addresses`].
    ///
    /// # Errors
    /// As there.
    fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>>;
    /// See [`Netlink::add_address`].
    ///
    /// # Errors
    /// As there.
    fn add_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()>;
    /// See [`Netlink::delete_address`].
    ///
    /// # Errors
    /// As there.
    fn delete_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()>;
    /// See [`Netlink::routes`].
    ///
    /// # Errors
    /// As there.
    fn routes(&mut self) -> Result<Vec<Route>>;
    /// See [`Netlink::add_route`].
    ///
    /// # Errors
    /// As there.
    fn add_route(&mut self, route: &Route) -> Result<()>;
    /// See [`Netlink::replace_route`].
    ///
    /// # Errors
    /// As there.
    fn replace_route(&mut self, route: &Route) -> Result<()>;
    /// See [`Netlink::delete_route`].
    ///
    /// # Errors
    /// As there.
    fn delete_route(&mut self, route: &Route) -> Result<()>;
    /// See [`Netlink::route_to`].
    ///
    /// # Errors
    /// As there.
    fn route_to(&mut self, destination: Ipv4Addr, source: Option<Ipv4Addr>) -> Result<RouteLookup>;
}

impl Network for Netlink {
    fn links(&mut self) -> Result<Vec<Link>> {
        Netlink::links(self)
    }

    fn link(&mut self, name: &str) -> Result<Option<Link>> {
        Netlink::link(self, name)
    }

    fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        Netlink::link_by_index(self, index)
    }

    fn set_up(&mut self, index: u32) -> Result<()> {
        Netlink::set_up(self, index)
    }

    fn set_down(&mut self, index: u32) -> Result<()> {
        Netlink::set_down(self, index)
    }

    fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        Netlink::set_mtu(self, index, mtu)
    }

    fn set_alias(&mut self, index: u32, alias: &str) -> Result<()> {
        Netlink::set_alias(self, index, alias)
    }

    fn set_txqueuelen(&mut self, index: u32, packets: u32) -> Result<()> {
        Netlink::set_txqueuelen(self, index, packets)
    }

    fn delete_link(&mut self, index: u32) -> Result<()> {
        Netlink::delete_link(self, index)
    }

    fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>> {
        Netlink::addresses(self, index)
    }

    fn add_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()> {
        Netlink::add_address(self, index, prefix)
    }

    fn delete_address(&mut self, index: u32, prefix: Ipv4Net) -> Result<()> {
        Netlink::delete_address(self, index, prefix)
    }

    fn routes(&mut self) -> Result<Vec<Route>> {
        Netlink::routes(self)
    }

    fn add_route(&mut self, route: &Route) -> Result<()> {
        Netlink::add_route(self, route)
    }

    fn replace_route(&mut self, route: &Route) -> Result<()> {
        Netlink::replace_route(self, route)
    }

    fn delete_route(&mut self, route: &Route) -> Result<()> {
        Netlink::delete_route(self, route)
    }

    fn route_to(&mut self, destination: Ipv4Addr, source: Option<Ipv4Addr>) -> Result<RouteLookup> {
        Netlink::route_to(self, destination, source)
    }
}
