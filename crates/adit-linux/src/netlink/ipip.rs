//! Interfaces of Linux's own ipip driver, and what an interface has counted.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoIpTunnel, InfoKind, LinkAttribute, LinkInfo, LinkMessage};

use super::Netlink;
use super::link::{about, check_name};
use crate::error::{Error, Result};

/// How an ipip interface tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipip {
    /// The outer source.
    pub local: Ipv4Addr,
    /// The other end; `None`: any, which is then the gateway of the route that leads into it.
    pub remote: Option<Ipv4Addr>,
    /// The outer TTL; 0 is the inner one.
    pub ttl: u8,
    /// The outer TOS; an odd one is the inner one.
    pub tos: u8,
    /// What it carries by its protocol number: 4 is IPv4, 0 all that the driver knows, MPLS among it.
    pub protocol: u8,
    /// Whether the outer header forbids fragments. The kernel does not let a fixed TTL go without.
    pub path_mtu_discovery: bool,
}

/// The outer TOS is the inner one.
pub const INHERIT_TOS: u8 = 1;

/// What an interface has counted since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatistics {
    /// Datagrams that came out of it.
    pub rx_packets: u64,
    /// Those that did not because of their marks: for ipip, RFC 6040 section 4.2.
    pub rx_frame_errors: u64,
    /// Datagrams that went into it.
    pub tx_packets: u64,
    /// Those for which there was no route.
    pub tx_carrier_errors: u64,
    /// Those that would have gone into it again.
    pub collisions: u64,
    /// Those for which there was no memory.
    pub tx_dropped: u64,
}

impl Ipip {
    fn attributes(&self) -> Vec<InfoIpTunnel> {
        vec![
            InfoIpTunnel::Local(IpAddr::V4(self.local)),
            InfoIpTunnel::Remote(IpAddr::V4(self.remote.unwrap_or(Ipv4Addr::UNSPECIFIED))),
            InfoIpTunnel::Ttl(self.ttl),
            InfoIpTunnel::Tos(self.tos),
            InfoIpTunnel::Protocol(self.protocol.into()),
            InfoIpTunnel::PMtuDisc(self.path_mtu_discovery),
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
                _ => {}
            }
        }
        found
    }

    fn message(&self, mut message: LinkMessage) -> RouteNetlinkMessage {
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::IpIp),
            LinkInfo::Data(InfoData::IpTunnel(self.attributes())),
        ]));
        RouteNetlinkMessage::NewLink(message)
    }
}

impl Netlink {
    /// Makes an interface of the ipip driver, which the kernel loads if it can. It is down.
    ///
    /// # Errors
    /// The name is taken, or another interface has the same two ends (`EEXIST`); there is no such driver
    /// (`EOPNOTSUPP`); no CAP_NET_ADMIN.
    pub fn add_ipip(&mut self, name: &str, mtu: u32, ipip: &Ipip) -> Result<()> {
        check_name(name)?;
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::Mtu(mtu));
        let what = || format!("cannot make the ipip interface {name}");
        let made = self.socket.request(ipip.message(message), NLM_F_CREATE | NLM_F_EXCL, what);
        made.map(drop).map_err(|error| match error.errno() {
            Some(libc::EEXIST) => error.with_hint(
                "another interface has this name or the same two ends (`ip -d link show type ipip`): remove it",
            ),
            _ => error,
        })
    }

    /// Changes how an ipip interface tunnels; what comes meanwhile meets the old or the new.
    ///
    /// # Errors
    /// Another interface has the same two ends (`EEXIST`), or as [`Self::add_ipip`].
    pub fn change_ipip(&mut self, index: u32, ipip: &Ipip) -> Result<()> {
        let what = || format!("cannot change the ipip interface {index}");
        self.socket.request(ipip.message(about(index)), 0, what).map(drop)
    }

    /// What an interface has counted.
    ///
    /// # Errors
    /// There is none of that number (`ENODEV`).
    pub fn link_statistics(&mut self, index: u32) -> Result<LinkStatistics> {
        let what = || format!("cannot look up what interface {index} has counted");
        let answers = self.socket.request(RouteNetlinkMessage::GetLink(about(index)), 0, what)?;
        let found = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => {
                message.attributes.into_iter().find_map(|attribute| match attribute {
                    LinkAttribute::Stats64(stats) => Some(LinkStatistics {
                        rx_packets: stats.rx_packets,
                        rx_frame_errors: stats.rx_frame_errors,
                        tx_packets: stats.tx_packets,
                        tx_carrier_errors: stats.tx_carrier_errors,
                        collisions: stats.collisions,
                        tx_dropped: stats.tx_dropped,
                    }),
                    _ => None,
                })
            }
            _ => None,
        });
        found.ok_or_else(|| Error::from_errno(what(), libc::ENODEV))
    }
}
