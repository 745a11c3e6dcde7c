//! The two-site network: two private networks whose gateways meet in a public underlay.
//!
//! ```text
//!   host A ── gateway A ── router ── gateway B ── host B
//! ```
//!
//! It is the network of `examples/a.toml` and `examples/b.toml`. The underlay is one subnet. The
//! router in the middle answers ARP for the far side, so the gateways do not know it. Still it
//! counts a TTL down, and its MTU can shrink. An underlay of IPv6 has a subnet on each side of it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use adit_config::Config;
use adit_control::Overlay;
use adit_linux::family::Family;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::cable::{CableEnd, connect_to_gateway, network};
use crate::error::LabError;
use crate::host::Host;
use crate::router::Router;

/// The address of gateway A on its private network.
pub const INSIDE_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
/// The address of gateway B on its private network.
pub const INSIDE_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 1);
/// The address of the host behind gateway A.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 10);
/// The address of the host behind gateway B.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 10);
/// The address of gateway A on the underlay.
pub const UNDERLAY_A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
/// The address of gateway B on the underlay.
pub const UNDERLAY_B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
/// The router's own address, the source of its ICMP errors.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 254);

/// The IPv6 address of gateway A on its private network.
pub const INSIDE_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 1);
/// The IPv6 address of gateway B on its private network.
pub const INSIDE_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x199, 0, 0, 0, 0, 1);
/// The IPv6 address of the host behind gateway A.
pub const HOST_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x17, 0, 0, 0, 0, 0x10);
/// The IPv6 address of the host behind gateway B.
pub const HOST_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x199, 0, 0, 0, 0, 0x10);

/// The IPv6 address of gateway A on the underlay.
pub const UNDERLAY_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 1);
/// The IPv6 address of gateway B on the underlay.
pub const UNDERLAY_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 1);
/// The IPv6 addresses of the router towards gateway A and gateway B.
const ROUTER_A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xa, 0, 0, 0, 0xfe);
const UNDERLAY_NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
const ROUTER_B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0xb, 0, 0, 0, 0xfe);

/// How long the kernel may take to make new addresses of IPv6 usable.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);

/// The configuration of gateway A for `adit run`.
pub const CONFIG_A: &str = include_str!("../../../examples/a.toml");
/// The configuration of gateway B for `adit run`.
pub const CONFIG_B: &str = include_str!("../../../examples/b.toml");

/// The network, without a tunnel.
pub struct TwoSites {
    /// The host behind gateway A, with interface `eth0`.
    pub host_a: Host,
    /// Gateway A, with interfaces `dummyA` (private) and `underlayA`.
    pub gateway_a: Host,
    /// The router in the middle of the underlay, with interfaces `toA` and `toB`.
    pub router: Router,
    /// Gateway B, with interfaces `dummyB` (private) and `underlayB`.
    pub gateway_b: Host,
    /// The host behind gateway B, with interface `eth0`.
    pub host_b: Host,
}

/// Both ends of the tunnel.
pub struct Tunnels {
    /// The overlay on gateway A.
    pub a: Overlay,
    /// The overlay on gateway B.
    pub b: Overlay,
}

impl TwoSites {
    /// Builds the network.
    ///
    /// # Errors
    /// Fails without the right to make network namespaces, or if the kernel lacks veth.
    pub fn build() -> Result<Self, LabError> {
        let built = Self {
            host_a: Host::new("host A")?,
            gateway_a: Host::new("gateway A")?,
            router: Router::new("router")?,
            gateway_b: Host::new("gateway B")?,
            host_b: Host::new("host B")?,
        };
        built.router.address("lo", Ipv4Net::from(ROUTER))?;
        let (gateway_a, gateway_b) = (&built.gateway_a, &built.gateway_b);
        built.connect_site(
            CableEnd::new(&built.host_a, "eth0", HOST_A),
            CableEnd::new(gateway_a, "dummyA", INSIDE_A),
            CableEnd::new(gateway_a, "underlayA", UNDERLAY_A),
            "toA",
        )?;
        built.connect_site(
            CableEnd::new(&built.host_b, "eth0", HOST_B),
            CableEnd::new(gateway_b, "dummyB", INSIDE_B),
            CableEnd::new(gateway_b, "underlayB", UNDERLAY_B),
            "toB",
        )?;
        Ok(built)
    }

