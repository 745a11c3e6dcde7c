//! Routes of both address families, and the kernel's routing decision for a destination.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::error::{Error, Result};
use crate::flow_source::FlowSource;

/// The protocol number that marks routes as Adit's own (`ip route show proto 173`).
pub const ROUTE_PROTOCOL: u8 = 173;
/// The protocol number of an administrator's routes (`RTPROT_STATIC`).
pub const STATIC_PROTOCOL: u8 = 4;
/// The table that `ip route` shows (`RT_TABLE_MAIN`).
pub const MAIN_TABLE: u32 = 254;
/// The metric that the kernel gives an IPv6 route without one (`IP6_RT_PRIO_USER`).
const DEFAULT_METRIC_V6: u32 = 1024;

/// The families of routes that are listed, in this order.
const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// A route. Its destination, gateway and preferred source are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub destination: IpNet,
    /// The interface it leaves by; `None` for a route that leads nowhere, and for one with several
    /// next hops, which are not read here.
    pub device: Option<u32>,
    /// The next router; `None` if the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source of datagrams from this host that have none.
    pub preferred_source: Option<IpAddr>,
    /// The protocol that created it (`RTPROT_*`). Adit's own is [`ROUTE_PROTOCOL`].
    pub protocol: u8,
    /// The table it is in.
    pub table: u32,
    /// The metric; `None` is the kernel's default: 0 for IPv4, 1024 for IPv6. Of two routes with
    /// the same destination the lower wins.
    pub metric: Option<u32>,
    /// The TOS byte of the datagrams it is for; 0: any, as always for IPv6. One for a certain TOS
    /// wins for that.
    pub tos: u8,
    /// The MTU in bytes, if the route has one of its own.
    pub mtu: Option<u32>,
    /// What happens to a datagram that matches.
    pub kind: RouteKind,
    /// The scope of the destination. With `None`, a route that is added gets the scope that ip(8)
    /// gives it, and one that is removed matches any scope. IPv6 has one scope only.
    pub scope: Option<RouteScope>,
    /// True if the gateway is on the link even though no route says so.
    pub onlink: bool,
}

impl Default for Route {
    /// Returns Adit's IPv4 default route in the main table, without device and gateway.
    fn default() -> Self {
        Self {
            destination: Ipv4Net::default().into(),
            device: None,
            gateway: None,
            preferred_source: None,
            protocol: ROUTE_PROTOCOL,
            table: MAIN_TABLE,
            metric: None,
            tos: 0,
            mtu: None,
            kind: RouteKind::Unicast,
            scope: None,
            onlink: false,
        }
    }
}

/// The key of a route, see [`Route::key`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The table it is in.
    pub table: u32,
    /// The destination, without bits behind the prefix.
    pub destination: IpNet,
    /// The TOS byte.
    pub tos: u8,
    /// The metric.
    pub metric: u32,
}

/// What happens to a datagram that matches a route (`RTN_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// It is sent to one host.
    #[default]
    Unicast,
    /// It is delivered to this host.
    Local,
    /// It is sent to all hosts of a link.
    Broadcast,
    /// It is sent to the members of a group.
    Multicast,
    /// It is dropped silently.
    Blackhole,
    /// It is dropped, and the sender gets ICMP Host Unreachable.
    Unreachable,
    /// It is dropped, and the sender gets ICMP Communication Administratively Prohibited.
    Prohibit,
    /// Another kind, by its number.
    Other(u8),
}

/// The scope of a destination (`RT_SCOPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// On the link.
    Link,
    /// On this host.
    Host,
    /// Another scope, by its number.
    Other(u8),
}

/// The kernel's present routing decision for a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLookup {
    /// The interface it leaves by; the loopback for [`RouteKind::Local`].
    pub device: u32,
    /// The address on the link it is sent to: the router, or the destination itself.
    pub next_hop: IpAddr,
    /// The source it gets if it has none; `None` if the lookup was for a source.
    pub source: Option<IpAddr>,
    /// The path MTU in bytes, if the kernel knows one other than the interface's: that of the
    /// route, or one learned by ICMP (RFC 1191).
    pub mtu: Option<u32>,
    /// What happens to it.
    pub kind: RouteKind,
}

