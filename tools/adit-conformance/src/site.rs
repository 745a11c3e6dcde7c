//! Addresses of the gateway under test and of the sites to which it has a tunnel.
//!
//! A tunnel keeps what it learns, and limits the rate of errors for each destination. So every
//! observation has a site and senders of its own, and none depends on earlier ones.

use std::net::Ipv4Addr;

use adit_fixtures::packet::{self, Datagram};
use ipnet::Ipv4Net;

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
/// The number of sites, more than observations with one setup.
const SITES: u16 = 250;

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

    /// The name of Linux's tunnel interface to it.
    pub(crate) fn device(self) -> String {
        format!("ipip{}", self.0)
    }

    /// Its `[[peer]]` section.
    pub(crate) fn config(self) -> String {
        format!(
            "[[peer]]\nname = \"s{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\n",
            self.0,
            self.underlay(),
            self.network()
        )
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
        packet::bare(self.underlay(), UNDERLAY, adit_wire::Protocol::IPIP, inner.build()).ttl(61).df(true)
    }

    /// An octet that is neither 0 nor 255, which could mean a network or a broadcast.
    fn low(self) -> u8 {
        (self.0 + 1) as u8
    }
}