    /// Builds the network with private networks of both families.
    ///
    /// # Errors
    /// As [`TwoSites::build`], or if the kernel has no IPv6.
    pub fn build_with_ipv6() -> Result<Self, LabError> {
        let built = Self::build()?;
        for (host, address, gateway, device, inside) in [
            (&built.host_a, HOST_A6, &built.gateway_a, "dummyA", INSIDE_A6),
            (&built.host_b, HOST_B6, &built.gateway_b, "dummyB", INSIDE_B6),
        ] {
            gateway.sysctl("ipv6/conf/all/forwarding", "1")?;
            gateway.address(device, Ipv6Net::new_assert(inside, 64))?;
            host.address("eth0", Ipv6Net::new_assert(address, 64))?;
            host.route_v6(Ipv6Net::default(), Some(inside), None)?;
        }
        Ok(built)
    }

    /// Builds the network with private networks and an underlay of both families.
    ///
    /// # Errors
    /// As [`TwoSites::build_with_ipv6`], or if the addresses do not become usable.
    pub fn build_over_ipv6() -> Result<Self, LabError> {
        let built = Self::build_with_ipv6()?;
        built.router.sysctl("ipv6/conf/all/forwarding", "1")?;
        for (gateway, device, underlay, port, router) in [
            (&built.gateway_a, "underlayA", UNDERLAY_A6, "toA", ROUTER_A6),
            (&built.gateway_b, "underlayB", UNDERLAY_B6, "toB", ROUTER_B6),
        ] {
            built.router.address(port, Ipv6Net::new_assert(router, 64))?;
            gateway.address(device, Ipv6Net::new_assert(underlay, 64))?;
            gateway.route_v6(Ipv6Net::new_assert(UNDERLAY_NETWORK_V6, 48), Some(router), None)?;
        }
        for (gateway, device) in [(&built.gateway_a, "underlayA"), (&built.gateway_b, "underlayB")] {
            gateway.await_addresses(device, ADDRESS_TIMEOUT)?;
        }
        Ok(built)
    }

    /// Connects a host to its gateway, and the gateway to the router.
    fn connect_site(
        &self,
        host: CableEnd<'_>,
        inside: CableEnd<'_>,
        underlay: CableEnd<'_>,
        port: &str,
    ) -> Result<(), LabError> {
        inside.host.forward()?;
        connect_to_gateway(host, inside, 24)?;
        underlay.host.connect(underlay.device, &self.router, port)?;
        underlay.host.address(underlay.device, network(underlay.address, 24))?;
        self.router.route(Ipv4Net::from(underlay.address), None, Some(port))?;
        self.router.proxy_arp(port)
    }

    /// Sets the MTU of both ends of the cables of the underlay, in bytes.
    ///
    /// # Errors
    /// Fails if the kernel refuses the MTU.
    pub fn set_underlay_mtus(&self, mtu: u32) -> Result<(), LabError> {
        let ends: [(&Host, &str); 4] = [
            (&self.gateway_a, "underlayA"),
            (&self.router, "toA"),
            (&self.router, "toB"),
            (&self.gateway_b, "underlayB"),
        ];
        ends.into_iter().try_for_each(|(host, device)| host.mtu(device, mtu))
    }

    /// Sets the MTU of both ends of every cable, in bytes.
    ///
    /// # Errors
    /// Fails if the kernel refuses the MTU.
    pub fn set_cable_mtus(&self, mtu: u32) -> Result<(), LabError> {
        self.set_underlay_mtus(mtu)?;
        let inside: [(&Host, &str); 4] = [
            (&self.host_a, "eth0"),
            (&self.gateway_a, "dummyA"),
            (&self.gateway_b, "dummyB"),
            (&self.host_b, "eth0"),
        ];
        inside.into_iter().try_for_each(|(host, device)| host.mtu(device, mtu))
    }