impl Netlink {
    /// Lists the routes of the main table, those of IPv4 before those of IPv6.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        self.routes_of(MAIN_TABLE)
    }

    /// Lists the routes of a table, those of IPv4 before those of IPv6.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn routes_of(&mut self, table: u32) -> Result<Vec<Route>> {
        self.list_routes(RouteMessage::default(), Some(table), |_| true)
    }

    /// Lists the routes of a table that `protocol` created and that leave by the interface
    /// `device`. The kernel filters them.
    ///
    /// # Errors
    /// There is no such interface (`ENODEV`), or the kernel refuses to list the routes.
    pub fn routes_by(&mut self, protocol: u8, device: u32, table: u32) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.protocol = RouteProtocol::from(protocol);
        message.attributes.push(RouteAttribute::Oif(device));
        // A route with several next hops also matches by one of them, and is left out.
        let is_meant = |route: &Route| route.protocol == protocol && route.device == Some(device);
        self.list_routes(message, Some(table), is_meant)
    }

    /// Lists the routes of a kind that `protocol` created, in `table`, or in all tables. The kernel
    /// filters them, so the answer is as long as there are such routes, but the kernel still walks
    /// the whole table.
    ///
    /// # Errors
    /// The kernel refuses to list them.
    pub fn routes_of_kind(
        &mut self,
        protocol: u8,
        kind: RouteKind,
        table: Option<u32>,
    ) -> Result<Vec<Route>> {
        let mut message = RouteMessage::default();
        message.header.protocol = RouteProtocol::from(protocol);
        message.header.kind = RouteType::from(kind.number());
        let is_meant = |route: &Route| route.protocol == protocol && route.kind == kind;
        self.list_routes(message, table, is_meant)
    }

    fn list_routes(
        &mut self,
        mut message: RouteMessage,
        table: Option<u32>,
        is_meant: impl Fn(&Route) -> bool,
    ) -> Result<Vec<Route>> {
        message.attributes.extend(table.map(RouteAttribute::Table));
        let mut routes = Vec::new();
        for family in FAMILIES {
            message.header.address_family = family;
            routes.extend(self.list_routes_of_family(message.clone(), table, &is_meant)?);
        }
        Ok(routes)
    }

    fn list_routes_of_family(
        &mut self,
        message: RouteMessage,
        table: Option<u32>,
        is_meant: impl Fn(&Route) -> bool,
    ) -> Result<Vec<Route>> {
        let family = message.header.address_family;
        let what = || "cannot list the routes".to_owned();
        let route = |answer| match answer {
            // A kernel without IPv6 lists the routes of all families instead.
            RouteNetlinkMessage::NewRoute(message) if message.header.address_family == family => {
                let is_in = |route: &Route| table.is_none_or(|table| route.table == table);
                of_message(message).filter(|route| is_in(route) && is_meant(route))
            }
            _ => None,
        };
        match self.socket.dump_of(&RouteNetlinkMessage::GetRoute(message), route, what) {
            // In a namespace that has never had a route, the table does not exist yet.
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            result => result,
        }
    }

    /// Adds a route.
    ///
    /// # Errors
    /// There is one with the same destination, metric and table (`EEXIST`); the gateway is
    /// unreachable, the preferred source is not an address of this host, or the interface is down;
    /// or CAP_NET_ADMIN is missing.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        self.put_route(route, NLM_F_CREATE | NLM_F_EXCL, "add")
    }

    /// Adds a route, and replaces the one with the same destination, metric and table if there is
    /// one, whichever program created that. A datagram sent at that time takes one or the other.
    ///
    /// # Errors
    /// As [`Self::add_route`], except that the route may exist.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        self.put_route(route, NLM_F_CREATE | NLM_F_REPLACE, "set")
    }

    /// Adds each of these routes, in order, as [`Self::add_route`]. Sends some hundreds at a time.
    ///
    /// # Errors
    /// The kernel refuses a route; the error is about the first. The routes before it are added,
    /// and some after it may be.
    pub fn add_routes(&mut self, routes: &[Route]) -> Result<()> {
        let what = |route: &Route| format!("cannot add the route to {}", describe(route));
        self.socket.change_all(routes, NLM_F_CREATE | NLM_F_EXCL, new_route, what)
    }

    /// Replaces each of these routes, in order, as [`Self::replace_route`]. Sends some hundreds at
    /// a time.
    ///
    /// # Errors
    /// The kernel refuses a route; the error is about the first. The routes before it are set, and
    /// some after it may be.
    pub fn replace_routes(&mut self, routes: &[Route]) -> Result<()> {
        let what = |route: &Route| format!("cannot set the route to {}", describe(route));
        self.socket.change_all(routes, NLM_F_CREATE | NLM_F_REPLACE, new_route, what)
    }

    fn put_route(&mut self, route: &Route, flags: u16, verb: &str) -> Result<()> {
        let what = || format!("cannot {verb} the route to {}", describe(route));
        self.socket.request(new_route(route), flags, what).map(drop)
    }

    /// Removes the route that matches all fields given in `route`.
    ///
    /// # Errors
    /// There is none (`ESRCH`), or CAP_NET_ADMIN is missing.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        self.delete_routes(std::slice::from_ref(route))
    }

    /// Removes each of these routes, in order, as [`Self::delete_route`]. Sends some hundreds at a
    /// time.
    ///
    /// # Errors
    /// The kernel refuses a removal; the error is about the first. The routes before it are
    /// removed, and some after it may be.
    pub fn delete_routes(&mut self, routes: &[Route]) -> Result<()> {
        let what = |route: &Route| format!("cannot remove the route to {}", describe(route));
        self.socket.change_all(routes, 0, del_route, what)
    }

    /// Returns the kernel's routing decision for a datagram to `destination`, from `source` if
    /// given, whose address must be one of this host. It considers all tables and rules, and the
    /// path MTU learned by ICMP.
    ///
    /// # Errors
    /// There is no route (`ENETUNREACH`, or the error of a route that forbids it), or the source is
    /// not an address of this host, or not one of the destination's family (`EINVAL`).
    pub fn route_to(
        &mut self,
        destination: impl Into<IpAddr>,
        source: Option<FlowSource>,
    ) -> Result<RouteLookup> {
        let destination = destination.into();
        let answer = self.routes_to(&[destination], source)?.pop();
        answer.unwrap_or_else(|| lookup(destination, source, None))
    }

    /// Returns the kernel's routing decision for each of these, in order, as [`Self::route_to`].
    /// Sends some hundreds at a time.
    ///
    /// # Errors
    /// The kernel cannot be asked. The error about one destination is in the list.
    pub fn routes_to(
        &mut self,
        destinations: &[IpAddr],
        source: Option<FlowSource>,
    ) -> Result<Vec<Result<RouteLookup>>> {
        if let Some(source) = source
            && !self.may_be_source(source.address)?
        {
            let refused = |destination: &IpAddr| Err(not_from(*destination, source.address));
            return Ok(destinations.iter().map(refused).collect());
        }
        self.socket.ask_all(
            destinations,
            |destination| get_route(*destination, source),
            |destination, answer| lookup(*destination, source, answer),
            |destination| cannot_find(*destination),
        )
    }

    /// Returns false if `address` is an IPv6 address that this host does not have, or whose check
    /// for duplicates is not complete. The kernel itself refuses such a source of IPv4 only.
    fn may_be_source(&mut self, address: IpAddr) -> Result<bool> {
        if address.is_ipv4() {
            return Ok(true);
        }
        let answers = self.socket.ask_all(
            &[address],
            |address| get_route(*address, None),
            |address, answer| lookup(*address, None, answer),
            |address| cannot_find(*address),
        )?;
        Ok(answers.iter().flatten().any(|found| found.kind == RouteKind::Local))
    }
}

