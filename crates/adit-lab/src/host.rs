//! A host of a test network: a network namespace, and what one does to it.

use std::net::Ipv4Addr;
use std::process::Command;

use adit_linux::netlink::{Netlink, Route};
use adit_linux::netns::NetNs;
use adit_linux::sysctl;
use ipnet::Ipv4Net;

use crate::error::LabError;

/// A host: gone when the last of its namespace's handles, threads and sockets is.
#[derive(Clone)]
pub struct Host {
    name: String,
    ns: NetNs,
}

impl Host {
    /// A host with nothing but a loopback interface, which is up.
    ///
    /// # Errors
    /// Not allowed to make network namespaces.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let host = Self { name: name.to_owned(), ns: NetNs::fresh()? };
        host.up("lo")?;
        Ok(host)
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Does something on this host.
    ///
    /// # Errors
    /// The namespace cannot be entered, or what was done failed.
    pub fn run<T: Send, E: Into<LabError> + Send>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, LabError> {
        self.ns.run(work)?.map_err(Into::into)
    }

    /// Its network configuration.
    ///
    /// # Errors
    /// No netlink socket could be opened.
    pub fn netlink(&self) -> Result<Netlink, LabError> {
        self.run(Netlink::open)
    }

    /// The index of one of its interfaces.
    ///
    /// # Errors
    /// It has none of that name.
    pub fn index(&self, device: &str) -> Result<u32, LabError> {
        match self.netlink()?.link(device)? {
            Some(link) => Ok(link.index),
            None => Err(LabError::NoInterface { host: self.name.clone(), device: device.to_owned() }),
        }
    }

    /// Lays a cable to another host: a veth pair, both ends up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn connect(&self, device: &str, other: &Self, other_device: &str) -> Result<(), LabError> {
        self.netlink()?.add_veth(device, other_device, &other.ns)?;
        self.up(device)?;
        other.up(other_device)
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn up(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_up(index)?)
    }

    /// Takes an interface down.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn down(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_down(index)?)
    }

    /// Gives an interface an address.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn address(&self, device: &str, address: Ipv4Net) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.add_address(index, address)?)
    }

    /// Sets the MTU of an interface, in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mtu(&self, device: &str, mtu: u32) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_mtu(index, mtu)?)
    }

    /// Adds a route, through a gateway or onto an interface.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn route(
        &self,
        destination: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        device: Option<&str>,
    ) -> Result<(), LabError> {
        let device = device.map(|device| self.index(device)).transpose()?;
        Ok(self.netlink()?.add_route(&Route { destination, gateway, device, ..Route::default() })?)
    }

    /// Runs a program there.
    ///
    /// # Errors
    /// It cannot be started, or fails; then with what it said.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Result<(), LabError> {
        let what = || format!("run `{program} {}` on {}", arguments.join(" "), self.name);
        let done =
            self.run(|| Command::new(program).args(arguments).output().map_err(LabError::io(what())))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(LabError::io(what())(std::io::Error::other(format!("{}: {said}", done.status))))
    }

    /// Sets a sysctl below `net/`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// There is no such knob, or it is not ours to turn.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        self.run(|| sysctl::write(&format!("net/{path}"), value))
    }

    /// Lets it forward.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forward(&self) -> Result<(), LabError> {
        self.sysctl("ipv4/ip_forward", "1")
    }
}
