//! The LAN of gateway A in the two-site network, whose address comes late, goes and moves: an
//! interface that waits for DHCP, that is renumbered, or that becomes a port of a bridge.

use std::net::Ipv4Addr;

use adit_lab::LabError;
use adit_lab::cable::network;
use adit_lab::host::Host;
use adit_lab::two_sites::{INSIDE_A, TwoSites};

/// The gateway's address after [`Lan::renumber`], in the same network.
pub const RENUMBERED: Ipv4Addr = Ipv4Addr::new(172, 16, 17, 254);

const DEVICE: &str = "dummyA";
const BRIDGE: &str = "br0";
const PREFIX_LEN: u8 = 24;

/// The LAN. At first the gateway has [`INSIDE_A`] there.
pub struct Lan {
    gateway: Host,
}

impl Lan {
    /// The LAN of gateway A.
    #[must_use]
    pub fn of_a(sites: &TwoSites) -> Self {
        Self { gateway: sites.gateway_a.clone() }
    }

    /// Takes the gateway's address away.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn withdraw(&self) -> Result<(), LabError> {
        let index = self.gateway.index(DEVICE)?;
        let mut netlink = self.gateway.netlink()?;
        for address in netlink.addresses(Some(index))? {
            netlink.delete_address(index, address.prefix)?;
        }
        Ok(())
    }

    /// Gives the gateway its address, if it has it no longer.
    ///
    /// # Errors
    /// Fails if the kernel refuses the address.
    pub fn assign(&self) -> Result<(), LabError> {
        let (index, prefix) = (self.gateway.index(DEVICE)?, network(INSIDE_A, PREFIX_LEN));
        let found = self.gateway.netlink()?.addresses(Some(index))?;
        if found.iter().any(|address| address.prefix == prefix.into()) {
            return Ok(());
        }
        self.gateway.address(DEVICE, prefix)
    }

    /// Gives the gateway [`RENUMBERED`] in place of its address.
    ///
    /// # Errors
    /// Fails if the kernel refuses a change.
    pub fn renumber(&self) -> Result<(), LabError> {
        self.withdraw()?;
        self.gateway.address(DEVICE, network(RENUMBERED, PREFIX_LEN))
    }

    /// Makes the interface a port of a new bridge, which has the address from now on.
    ///
    /// # Errors
    /// Fails if the kernel refuses a change.
    pub fn move_to_bridge(&self) -> Result<(), LabError> {
        self.gateway.program("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        self.gateway.up(BRIDGE)?;
        self.withdraw()?;
        self.gateway.program("ip", &["link", "set", DEVICE, "master", BRIDGE])?;
        self.gateway.address(BRIDGE, network(INSIDE_A, PREFIX_LEN))
    }

    /// Deletes the bridge together with its address.
    ///
    /// # Errors
    /// Fails if there is no bridge.
    pub fn delete_bridge(&self) -> Result<(), LabError> {
        self.gateway.program("ip", &["link", "delete", BRIDGE])
    }
}