impl Route {
    /// Returns what the kernel tells routes apart by: table, destination, TOS and metric. A route
    /// takes the place of another with the same key, whoever made that.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey {
            table: self.table,
            destination: self.destination.trunc(),
            tos: self.tos,
            metric: self.metric.unwrap_or_else(|| default_metric(&self.destination)),
        }
    }

    /// Returns true if it has the metric of a route that is added without one.
    #[must_use]
    pub fn has_default_metric(&self) -> bool {
        self.key().metric == default_metric(&self.destination)
    }

    /// Returns true if [`Netlink::replace_route`] would not change `listed`, a route from a
    /// listing.
    #[must_use]
    pub fn is_already(&self, listed: &Route) -> bool {
        let scope = self.scope.unwrap_or_else(|| natural_scope(self));
        // The kernel clears the bits after the prefix.
        let destination = self.destination.trunc();
        // It lists no metric of an IPv4 route that has none.
        let metric = match self.destination {
            IpNet::V4(_) => self.metric,
            IpNet::V6(_) => Some(self.key().metric),
        };
        *listed == Route { scope: Some(scope), destination, metric, ..self.clone() }
    }
}

fn new_route(route: &Route) -> RouteNetlinkMessage {
    let mut message = about(route);
    message.header.scope = route.scope.unwrap_or_else(|| natural_scope(route)).number().into();
    RouteNetlinkMessage::NewRoute(message)
}

