//! Addresses of the gateway under test and of the sites to which it has a tunnel.
//!
//! A tunnel keeps what it learns, and limits the rate of errors for each destination. So every
//! observation has a site and senders of its own, and none depends on earlier ones.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_fixtures::packet::{self, Datagram};
use adit_fixtures::packet_v6::{self, PacketV6};
use adit_wire::Protocol;
use ipnet::{Ipv4Net, Ipv6Net};

/// The gateway's address on the underlay.
pub(crate) const UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router, the gateway's only neighbour on the underlay.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The gateway's address on the inside.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
/// The host through which the gateway reaches its own networks.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 10);
/// The gateway's own networks.
pub(crate) const OURS: &str = "172.16.0.0/16";
/// An address on the underlay that is no peer.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// The gateway's address on an underlay of IPv6.
pub(crate) const UNDERLAY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The router there.
pub(crate) const ROUTER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfe);
/// The gateway's address of IPv6 on the inside.
pub(crate) const INSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 1);
/// The host through which the gateway reaches its own networks of IPv6.
pub(crate) const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 0x10);
/// The gateway's own networks of IPv6.
pub(crate) const OURS6: &str = "2001:db8:17::/48";
/// The number of sites, more than observations with one setup.
const SITES: u16 = 250;

/// The families of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Families {
    /// IPv4 in IPv4.
    OverIpv4,
    /// Both in IPv4.
    SixInFour,
    /// Both in IPv6.
    OverIpv6,
}

/// What an outer header says of an inner packet.
fn protocol_of(inner: &[u8]) -> Protocol {
    if inner.first().is_some_and(|first| first >> 4 == 6) { Protocol::IPV6 } else { Protocol::IPIP }
}

/// A site at the other end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site(u16);

impl Site {
    /// All sites.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SITES).map(Self)
    }

    /// Its index in the configuration.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The underlay address of its gateway.
    pub(crate) fn underlay(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.low())
    }

    /// Its private network.
    pub(crate) fn network(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, self.low(), 0), 24)
    }

    /// A host in its private network.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.low(), 10)
    }

    /// A host on the inside that only this site's observations use.
    pub(crate) fn sender(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 100, self.low())
    }

    /// Another such host.
    pub(crate) fn other_sender(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 101, self.low())
    }

    /// The address of its gateway on an underlay of IPv6.
    pub(crate) fn underlay_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, self.low().into())
    }

    /// Its private network of IPv6.
    pub(crate) fn network_v6(self) -> Ipv6Net {
        Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 0x200, self.low().into(), 0, 0, 0, 0), 64)
    }

    /// A host in it.
    pub(crate) fn host_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x200, self.low().into(), 0, 0, 0, 0x10)
    }

    /// A host on the inside that only this site's observations use.
    pub(crate) fn sender_v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x17, 1, 0, 0, 0, self.low().into())
    }

    /// UDP from that sender to the site's host, `len` bytes with headers, hop limit 63.
    pub(crate) fn there_v6(self, len: usize) -> PacketV6 {
        packet_v6::udp_v6(self.sender_v6(), self.host_v6(), len)
    }

    /// UDP from the site's host to the sender, which the site's gateway would encapsulate.
    pub(crate) fn back_v6(self, len: usize) -> PacketV6 {
        packet_v6::udp_v6(self.host_v6(), self.sender_v6(), len)
    }

    /// An outer packet of IPv6 from the site's gateway with this inner one, hop limit 61.
    pub(crate) fn outer_v6(self, inner: Vec<u8>) -> PacketV6 {
        packet_v6::bare_v6(self.underlay_v6(), UNDERLAY6, protocol_of(&inner), inner).hop_limit(61)
    }

    /// The same in IPv4.
    pub(crate) fn outer_v4(self, inner: Vec<u8>) -> Datagram {
        packet::bare(self.underlay(), UNDERLAY, protocol_of(&inner), inner).ttl(61).df(true)
    }

    /// The name of Linux's tunnel interface to it.
    pub(crate) fn device(self) -> String {
        format!("ipip{}", self.0)
    }

    /// Its `[[peer]]` section.
    pub(crate) fn config(self, families: Families) -> String {
        let underlay = match families {
            Families::OverIpv4 | Families::SixInFour => self.underlay().to_string(),
            Families::OverIpv6 => self.underlay_v6().to_string(),
        };
        let networks = match families {
            Families::OverIpv4 => format!("\"{}\"", self.network()),
            Families::SixInFour | Families::OverIpv6 => {
                format!("\"{}\", \"{}\"", self.network(), self.network_v6())
            }
        };
        format!("[[peer]]\nname = \"s{}\"\nunderlay = \"{underlay}\"\nnetworks = [{networks}]\n", self.0)
    }

    /// UDP from the sender to the site's host, `len` bytes with headers, TTL 63, DF clear.
    pub(crate) fn there(self, len: usize) -> Datagram {
        packet::udp(self.sender(), self.host(), len)
    }

    /// UDP from the site's host to the sender, which the site's gateway would encapsulate.
    pub(crate) fn back(self, len: usize) -> Datagram {
        packet::udp(self.host(), self.sender(), len)
    }

    /// An outer datagram from the site's gateway with this inner one, TTL 61, DF.
    pub(crate) fn outer(self, inner: Datagram) -> Datagram {
        packet::bare(self.underlay(), UNDERLAY, Protocol::IPIP, inner.build()).ttl(61).df(true)
    }

    /// An octet that is neither 0 nor 255, which could mean a network or a broadcast.
    fn low(self) -> u8 {
        (self.0 + 1) as u8
    }
}
