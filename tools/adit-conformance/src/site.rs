//! Addresses: the gateway under test, and the sites that it has a tunnel to.
//!
//! What a tunnel learns it keeps, and an answer that it owes is rate limited by whom it is for. So every
//! observation has a site and senders of its own, and none depends on those before it.

use std::net::Ipv4Addr;

use adit_fixtures::packet::{self, Datagram};
use ipnet::Ipv4Net;

/// The gateway under test, on the underlay.
pub(crate) const UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The router before it, the only one it sees.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// The gateway under test, on the inside.
pub(crate) const INSIDE: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
/// Through which the gateway reaches its own networks.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 10);
/// Its own networks.
pub(crate) const OURS: &str = "172.16.0.0/16";
/// Somebody on the underlay who is nobody's peer.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
/// Sites in all: more than there are observations with one setup.
const SITES: u16 = 250;

/// A site at the other end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Site(u16);

impl Site {
    /// All that there may be.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..SITES).map(Self)
    }

    /// Its place in the configuration.
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Its gateway: the tunnel's exit.
    pub(crate) fn underlay(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.low())
    }

    /// Its private network.
    pub(crate) fn network(self) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, self.low(), 0), 24)
    }

    /// A host there.
    pub(crate) fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.low(), 10)
    }

    /// A host on our side that nobody but this site's observations uses.
    pub(crate) fn sender(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 100, self.low())
    }

    /// Another.
    pub(crate) fn other_sender(self) -> Ipv4Addr {
        Ipv4Addr::new(172, 16, 101, self.low())
    }

    /// What Linux's interface to it is called.
    pub(crate) fn device(self) -> String {
        format!("ipip{}", self.0)
    }

    /// As a `[[peer]]`.
    pub(crate) fn config(self) -> String {
        format!(
            "[[peer]]\nname = \"s{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\n",
            self.0,
            self.underlay(),
            self.network()
        )
    }

    /// From the sender to the host there, `len` bytes in all; TTL 63, DF clear.
    pub(crate) fn there(self, len: usize) -> Datagram {
        packet::udp(self.sender(), self.host(), len)
    }

    /// The way back: what the site's gateway would put into the tunnel.
    pub(crate) fn back(self, len: usize) -> Datagram {
        packet::udp(self.host(), self.sender(), len)
    }

    /// An outer datagram from the site's gateway, with this inside: TTL 61, DF.
    pub(crate) fn outer(self, inner: Datagram) -> Datagram {
        packet::bare(self.underlay(), UNDERLAY, adit_wire::Protocol::IPIP, inner.build()).ttl(61).df(true)
    }

    /// 0 and 255 could be taken for a network and a broadcast.
    fn low(self) -> u8 {
        (self.0 + 1) as u8
    }
}
