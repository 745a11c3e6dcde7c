//! The machine an overlay is made on: opens what an overlay is made of, and holds what netlink does
//! not know (data planes, the packet filter, pinned programs). It is a trait, so that repair,
//! rollback and planning are tested against a model, and with failures at every step.

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod faulty;
mod linux;
mod plane_select;

use std::sync::Arc;

use adit_config::DataplaneChoice;
use adit_dataplane::kernel::Filter;
use adit_dataplane::{DataPlane, TunnelInterface};
use adit_linux::error::Result;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Network, TunnelDriver};
use adit_tunnel::Tunnel;

use crate::error::ControlError;

pub(crate) use linux::LinuxHost;
pub(crate) use plane_select::queues;

/// A machine, seen from the calling thread's network namespace.
pub(crate) trait Host: Send + Sync {
    /// Opens the links, addresses and routes of a network namespace.
    fn network(&self, scope: &NetScope) -> Result<Box<dyn Network>>;

    /// Turns IPv6 on or off on an interface. Where it is on, the kernel makes no address of its own
    /// there and believes no router. Fails on a kernel without IPv6.
    fn set_ipv6(&self, scope: &NetScope, interface: &str, is_on: bool) -> Result<()>;

    /// Returns whether IPv6 is on on an interface.
    fn ipv6(&self, scope: &NetScope, interface: &str) -> Result<Ipv6>;

    /// Limits the offloads of the tunnel interface to those that a data plane can read.
    fn limit_offloads(&self, scope: &NetScope, interface: &str) -> Result<()>;

    /// Lists the offloads that [`Self::limit_offloads`] would turn off.
    fn unreadable_offloads(&self, scope: &NetScope, interface: &str) -> Result<Vec<String>>;

    /// Returns true if the kernel forwards what arrives by this interface. `all` and `default` are
    /// names too.
    fn forwards(&self, scope: &NetScope, interface: &str) -> Result<bool>;

    /// Returns true if the kernel forwards packets of IPv6, whatever interface they arrive by.
    fn forwards_ipv6(&self, scope: &NetScope) -> Result<bool>;

    /// Names the chains of the firewall that the frames of a data plane pass by.
    fn chains_passed_by(&self) -> Vec<String>;

    /// Starts a data plane behind a tunnel interface.
    fn start_plane(&self, request: &PlaneRequest<'_>) -> std::result::Result<StartedPlane, ControlError>;

    /// Tries whether this kernel has what a data plane needs, and lets this process use it.
    fn try_plane(&self, choice: DataplaneChoice, tunnel: &Tunnel) -> std::result::Result<(), ControlError>;

    /// Opens the packet filter of nf_tables; it sets nothing yet.
    fn open_filter(&self) -> Result<Box<dyn PacketFilter>>;

    /// Compares the table in the kernel with `filter`, except for its rules. `None`: there is no
    /// table.
    fn filter_matches(&self, filter: &Filter) -> Result<Option<bool>>;

    /// Returns true if the packet filter of this site has a table.
    fn has_filter(&self, site: &str) -> bool;

    /// Removes the packet filter of this site; returns true if there was one.
    fn remove_filter(&self, site: &str) -> Result<bool>;

    /// Loads one of Linux's tunnel drivers by hand; returns what came of it, for an error text.
    fn load_driver(&self, driver: TunnelDriver) -> String;

    /// Returns true if eBPF programs of this site are pinned.
    fn has_pins(&self, site: &str) -> bool;

    /// Removes the pinned eBPF programs of this site, if there are any.
    fn remove_pins(&self, site: &str) -> Result<(), ControlError>;
}

/// Whether IPv6 is on on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// It is off, or the kernel has none.
    #[default]
    Off,
    /// It is on. The kernel makes no address of its own there and believes no router.
    Static,
    /// It is on, as on any new interface: the kernel speaks there for itself.
    Auto,
    /// The same, and it cannot be changed: the settings cannot be written, as in containers.
    AlwaysAuto,
}

impl Ipv6 {
    /// Returns true if it is not as wanted, and can be.
    pub(crate) fn differs_from(self, wanted: bool) -> bool {
        match self {
            Ipv6::Off => wanted,
            Ipv6::Static => !wanted,
            Ipv6::Auto => true,
            Ipv6::AlwaysAuto => false,
        }
    }
}

/// A request to start a data plane behind a tunnel interface.
pub(crate) struct PlaneRequest<'a> {
    pub(crate) choice: DataplaneChoice,
    pub(crate) tunnel: &'a Arc<Tunnel>,
    pub(crate) interface: &'a TunnelInterface,
    /// The firewall mark of what is sent to peers; 0 is none.
    pub(crate) mark: u32,
    /// The site under whose name programs are pinned; `None`: they end with the process.
    pub(crate) pins: Option<&'a str>,
}

/// A data plane that forwards.
pub(crate) struct StartedPlane {
    pub(crate) plane: Box<dyn DataPlane>,
    /// Why this data plane and not another.
    pub(crate) reason: String,
    /// Whether its programs outlive the process.
    pub(crate) stays: bool,
}

/// The packet filter of the kernel plane: it decides which peer may send which addresses.
pub(crate) trait PacketFilter: Send {
    /// Replaces the table in one transaction. If the kernel refuses, the table is unchanged.
    fn set(&self, filter: &Filter) -> Result<()>;

    /// Starts the data plane that counts and checks what passes the filter and these interfaces of
    /// Linux's tunnel drivers.
    fn start(&self, tunnel: Arc<Tunnel>, mark: u32, devices: Vec<u32>) -> Result<Box<dyn DataPlane>>;
}
