//! The configuration: the values of a valid file.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_peers::{Conflict, Peer, PeerSet, Relay, UnderlayAddresses};
use ipnet::IpNet;

use crate::name::{DeviceName, NetnsName, SiteName};

/// Smallest MTU of a tunnel interface, in bytes: every IPv4 module must forward that much whole
/// (RFC 791, section 3.2).
pub const MIN_MTU: u16 = 68;
/// The range of the smallest path MTU that a router may set, in bytes.
pub(crate) const MIN_MTU_FLOOR: u16 = 88;
pub(crate) const MAX_MTU_FLOOR: u16 = 1500;

/// The range of `keepalive`, in seconds. Idle paths are looked at every two seconds.
pub(crate) const MIN_KEEPALIVE: u32 = 2;
pub(crate) const MAX_KEEPALIVE: u32 = 3600;

/// Largest MTU of a tunnel interface, in bytes: the longest datagram that leaves room for the
/// 20 bytes of the outer header (65,535 − 20).
pub const MAX_MTU: u16 = 65_515;

/// One site's configuration: the site itself, and its peers.
///
/// The peers keep the rule of [`AddressPlan`](adit_peers::AddressPlan), among themselves and
/// against the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This side of the overlay.
    pub site: SiteConfig,
    /// The other sites. May be empty: a site that waits for its first peer is valid.
    pub peers: PeerSet,
}

impl Config {
    /// The configuration of a site with these peers, which are inserted in order.
    ///
    /// # Errors
    /// The first conflict of the site with itself, or of a peer with what comes before it.
    pub fn new(site: SiteConfig, peers: impl IntoIterator<Item = Peer>) -> Result<Self, Conflict> {
        let mut set = PeerSet::new(site.underlay.addresses(), site.networks.iter().copied())?;
        for peer in peers {
            set.insert(peer)?;
        }
        Ok(Self { site, peers: set })
    }
}

/// The smallest MTU of an interface with IPv6, in bytes (RFC 8200 section 5).
pub(crate) const MIN_MTU_OF_IPV6: u16 = 1280;

/// With `dataplane = "kernel"`, up to this many peers have an interface each. More share one.
pub const OWN_DEVICES: usize = 64;

/// This side of the overlay, and how its tunnel treats packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteConfig {
    /// Names the overlay's socket, state and pins.
    pub name: SiteName,
    /// Our addresses on the public network, the outer sources, or the interface that has them.
    pub underlay: Underlay,
    /// The networks behind this site. Never empty in a file.
    pub networks: Vec<IpNet>,
    /// Addresses of this gateway outside `networks` that peers may reach all the same.
    pub local: Vec<Ipv4Addr>,
    /// The tunnel interface. Default `adit0`.
    pub device: DeviceName,
    /// The data plane that carries the packets.
    pub dataplane: DataplaneChoice,
    /// The network namespace of the tunnel interface and its routes. Default: the one where Adit
    /// runs.
    pub netns: Option<NetnsName>,
    /// The VRF of the tunnel interface and its routes. Default: none.
    pub vrf: Option<DeviceName>,
    /// The address and port of the metrics server. Default: none.
    pub metrics: Option<SocketAddr>,
    /// The firewall mark of what is sent to peers; 0 is none. Default: none.
    pub fwmark: u32,
    /// How the tunnel treats packets.
    pub tunnel: TunnelOptions,
}

/// Our side of the underlay: an address, one of each family, or the interface that has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// These addresses, on any interface. Always unicast in a file.
    Addresses(UnderlayAddresses),
    /// The addresses that this interface has, for example from DHCP.
    Interface(DeviceName),
}

impl Underlay {
    /// The addresses, if the file has them.
    #[must_use]
    pub fn addresses(&self) -> Option<UnderlayAddresses> {
        match self {
            Self::Addresses(addresses) => Some(*addresses),
            Self::Interface(_) => None,
        }
    }

    /// The interface's name, if the file has that instead.
    #[must_use]
    pub fn interface(&self) -> Option<&DeviceName> {
        match self {
            Self::Addresses(_) => None,
            Self::Interface(name) => Some(name),
        }
    }
}

impl<A: Into<UnderlayAddresses>> From<A> for Underlay {
    fn from(addresses: A) -> Self {
        Self::Addresses(addresses.into())
    }
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(addresses) => addresses.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}

/// How the tunnel treats packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelOptions {
    /// TTL of the outer header (RFC 2003, section 3.1). Default: 64.
    pub ttl: Ttl,
    /// DSCP of the outer header (RFC 2983). Default: inherit.
    pub dscp: DscpChoice,
    /// ECN mode of the encapsulator (RFC 6040, section 4.1). Default: normal.
    pub ecn: EcnChoice,
    /// MTU of the tunnel interface. Default: auto.
    pub mtu: Mtu,
    /// Path MTU discovery inside the tunnel (RFC 2003, section 5.1). An inner DF=1 is honoured
    /// even if this is `false`. Default: `true`.
    pub df: bool,
    /// Whether the MSS of TCP connections is lowered to the peer's path MTU. Default: `true`.
    pub mss_clamp: bool,
    /// The smallest path MTU that a router may set, in bytes. Default: 552.
    pub mtu_floor: u16,
    /// Whether the path MTU is probed (RFC 8899), if `df` is `true`. Default: `true`.
    pub probe: bool,
    /// The time without a datagram to a peer after which one is sent that keeps firewalls and NATs
    /// on the path open. Default: none is sent.
    pub keepalive: Option<Duration>,
    /// Which peers reach each other through this site. Default: auto.
    pub relay: Relay,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            dscp: DscpChoice::default(),
            ecn: EcnChoice::default(),
            mtu: Mtu::default(),
            df: true,
            mss_clamp: true,
            mtu_floor: 552,
            probe: true,
            keepalive: None,
            relay: Relay::default(),
        }
    }
}

/// The data plane that carries the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataplaneChoice {
    /// eBPF if its programs load, else userspace.
    #[default]
    Auto,
    /// Programs inside the kernel, with the userspace plane behind them.
    Ebpf,
    /// A process between a TUN device and raw sockets.
    Userspace,
    /// Linux's tunnel drivers.
    Kernel,
}

/// TTL of the outer header, in hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// A fixed TTL: 1 to 255.
    Fixed(u8),
    /// That of the inner header.
    Inherit,
}

impl Default for Ttl {
    fn default() -> Self {
        Self::Fixed(64)
    }
}

/// DSCP of the outer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DscpChoice {
    /// That of the inner header (RFC 2983's uniform model; RFC 2003, section 3.1).
    #[default]
    Inherit,
    /// A fixed codepoint: 0 to 63.
    Fixed(u8),
}

/// ECN mode of the encapsulator (RFC 6040, section 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnChoice {
    /// The inner ECN field is copied to the outer header.
    #[default]
    Normal,
    /// The outer header is Not-ECT, for a peer that does not handle ECN.
    Compatibility,
}

/// MTU of the tunnel interface, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mtu {
    /// What the underlay leaves after the outer header.
    #[default]
    Auto,
    /// [`MIN_MTU`] to [`MAX_MTU`].
    Fixed(u16),
}
