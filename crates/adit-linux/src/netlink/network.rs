//! The network namespace as a control plane sees it, so that its decisions can be tested against
//! a model of the kernel.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Address, IpTunnel, Link, Netlink, Route, RouteKind, RouteLookup, VethPair};
use crate::error::Result;
use crate::flow_source::FlowSource;
use crate::netns::NetNs;

/// Declares the trait and implements it for [`Netlink`], whose methods have the same names.
macro_rules! network {
    ($($(#[$doc:meta])* fn $method:ident($($argument:ident: $type:ty),*) -> $output:ty;)*) => {
        /// Links, addresses and routes of one network namespace: the kernel's, through [`Netlink`],
        /// or a test's.
        ///
        /// Each method does what the method of [`Netlink`] with the same name does, and fails when
        /// that one fails.
        #[expect(clippy::missing_errors_doc, reason = "Netlink documents the errors")]
        pub trait Network: Send {
            $($(#[$doc])* fn $method(&mut self, $($argument: $type),*) -> Result<$output>;)*
        }

        impl Network for Netlink {
            $(fn $method(&mut self, $($argument: $type),*) -> Result<$output> {
                Netlink::$method(self, $($argument),*)
            })*
        }
    };
}

network! {
    /// Lists all interfaces.
    fn links() -> Vec<Link>;
    /// Looks up an interface by name.
    fn link(name: &str) -> Option<Link>;
    /// Looks up an interface by index.
    fn link_by_index(index: u32) -> Option<Link>;
    /// Creates an interface of one of Linux's tunnel drivers.
    fn add_tunnel(name: &str, mtu: u32, tunnel: &IpTunnel) -> ();
    /// Changes the endpoints and options of such an interface.
    fn change_tunnel(index: u32, tunnel: &IpTunnel) -> ();
    /// Creates a veth pair, the visible end in another namespace if one is given.
    fn add_veth_pair(pair: &VethPair, netns: Option<&NetNs>) -> ();
    /// Turns neighbour resolution and multicast off on an interface.
    fn set_no_arp(index: u32) -> ();
    /// Sets the link-layer address of an interface.
    fn set_mac(index: u32, mac: [u8; 6]) -> ();
    /// Sets an interface up.
    fn set_up(index: u32) -> ();
    /// Sets an interface down.
    fn set_down(index: u32) -> ();
    /// Sets the MTU of an interface, in bytes.
    fn set_mtu(index: u32, mtu: u32) -> ();
    /// Sets the alias of an interface.
    fn set_alias(index: u32, alias: &str) -> ();
    /// Attaches an interface to a bridge or VRF, or detaches it.
    fn set_master(index: u32, master: Option<u32>) -> ();
    /// Renames an interface.
    fn rename(index: u32, name: &str) -> ();
    /// Deletes an interface.
    fn delete_link(index: u32) -> ();
    /// Lists the addresses of all interfaces, or of one.
    fn addresses(index: Option<u32>) -> Vec<Address>;
    /// Adds an address to an interface.
    fn add_address(index: u32, prefix: IpNet) -> ();
    /// Deletes an address from an interface.
    fn delete_address(index: u32, prefix: IpNet) -> ();
    /// Lists the routes of a table.
    fn routes_of(table: u32) -> Vec<Route>;
    /// Lists the routes of a table that `protocol` installed on an interface.
    fn routes_by(protocol: u8, device: u32, table: u32) -> Vec<Route>;
    /// Lists the routes of a kind that `protocol` installed, in one table or in all.
    fn routes_of_kind(protocol: u8, kind: RouteKind, table: Option<u32>) -> Vec<Route>;
    /// Finds the main table's routes to exactly these networks. `None`: the kernel cannot tell
    /// without a full listing.
    fn routes_to_exactly(networks: &[IpNet]) -> Option<Vec<Route>>;
    /// Looks up how the kernel would send from `source` to each of these destinations.
    fn routes_to(destinations: &[IpAddr], source: Option<FlowSource>) -> Vec<Result<RouteLookup>>;
    /// Adds a route.
    fn add_route(route: &Route) -> ();
    /// Adds routes.
    fn add_routes(routes: &[Route]) -> ();
    /// Adds routes, each in place of the one with the same destination, metric and table.
    fn replace_routes(routes: &[Route]) -> ();
    /// Deletes routes.
    fn delete_routes(routes: &[Route]) -> ();
}