    /// Brings the tunnel up on both gateways with [`CONFIG_A`] and [`CONFIG_B`].
    ///
    /// # Errors
    /// Fails for the reasons for which `adit run` fails.
    pub fn bring_up(&self) -> Result<Tunnels, LabError> {
        Ok(Tunnels { a: bring_up(&self.gateway_a, CONFIG_A)?, b: bring_up(&self.gateway_b, CONFIG_B)? })
    }

    /// As [`TwoSites::bring_up_with_ipv6`], over an underlay of IPv6.
    ///
    /// # Errors
    /// As [`TwoSites::bring_up`].
    pub fn bring_up_over_ipv6(&self) -> Result<Tunnels, LabError> {
        let up = |gateway, config| bring_up(gateway, &over_ipv6(&with_ipv6_networks(config)));
        Ok(Tunnels { a: up(&self.gateway_a, CONFIG_A)?, b: up(&self.gateway_b, CONFIG_B)? })
    }

    /// As [`TwoSites::bring_up`], with the private networks of both families.
    ///
    /// # Errors
    /// As [`TwoSites::bring_up`].
    pub fn bring_up_with_ipv6(&self) -> Result<Tunnels, LabError> {
        let up = |gateway, config| bring_up(gateway, &with_ipv6_networks(config));
        Ok(Tunnels { a: up(&self.gateway_a, CONFIG_A)?, b: up(&self.gateway_b, CONFIG_B)? })
    }
}

/// Adds the private IPv6 networks to [`CONFIG_A`], [`CONFIG_B`] or a text made of one.
#[must_use]
pub fn with_ipv6_networks(config: &str) -> String {
    config
        .replace("\"172.16.17.0/24\"", "\"172.16.17.0/24\", \"2001:db8:17::/64\"")
        .replace("\"192.168.199.0/24\"", "\"192.168.199.0/24\", \"2001:db8:199::/64\"")
}

/// Changes the underlay of [`CONFIG_A`], [`CONFIG_B`] or a text made of one to IPv6.
#[must_use]
pub fn over_ipv6(config: &str) -> String {
    config
        .replace(&format!("\"{UNDERLAY_A}\""), &format!("\"{UNDERLAY_A6}\""))
        .replace(&format!("\"{UNDERLAY_B}\""), &format!("\"{UNDERLAY_B6}\""))
}

/// Gives both gateways in [`CONFIG_A`], [`CONFIG_B`] or a text made of one an address of each
/// family. Those of the peer begin with that of `first`, by which packets are sent to it.
#[must_use]
pub fn over_both(config: &str, first: Family) -> String {
    let with_both = |text: &str, first: Family| {
        let pairs = [(UNDERLAY_A, UNDERLAY_A6), (UNDERLAY_B, UNDERLAY_B6)];
        pairs.iter().fold(text.to_owned(), |text, (v4, v6)| {
            let both = match first {
                Family::V4 => format!("[\"{v4}\", \"{v6}\"]"),
                Family::V6 => format!("[\"{v6}\", \"{v4}\"]"),
            };
            text.replace(&format!("\"{v4}\""), &both)
        })
    };
    let (site, peer) = config.split_at(config.find("[[peer]]").unwrap_or(config.len()));
    with_both(site, Family::V4) + &with_both(peer, first)
}

/// Whether an address may appear outside on the underlay of IPv6: that of a gateway or the router,
/// or one that neighbors find each other by.
pub(crate) fn is_underlay_v6(address: Ipv6Addr) -> bool {
    Ipv6Net::new_assert(UNDERLAY_NETWORK_V6, 48).contains(&address)
        || address.is_unicast_link_local()
        || address.is_unspecified()
}

/// Brings an overlay up on a host with the text of a configuration.
///
/// # Errors
/// Fails if the configuration has mistakes, or for the reasons for which `adit run` fails.
pub fn bring_up(host: &Host, config: &str) -> Result<Overlay, LabError> {
    let config = Config::parse("lab.toml", config).map_err(|problems| LabError::Io {
        what: format!("read the configuration of {}", host.name()),
        source: std::io::Error::other(problems.to_string()),
    })?;
    host.run(|| Overlay::bring_up(&config))
}
