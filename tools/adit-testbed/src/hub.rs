//! The hub network: a hub and two spokes, each with a host behind it, in an underlay of several
//! subnets.
//!
//! ```text
//!   host one ── spoke one ──┐
//!                         router ── hub ── host of the hub
//!   host two ── spoke two ──┘
//! ```
//!
//! A spoke has the hub as its only peer, with the networks of the hub and of the other spoke behind
//! it. The hub has both spokes as peers.

use std::net::Ipv4Addr;

use adit_config::DataplaneChoice;
use adit_control::Overlay;
use ipnet::Ipv4Net;

use crate::test_planes::plane_name;
use adit_lab::LabError;
use adit_lab::cable::{CableEnd, connect_to_gateway, network};
use adit_lab::host::Host;
use adit_lab::router::Router;
use adit_lab::two_sites::bring_up;

/// The tunnel interface on every gateway.
pub const DEVICE: &str = "adit0";
/// A gateway's interface to the router.
pub const UNDERLAY: &str = "underlay";

/// One of the three sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// The hub, through which the spokes reach each other.
    Hub,
    /// The first spoke.
    One,
    /// The second spoke.
    Two,
}

impl Site {
    /// All sites.
    pub const ALL: [Self; 3] = [Self::Hub, Self::One, Self::Two];

    /// The name of its overlay.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::One => "one",
            Self::Two => "two",
        }
    }

    /// The router's interface to it.
    #[must_use]
    pub fn port(self) -> &'static str {
        match self {
            Self::Hub => "to-hub",
            Self::One => "to-one",
            Self::Two => "to-two",
        }
    }

    fn number(self) -> u8 {
        self as u8
    }

    /// Its private network.
    #[must_use]
    pub fn network(self) -> Ipv4Net {
        network(Ipv4Addr::new(10, 10, self.number(), 0), 24)
    }

    /// Its gateway's address in its private network.
    #[must_use]
    pub fn inside(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, self.number(), 1)
    }

    /// Its host's address.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, self.number(), 10)
    }

    /// Its gateway's address in the underlay.
    #[must_use]
    pub fn underlay(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, self.number() * 4 + 2)
    }

    /// The router's address in its gateway's subnet.
    #[must_use]
    pub fn router(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, self.number() * 4 + 1)
    }

    /// Its configuration for this data plane.
    #[must_use]
    pub fn config(self, plane: DataplaneChoice) -> String {
        let peers = match self {
            Self::Hub => [peer(Self::One, &[Self::One]), peer(Self::Two, &[Self::Two])].concat(),
            Self::One => peer(Self::Hub, &[Self::Hub, Self::Two]),
            Self::Two => peer(Self::Hub, &[Self::Hub, Self::One]),
        };
        format!(
            "[site]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [\"{}\"]\n\
             device = \"{DEVICE}\"\ndataplane = \"{}\"\n{peers}",
            self.name(),
            self.underlay(),
            self.network(),
            plane_name(plane),
        )
    }
}

fn peer(site: Site, behind: &[Site]) -> String {
    let networks: Vec<String> = behind.iter().map(|site| format!("\"{}\"", site.network())).collect();
    format!(
        "[[peer]]\nname = \"{}\"\nunderlay = \"{}\"\nnetworks = [{}]\n",
        site.name(),
        site.underlay(),
        networks.join(", ")
    )
}

/// A gateway and the host behind it.
pub struct SiteHosts {
    /// The gateway, with interfaces `inside` and [`UNDERLAY`].
    pub gateway: Host,
    /// The host, with interface `eth0`.
    pub host: Host,
}

/// The network without a tunnel.
pub struct HubNetwork {
    /// The router in the middle of the underlay, with interfaces [`Site::port`].
    pub router: Router,
    sites: [SiteHosts; 3],
}

/// The overlay of each site, in the order of [`Site::ALL`].
pub struct Overlays([Overlay; 3]);

impl Overlays {
    /// The overlay of a site.
    #[must_use]
    pub fn of(&self, site: Site) -> &Overlay {
        &self.0[usize::from(site.number())]
    }
}

impl HubNetwork {
    /// Builds the network.
    ///
    /// # Errors
    /// Fails without the right to make network namespaces, or if the kernel lacks veth.
    pub fn build() -> Result<Self, LabError> {
        let router = Router::new("router")?;
        let [hub, one, two] = Site::ALL.map(|site| build_site(site, &router));
        Ok(Self { sites: [hub?, one?, two?], router })
    }

    /// The gateway and host of a site.
    #[must_use]
    pub fn of(&self, site: Site) -> &SiteHosts {
        &self.sites[usize::from(site.number())]
    }

    /// Brings the tunnel up on all gateways.
    ///
    /// # Errors
    /// Fails for the reasons for which `adit run` fails.
    pub fn bring_up(&self, plane: DataplaneChoice) -> Result<Overlays, LabError> {
        let [hub, one, two] = Site::ALL.map(|site| bring_up(&self.of(site).gateway, &site.config(plane)));
        Ok(Overlays([hub?, one?, two?]))
    }
}

fn build_site(site: Site, router: &Router) -> Result<SiteHosts, LabError> {
    let gateway = Host::new(&format!("gateway {}", site.name()))?;
    let host = Host::new(&format!("host {}", site.name()))?;
    gateway.forward()?;
    let inside = CableEnd::new(&gateway, "inside", site.inside());
    connect_to_gateway(CableEnd::new(&host, "eth0", site.host()), inside, 24)?;
    let port = CableEnd::new(router, site.port(), site.router());
    connect_to_gateway(CableEnd::new(&gateway, UNDERLAY, site.underlay()), port, 30)?;
    Ok(SiteHosts { gateway, host })
}
