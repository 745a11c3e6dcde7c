//! Hosts: a network namespace each, and the operations that configure one.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use adit_linux::netlink::{Netlink, Route, STATIC_PROTOCOL};
use adit_linux::netns::NetNs;
use adit_linux::sysctl;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::LabError;

/// A host of a test network. Its namespace exists until the last handle, thread and socket of it is
/// gone.
#[derive(Clone)]
pub struct Host {
    name: String,
    ns: NetNs,
}

impl Host {
    /// A host with only a loopback interface, which is up.
    ///
    /// # Errors
    /// Fails without the right to make network namespaces.
    pub fn new(name: &str) -> Result<Self, LabError> {
        let host = Self { name: name.to_owned(), ns: NetNs::fresh()? };
        // Link-local addresses can be used at once: nobody else has one in a test network. A kernel
        // without IPv6 has no such setting.
        let _ = host.sysctl("ipv6/conf/default/accept_dad", "0");
        host.up("lo")?;
        Ok(host)
    }

    /// Its name in error messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Runs a closure in the host's network namespace.
    ///
    /// # Errors
    /// Fails if the namespace cannot be entered or the closure fails.
    pub fn run<T: Send, E: Into<LabError> + Send>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, LabError> {
        self.ns.run(work)?.map_err(Into::into)
    }

    /// Opens a netlink socket on the host.
    ///
    /// # Errors
    /// Fails if the socket cannot be opened.
    pub fn netlink(&self) -> Result<Netlink, LabError> {
        self.run(Netlink::open)
    }

    /// The index of one of its interfaces.
    ///
    /// # Errors
    /// Fails if the host has no interface of that name.
    pub fn index(&self, device: &str) -> Result<u32, LabError> {
        match self.netlink()?.link(device)? {
            Some(link) => Ok(link.index),
            None => Err(LabError::NoInterface { host: self.name.clone(), device: device.to_owned() }),
        }
    }

    /// Connects it to another host by a veth pair, with both ends up.
    ///
    /// # Errors
    /// Fails if the kernel refuses the pair.
    pub fn connect(&self, device: &str, other: &Self, other_device: &str) -> Result<(), LabError> {
        self.netlink()?.add_veth(device, other_device, &other.ns)?;
        self.up(device)?;
        other.up(other_device)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses.
    pub fn up(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_up(index)?)
    }

    /// Sets an interface down.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses.
    pub fn down(&self, device: &str) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_down(index)?)
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses the address.
    pub fn address(&self, device: &str, address: impl Into<IpNet>) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.add_address(index, address.into())?)
    }

    /// Waits until no address of an interface is tentative. Without duplicate address detection
    /// that is a moment after the interface is up.
    ///
    /// # Errors
    /// Fails if there is no such interface, or if one is tentative after `timeout`.
    pub fn await_addresses(&self, device: &str, timeout: Duration) -> Result<(), LabError> {
        let index = self.index(device)?;
        let mut netlink = self.netlink()?;
        let start = Instant::now();
        while netlink.addresses(Some(index))?.iter().any(|address| address.is_tentative) {
            if start.elapsed() >= timeout {
                return Err(LabError::Io {
                    what: format!("use the addresses of {device} of {}", self.name),
                    source: std::io::Error::from(std::io::ErrorKind::TimedOut),
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Sets the MTU of an interface, in bytes.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses the MTU.
    pub fn mtu(&self, device: &str, mtu: u32) -> Result<(), LabError> {
        let index = self.index(device)?;
        Ok(self.netlink()?.set_mtu(index, mtu)?)
    }

    /// Adds a route through a gateway, onto an interface, or both.
    ///
    /// # Errors
    /// Fails if there is no such interface or the kernel refuses the route.
    pub fn route(
        &self,
        destination: Ipv4Net,
        gateway: Option<Ipv4Addr>,
        device: Option<&str>,
    ) -> Result<(), LabError> {
        self.add_route(destination.into(), gateway.map(IpAddr::from), device)
    }

    /// As [`Host::route`], of IPv6.
    ///
    /// # Errors
    /// As [`Host::route`].
    pub fn route_v6(
        &self,
        destination: Ipv6Net,
        gateway: Option<Ipv6Addr>,
        device: Option<&str>,
    ) -> Result<(), LabError> {
        self.add_route(destination.into(), gateway.map(IpAddr::from), device)
    }

    fn add_route(
        &self,
        destination: IpNet,
        gateway: Option<IpAddr>,
        device: Option<&str>,
    ) -> Result<(), LabError> {
        let device = device.map(|device| self.index(device)).transpose()?;
        Ok(self.netlink()?.add_route(&Route {
            destination,
            gateway,
            device,
            protocol: STATIC_PROTOCOL,
            ..Route::default()
        })?)
    }

    /// Runs a program on the host and waits for it.
    ///
    /// # Errors
    /// Fails if the program cannot start or does not succeed. The error quotes its standard error.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Result<(), LabError> {
        self.program_with_input(program, arguments, "")
    }

    /// Like [`Host::program`], with this text as the program's standard input.
    ///
    /// # Errors
    /// As for [`Host::program`].
    pub fn program_with_input(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), LabError> {
        let command = || format!("{program} {}", arguments.join(" "));
        let run = || -> std::io::Result<std::process::Output> {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        };
        let done = self.run(|| run().map_err(LabError::io(format!("run `{}`", command()))))?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr).trim().replace('\n', "; ");
        Err(LabError::Program { command: command(), host: self.name.clone(), said })
    }

    /// Loads nftables rules in the syntax of `nft`.
    ///
    /// # Errors
    /// Fails if `nft` is not installed or refuses the rules.
    pub fn load_nftables(&self, rules: &str) -> Result<(), LabError> {
        self.program_with_input("nft", &["-f", "-"], rules)
    }

    /// Sets a sysctl below `net/`, such as `ipv4/ip_forward`.
    ///
    /// # Errors
    /// Fails if the sysctl does not exist or is read-only.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        self.run(|| sysctl::write(&format!("net/{path}"), value))
    }

    /// Switches IPv4 forwarding on.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub fn forward(&self) -> Result<(), LabError> {
        self.sysctl("ipv4/ip_forward", "1")
    }
}