fn del_route(route: &Route) -> RouteNetlinkMessage {
    let mut message = about(route);
    message.header.scope = route.scope.map_or(libc::RT_SCOPE_NOWHERE, RouteScope::number).into();
    RouteNetlinkMessage::DelRoute(message)
}

pub(super) fn get_route(destination: IpAddr, source: Option<FlowSource>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination);
    message.header.destination_prefix_length = host_prefix(destination);
    message.attributes.push(RouteAttribute::Destination(attribute_of(destination)));
    if let Some(source) = source {
        message.header.source_prefix_length = host_prefix(source.address);
        message.attributes.push(RouteAttribute::Source(attribute_of(source.address)));
        if source.mark != 0 {
            message.attributes.push(RouteAttribute::Mark(source.mark));
        }
    }
    RouteNetlinkMessage::GetRoute(message)
}

const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn cannot_find(destination: IpAddr) -> String {
    format!("cannot find a route to {destination}")
}

fn not_from(destination: IpAddr, source: IpAddr) -> Error {
    Error::from_errno(format!("{} from {source}", cannot_find(destination)), libc::EINVAL)
        .with_hint("`ip address` shows the addresses of this host")
}

/// Reads the answer to [`get_route`].
fn lookup(
    destination: IpAddr,
    source: Option<FlowSource>,
    answer: Option<RouteNetlinkMessage>,
) -> Result<RouteLookup> {
    let found = match answer {
        Some(RouteNetlinkMessage::NewRoute(message)) => of_message(message),
        _ => None,
    };
    match found {
        Some(Route { device: Some(device), gateway, preferred_source, mtu, kind, .. }) => Ok(RouteLookup {
            device,
            next_hop: gateway.unwrap_or(destination),
            // The kernel returns one of IPv6 in any case.
            source: preferred_source.filter(|_| source.is_none()),
            mtu,
            kind,
        }),
        _ => Err(Error::from_errno(cannot_find(destination), libc::ENETUNREACH)),
    }
}

fn default_metric(destination: &IpNet) -> u32 {
    match destination {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => DEFAULT_METRIC_V6,
    }
}

pub(super) fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn attribute_of(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

fn address_of(attribute: RouteAddress) -> Option<IpAddr> {
    match attribute {
        RouteAddress::Inet(address) => Some(address.into()),
        RouteAddress::Inet6(address) => Some(address.into()),
        _ => None,
    }
}

fn about(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.destination.addr());
    message.header.destination_prefix_length = route.destination.prefix_len();
    message.header.protocol = RouteProtocol::from(route.protocol);
    message.header.kind = RouteType::from(route.kind.number());
    message.header.tos = route.tos;
    // The header has one byte for the table. The attribute takes precedence.
    message.header.table = u8::try_from(route.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Table(route.table));
    if route.destination.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(attribute_of(route.destination.network())));
    }
    attributes.extend(route.device.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(attribute_of).map(RouteAttribute::Gateway));
    attributes.extend(route.preferred_source.map(attribute_of).map(RouteAttribute::PrefSource));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

