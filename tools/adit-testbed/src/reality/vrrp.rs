//! Two gateways that share an underlay address, as with VRRP: the address moves from gateway A of
//! the two-site network to a standby gateway and back. Each keeps another address of its own.

use std::net::Ipv4Addr;

use adit_lab::LabError;
use adit_lab::cable::network;
use adit_lab::host::Host;
use adit_lab::two_sites::{TwoSites, UNDERLAY_A};
use ipnet::Ipv4Net;

/// The own address of gateway A.
pub const OWN_A: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 11);
/// The own address of the standby gateway.
pub const OWN_STANDBY: Ipv4Addr = Ipv4Addr::new(10, 1, 1, 12);

const STANDBY_DEVICE: &str = "underlay";

/// The pair. Gateway A has the address at first.
pub struct VrrpPair<'a> {
    sites: &'a TwoSites,
    /// The standby gateway.
    pub standby: Host,
}

impl<'a> VrrpPair<'a> {
    /// Adds the standby gateway to the router's `toStandby`.
    ///
    /// # Errors
    /// Fails if the kernel refuses an interface or an address.
    pub fn add(sites: &'a TwoSites) -> Result<Self, LabError> {
        let (standby, router) = (Host::new("standby")?, &sites.router);
        standby.connect(STANDBY_DEVICE, router, "toStandby")?;
        router.proxy_arp("toStandby")?;
        standby.address(STANDBY_DEVICE, network(OWN_STANDBY, 24))?;
        sites.gateway_a.address("underlayA", network(OWN_A, 24))?;
        // Deleting a primary address would delete the secondary ones of its network.
        sites.gateway_a.sysctl("ipv4/conf/underlayA/promote_secondaries", "1")?;
        router.route(Ipv4Net::from(OWN_A), None, Some("toA"))?;
        router.route(Ipv4Net::from(OWN_STANDBY), None, Some("toStandby"))?;
        Ok(Self { sites, standby })
    }

    /// Makes the standby gateway the master.
    ///
    /// # Errors
    /// Fails if the kernel refuses a change.
    pub fn fail_over(&self) -> Result<(), LabError> {
        let gateway_a = (&self.sites.gateway_a, "underlayA");
        self.hand_over(gateway_a, (&self.standby, STANDBY_DEVICE, "toStandby"))
    }

    /// Makes gateway A the master again.
    ///
    /// # Errors
    /// Fails if the kernel refuses a change.
    pub fn fail_back(&self) -> Result<(), LabError> {
        let standby = (&self.standby, STANDBY_DEVICE);
        self.hand_over(standby, (&self.sites.gateway_a, "underlayA", "toA"))
    }

    fn hand_over(&self, from: (&Host, &str), to: (&Host, &str, &str)) -> Result<(), LabError> {
        let address = network(UNDERLAY_A, 24);
        from.0.netlink()?.delete_address(from.0.index(from.1)?, address.into())?;
        to.0.address(to.1, address)?;
        let prefix = Ipv4Net::from(UNDERLAY_A).to_string();
        self.sites.router.program("ip", &["route", "replace", &prefix, "dev", to.2])
    }
}
