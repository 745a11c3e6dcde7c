//! The article's network, with hosts behind its gateways and a router in its underlay:
//!
//! ```text
//!   host A ── gateway A ── router ── gateway B ── host B
//! ```
//!
//! Addresses, device names and routes of the gateways are the article's. Its underlay is one
//! subnet; the router in the middle of it answers ARP for the far side, so that neither gateway
//! knows of it, and yet a TTL counts down and an MTU can shrink there.

use std::net::Ipv4Addr;

use adit_config::Config;
use adit_control::Overlay;
use ipnet::Ipv4Net;

use crate::error::LabError;
use crate::host::Host;

/// The address of gateway A on its private network.
pub const INSIDE_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 1);
/// The address of gateway B on its private network.
pub const INSIDE_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 1);
/// The host behind gateway A.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 10);
/// The host behind gateway B.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(192, 168, 199, 10);
/// Gateway A on the underlay.
pub const UNDERLAY_A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 1);
/// Gateway B on the underlay.
pub const UNDERLAY_B: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 2);
/// The router's own address, the source of its ICMP.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 254);

/// The two configurations, as `adit run` takes them.
pub const CONFIG_A: &str = include_str!("../../../examples/a.toml");
/// The other side's.
pub const CONFIG_B: &str = include_str!("../../../examples/b.toml");

/// The network, without a tunnel.
pub struct TwoSites {
    /// 172.16.17.10, behind gateway A.
    pub host_a: Host,
    /// The article's netA.
    pub gateway_a: Host,
    /// In the middle of the underlay: interfaces `toA` and `toB`.
    pub router: Host,
    /// The article's netB.
    pub gateway_b: Host,
    /// 192.168.199.10, behind gateway B.
    pub host_b: Host,
}

/// Both ends of the tunnel.
pub struct Tunnels {
    /// On gateway A.
    pub a: Overlay,
    /// On gateway B.
    pub b: Overlay,
}

impl TwoSites {
    /// Builds it.
    ///
    /// # Errors
    /// Not allowed to, or a kernel that lacks veth.
    pub fn build() -> Result<Self, LabError> {
        let network = Self {
            host_a: Host::new("host A")?,
            gateway_a: Host::new("gateway A")?,
            router: Host::new("router")?,
            gateway_b: Host::new("gateway B")?,
            host_b: Host::new("host B")?,
        };
        let router = &network.router;
        router.forward()?;
        router.address("lo", Ipv4Net::from(ROUTER))?;
        let sides = [
            (&network.host_a, &network.gateway_a, "dummyA", INSIDE_A, HOST_A, "underlayA", "toA", UNDERLAY_A),
            (&network.host_b, &network.gateway_b, "dummyB", INSIDE_B, HOST_B, "underlayB", "toB", UNDERLAY_B),
        ];
        for (host, gateway, inside, inside_address, host_address, outside, port, outside_address) in sides {
            gateway.forward()?;
            gateway.connect(inside, host, "eth0")?;
            gateway.address(inside, prefix(inside_address, 24))?;
            host.address("eth0", prefix(host_address, 24))?;
            host.route(Ipv4Net::default(), Some(inside_address), None)?;

            gateway.connect(outside, router, port)?;
            gateway.address(outside, prefix(outside_address, 24))?;
            router.route(Ipv4Net::from(outside_address), None, Some(port))?;
            router.sysctl(&format!("ipv4/conf/{port}/proxy_arp"), "1")?;
            // Without this an answer for another is held back for up to 0.8 s.
            router.sysctl(&format!("ipv4/neigh/{port}/proxy_delay"), "0")?;
        }
        Ok(network)
    }

    /// Has every cable take datagrams of so many bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn set_cable_mtus(&self, mtu: u32) -> Result<(), LabError> {
        let cables = [
            (&self.host_a, "eth0"),
            (&self.gateway_a, "dummyA"),
            (&self.gateway_a, "underlayA"),
            (&self.router, "toA"),
            (&self.router, "toB"),
            (&self.gateway_b, "underlayB"),
            (&self.gateway_b, "dummyB"),
            (&self.host_b, "eth0"),
        ];
        cables.into_iter().try_for_each(|(host, device)| host.mtu(device, mtu))
    }

    /// Brings the tunnel up on both gateways, as the two files say.
    ///
    /// # Errors
    /// What `adit run` would say.
    pub fn bring_up(&self) -> Result<Tunnels, LabError> {
        Ok(Tunnels { a: bring_up(&self.gateway_a, CONFIG_A)?, b: bring_up(&self.gateway_b, CONFIG_B)? })
    }
}

/// Brings an overlay up on a host.
///
/// # Errors
/// The configuration has mistakes, or `adit run` would have failed.
pub fn bring_up(host: &Host, config: &str) -> Result<Overlay, LabError> {
    let config = Config::parse("lab.toml", config).map_err(|problems| LabError::Io {
        what: format!("read the configuration of {}", host.name()),
        source: std::io::Error::other(problems.to_string()),
    })?;
    host.run(|| Overlay::bring_up(&config))
}

fn prefix(address: Ipv4Addr, len: u8) -> Ipv4Net {
    Ipv4Net::new(address, len).unwrap_or_default()
}
