//! The parameters of an interface of Linux's ipip driver.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkInfo, LinkMessage};

/// How an ipip interface tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipip {
    /// The outer source.
    pub local: Ipv4Addr,
    /// The outer destination; `None` takes it from the gateway of the route into the interface.
    pub remote: Option<Ipv4Addr>,
    /// The outer TTL; 0 copies the inner one.
    pub ttl: u8,
    /// The outer TOS; an odd value copies the inner one.
    pub tos: u8,
    /// The inner protocol by its number: 4 is IPv4, and 0 all that the driver knows, MPLS included.
    pub protocol: u8,
    /// True if the outer header has DF. The kernel requires it with a fixed TTL.
    pub path_mtu_discovery: bool,
    /// The firewall mark by which rules choose the route of the outer datagram; 0 is none.
    pub mark: u32,
}

/// The value of [`Ipip::tos`] that copies the inner TOS.
pub const INHERIT_TOS: u8 = 1;

impl Ipip {
    fn attributes(&self) -> Vec<InfoIpTunnel> {
        vec![
            InfoIpTunnel::Local(IpAddr::V4(self.local)),
            InfoIpTunnel::Remote(IpAddr::V4(self.remote.unwrap_or(Ipv4Addr::UNSPECIFIED))),
            InfoIpTunnel::Ttl(self.ttl),
            InfoIpTunnel::Tos(self.tos),
            InfoIpTunnel::Protocol(self.protocol.into()),
            InfoIpTunnel::PMtuDisc(self.path_mtu_discovery),
            InfoIpTunnel::FwMark(self.mark),
        ]
    }

    pub(super) fn of(attributes: Vec<InfoIpTunnel>) -> Self {
        let mut found = Self {
            local: Ipv4Addr::UNSPECIFIED,
            remote: None,
            ttl: 0,
            tos: 0,
            protocol: 0,
            path_mtu_discovery: false,
            mark: 0,
        };
        for attribute in attributes {
            match attribute {
                InfoIpTunnel::Local(IpAddr::V4(local)) => found.local = local,
                InfoIpTunnel::Remote(IpAddr::V4(remote)) => {
                    found.remote = (!remote.is_unspecified()).then_some(remote);
                }
                InfoIpTunnel::Ttl(ttl) => found.ttl = ttl,
                InfoIpTunnel::Tos(tos) => found.tos = tos,
                InfoIpTunnel::Protocol(protocol) => found.protocol = protocol.into(),
                InfoIpTunnel::PMtuDisc(discovers) => found.path_mtu_discovery = discovers,
                InfoIpTunnel::FwMark(mark) => found.mark = mark,
                _ => {}
            }
        }
        found
    }

    /// Returns the request to set these parameters on the link that `message` describes.
    pub(super) fn request(&self, mut message: LinkMessage) -> RouteNetlinkMessage {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::IpIp),
            LinkInfo::Data(InfoData::IpTunnel(self.attributes())),
        ]));
        RouteNetlinkMessage::NewLink(message)
    }
}