fn natural_scope(route: &Route) -> RouteScope {
    match route.kind {
        _ if matches!(route.destination, IpNet::V6(_)) => RouteScope::Universe,
        RouteKind::Local => RouteScope::Host,
        RouteKind::Unicast | RouteKind::Broadcast | RouteKind::Multicast if route.gateway.is_none() => {
            RouteScope::Link
        }
        _ => RouteScope::Universe,
    }
}

fn describe(route: &Route) -> String {
    let mut text = route.destination.to_string();
    if route.kind == RouteKind::Unreachable {
        text += " (unreachable)";
    }
    if let Some(gateway) = route.gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(device) = route.device {
        text += &format!(" by interface {device}");
    }
    text
}

/// Returns `None` for a route of a family that is neither IPv4 nor IPv6.
pub(super) fn of_message(message: RouteMessage) -> Option<Route> {
    let mut destination = match message.header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut route = Route {
        protocol: message.header.protocol.into(),
        table: u32::from(message.header.table),
        kind: RouteKind::of(message.header.kind.into()),
        tos: message.header.tos,
        scope: Some(RouteScope::of(message.header.scope.into())),
        onlink: message.header.flags.contains(RouteFlags::Onlink),
        ..Route::default()
    };
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = address_of(address)?,
            RouteAttribute::Oif(index) => route.device = Some(index),
            RouteAttribute::Gateway(address) => route.gateway = address_of(address),
            RouteAttribute::PrefSource(address) => route.preferred_source = address_of(address),
            RouteAttribute::Table(table) => route.table = table,
            RouteAttribute::Priority(metric) => route.metric = Some(metric),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.into_iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    route.destination = IpNet::new(destination, message.header.destination_prefix_length).ok()?;
    if route.destination.addr().is_ipv6() && route.kind.leads_nowhere() {
        // The kernel names the loopback.
        route.device = None;
    }
    Some(route)
}

impl RouteKind {
    fn leads_nowhere(self) -> bool {
        matches!(self, Self::Blackhole | Self::Unreachable | Self::Prohibit)
    }

    fn number(self) -> u8 {
        match self {
            Self::Unicast => libc::RTN_UNICAST,
            Self::Local => libc::RTN_LOCAL,
            Self::Broadcast => libc::RTN_BROADCAST,
            Self::Multicast => libc::RTN_MULTICAST,
            Self::Blackhole => libc::RTN_BLACKHOLE,
            Self::Unreachable => libc::RTN_UNREACHABLE,
            Self::Prohibit => libc::RTN_PROHIBIT,
            Self::Other(number) => number,
        }
    }

    fn of(number: u8) -> Self {
        match number {
            libc::RTN_UNICAST => Self::Unicast,
            libc::RTN_LOCAL => Self::Local,
            libc::RTN_BROADCAST => Self::Broadcast,
            libc::RTN_MULTICAST => Self::Multicast,
            libc::RTN_BLACKHOLE => Self::Blackhole,
            libc::RTN_UNREACHABLE => Self::Unreachable,
            libc::RTN_PROHIBIT => Self::Prohibit,
            other => Self::Other(other),
        }
    }
}

impl RouteScope {
    fn number(self) -> u8 {
        match self {
            Self::Universe => libc::RT_SCOPE_UNIVERSE,
            Self::Link => libc::RT_SCOPE_LINK,
            Self::Host => libc::RT_SCOPE_HOST,
            Self::Other(number) => number,
        }
    }

    fn of(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_UNIVERSE => Self::Universe,
            libc::RT_SCOPE_LINK => Self::Link,
            libc::RT_SCOPE_HOST => Self::Host,
            other => Self::Other(other),
        }
    }
}
