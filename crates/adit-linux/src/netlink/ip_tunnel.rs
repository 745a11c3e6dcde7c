//! The parameters of an interface of Linux's own tunnel drivers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoIpTunnel, InfoKind, Ip6TunnelFlags, LinkAttribute, LinkInfo, LinkMessage,
};

/// A driver of Linux for IP in IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelDriver {
    /// IPv4 in IPv4.
    Ipip,
    /// Both families in IPv4.
    Sit,
    /// Both families in IPv6.
    Ip6tnl,
}

impl TunnelDriver {
    /// The type of its interfaces, in ip(8)'s words.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Ip6tnl => "ip6tnl",
        }
    }

    /// The name of its kernel module.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Sit => "sit",
            Self::Ip6tnl => "ip6_tunnel",
        }
    }

    /// True if its interfaces carry IPv6.
    #[must_use]
    pub const fn carries_ipv6(self) -> bool {
        !matches!(self, Self::Ipip)
    }

    fn of_kind(kind: &str) -> Option<Self> {
        [Self::Ipip, Self::Sit, Self::Ip6tnl].into_iter().find(|driver| driver.kind() == kind)
    }

    fn info_kind(self) -> InfoKind {
        match self {
            Self::Ipip => InfoKind::IpIp,
            Self::Sit => InfoKind::SitTun,
            Self::Ip6tnl => InfoKind::Ip6Tnl,
        }
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::Ipip | Self::Sit => Ipv4Addr::UNSPECIFIED.into(),
            Self::Ip6tnl => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// How an interface of a tunnel driver tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpTunnel {
    /// The driver. It decides on the family of the two ends.
    pub driver: TunnelDriver,
    /// The outer source.
    pub local: IpAddr,
    /// The outer destination; `None` takes it from the gateway of the route into the interface.
    pub remote: Option<IpAddr>,
    /// The outer TTL or hop limit; 0 copies the inner one.
    pub ttl: u8,
    /// The outer TOS or traffic class; an odd value copies the inner one.
    pub tos: u8,
    /// The inner protocol by its number: 4 is IPv4, and 0 all that the driver knows, MPLS included.
    pub protocol: u8,
    /// True if the outer IPv4 header has DF. The kernel requires it with a fixed TTL. True for
    /// [`TunnelDriver::Ip6tnl`], whose outer header has no such bit.
    pub path_mtu_discovery: bool,
    /// The firewall mark by which rules choose the route of the outer datagram; 0 is none.
    pub mark: u32,
    /// The encapsulation limit that [`TunnelDriver::Ip6tnl`] writes into a header of its own (RFC
    /// 2473 section 4.1.1); `None`: none, as always with the other drivers.
    pub encap_limit: Option<u8>,
}

/// The value of [`IpTunnel::tos`] that copies the inner TOS.
pub const INHERIT_TOS: u8 = 1;

/// How far left of the flow information the traffic class is (RFC 8200 section 3).
const TRAFFIC_CLASS_SHIFT: u32 = 20;

impl IpTunnel {
    /// Returns a tunnel from `local` to `remote` with a fixed TTL of 64. Of a driver that carries
    /// both families it is for both. The ends are of the family that the driver needs.
    #[must_use]
    pub const fn between(driver: TunnelDriver, local: IpAddr, remote: Option<IpAddr>) -> Self {
        const IPIP: u8 = 4;
        Self {
            driver,
            local,
            remote,
            ttl: 64,
            tos: 0,
            protocol: if driver.carries_ipv6() { 0 } else { IPIP },
            path_mtu_discovery: true,
            mark: 0,
            encap_limit: None,
        }
    }

    fn attributes(&self) -> Vec<InfoIpTunnel> {
        let mut attributes = vec![
            InfoIpTunnel::Local(self.local),
            InfoIpTunnel::Remote(self.remote.unwrap_or(self.driver.unspecified())),
            InfoIpTunnel::Ttl(self.ttl),
            InfoIpTunnel::Protocol(self.protocol.into()),
            InfoIpTunnel::FwMark(self.mark),
        ];
        if self.driver == TunnelDriver::Ip6tnl {
            let inherits = self.tos & INHERIT_TOS != 0;
            let mut flags = Ip6TunnelFlags::empty();
            flags.set(Ip6TunnelFlags::IgnEncapLimit, self.encap_limit.is_none());
            flags.set(Ip6TunnelFlags::UseOrigTclass, inherits);
            let class = if inherits { 0 } else { u32::from(self.tos) };
            attributes.extend([
                InfoIpTunnel::EncapLimit(self.encap_limit.unwrap_or_default()),
                InfoIpTunnel::Ipv6Flags(flags),
                InfoIpTunnel::FlowInfo(class << TRAFFIC_CLASS_SHIFT),
            ]);
        } else {
            attributes.push(InfoIpTunnel::Tos(self.tos));
            attributes.push(InfoIpTunnel::PMtuDisc(self.path_mtu_discovery));
        }
        attributes
    }

    /// Reads the attributes of an interface of this kind; `None`: it is of another driver, or does
    /// not tunnel as Adit can describe.
    pub(super) fn of(kind: &str, attributes: Vec<InfoIpTunnel>) -> Option<Self> {
        let driver = TunnelDriver::of_kind(kind)?;
        let mut found = Self {
            driver,
            local: driver.unspecified(),
            remote: None,
            ttl: 0,
            tos: 0,
            protocol: 0,
            path_mtu_discovery: driver == TunnelDriver::Ip6tnl,
            mark: 0,
            encap_limit: None,
        };
        let mut writes_no_limit = true;
        for attribute in attributes {
            match attribute {
                InfoIpTunnel::Local(local) => found.local = local,
                InfoIpTunnel::Remote(remote) => found.remote = Some(remote).filter(|at| !at.is_unspecified()),
                InfoIpTunnel::Ttl(ttl) => found.ttl = ttl,
                InfoIpTunnel::Tos(tos) => found.tos = tos,
                InfoIpTunnel::FlowInfo(info) => found.tos |= (info >> TRAFFIC_CLASS_SHIFT) as u8,
                InfoIpTunnel::Ipv6Flags(flags) => {
                    if flags.contains(Ip6TunnelFlags::UseOrigTclass) {
                        found.tos |= INHERIT_TOS;
                    }
                    writes_no_limit = flags.contains(Ip6TunnelFlags::IgnEncapLimit);
                }
                InfoIpTunnel::EncapLimit(limit) => found.encap_limit = Some(limit),
                InfoIpTunnel::Protocol(protocol) => found.protocol = protocol.into(),
                InfoIpTunnel::PMtuDisc(discovers) => found.path_mtu_discovery = discovers,
                InfoIpTunnel::FwMark(mark) => found.mark = mark,
                _ => {}
            }
        }
        found.encap_limit = found.encap_limit.filter(|_| !writes_no_limit);
        Some(found)
    }

    /// Returns the request to set these parameters on the link that `message` describes.
    pub(super) fn request(&self, mut message: LinkMessage) -> RouteNetlinkMessage {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(self.driver.info_kind()),
            LinkInfo::Data(InfoData::IpTunnel(self.attributes())),
        ]));
        RouteNetlinkMessage::NewLink(message)
    }
}
