//! A second uplink of gateway A in the two-site network, which the main routing table does not use:
//! a rule has to choose it.
//!
//! ```text
//!              ┌─ underlayA ──── router ────────┐
//!   gateway A ─┤                                ├─ gateway B
//!              └─ second ── second router ──────┘
//! ```

use std::net::Ipv4Addr;

use adit_lab::LabError;
use adit_lab::cable::network;
use adit_lab::host::Host;
use adit_lab::router::Router;
use adit_lab::two_sites::{TwoSites, UNDERLAY_B};
use ipnet::Ipv4Net;

use super::point_to_point::Cable;

/// The address of gateway A on the second uplink.
pub const SECOND_A: Ipv4Addr = Ipv4Addr::new(10, 3, 1, 1);
/// The second router's address there.
pub const SECOND_ROUTER: Ipv4Addr = Ipv4Addr::new(10, 3, 1, 254);
/// The interface of both gateways to the second router.
pub const SECOND: &str = "second";
/// The firewall mark of [`Rule::Mark`].
pub const MARK: u32 = 100;

const ROUTER_TOWARDS_B: Ipv4Addr = Ipv4Addr::new(10, 3, 2, 254);
const SECOND_B: Ipv4Addr = Ipv4Addr::new(10, 3, 2, 1);
const TABLE: &str = "100";

/// The link between gateway A and the second router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A cable with Ethernet.
    Ethernet,
    /// A cable without.
    PointToPoint,
}

/// What the rule that chooses the second uplink asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The source address of the datagram.
    Source,
    /// Its firewall mark.
    Mark,
    /// The interface that it comes from: the host itself.
    Interface,
}

/// The second uplink.
pub struct SecondUplink {
    /// The second router, with interfaces `toA` and `toB`.
    pub router: Router,
    _cable: Option<Cable>,
}

impl SecondUplink {
    /// Adds the uplink. The way back from gateway B to [`SECOND_A`] leads over it.
    ///
    /// # Errors
    /// Fails if the kernel refuses an interface or a route.
    pub fn add(sites: &TwoSites, link: LinkKind) -> Result<Self, LabError> {
        let router = Router::new("second router")?;
        let (gateway_a, gateway_b) = (&sites.gateway_a, &sites.gateway_b);
        let ours = (gateway_a, SECOND, network(SECOND_A, 24));
        let theirs: (&Host, _, _) = (&router, "toA", network(SECOND_ROUTER, 24));
        let cable = match link {
            LinkKind::Ethernet => {
                gateway_a.connect(SECOND, &router, "toA")?;
                gateway_a.address(SECOND, ours.2)?;
                router.address("toA", theirs.2)?;
                None
            }
            LinkKind::PointToPoint => Some(Cable::connect(theirs, ours)?),
        };
        gateway_b.connect(SECOND, &router, "toB")?;
        gateway_b.address(SECOND, network(SECOND_B, 24))?;
        router.address("toB", network(ROUTER_TOWARDS_B, 24))?;
        gateway_b.route(network(SECOND_A, 24).trunc(), Some(ROUTER_TOWARDS_B), None)?;
        router.route(Ipv4Net::from(UNDERLAY_B), Some(SECOND_B), None)?;
        for (gateway, first) in [(gateway_a, "underlayA"), (gateway_b, "underlayB")] {
            // Datagrams arrive where the main table would not send.
            for device in ["all", first, SECOND] {
                gateway.sysctl(&format!("ipv4/conf/{device}/rp_filter"), "0")?;
            }
        }
        let (to, via) = (UNDERLAY_B.to_string(), SECOND_ROUTER.to_string());
        gateway_a.program("ip", &["route", "add", &to, "via", &via, "dev", SECOND, "table", TABLE])?;
        Ok(Self { router, _cable: cable })
    }

    /// Adds the rule to gateway A.
    ///
    /// # Errors
    /// Fails if `ip` refuses it.
    pub fn choose_by(&self, sites: &TwoSites, rule: Rule) -> Result<(), LabError> {
        let (address, mark) = (SECOND_A.to_string(), MARK.to_string());
        let selector = match rule {
            Rule::Source => ["from", &address],
            Rule::Mark => ["fwmark", &mark],
            Rule::Interface => ["iif", "lo"],
        };
        let arguments = [&["rule", "add"][..], &selector, &["lookup", TABLE]].concat();
        sites.gateway_a.program("ip", &arguments)
    }
}
