//! A gateway under test between two scripted neighbours:
//!
//! ```text
//!   host (all senders on our side) ── gateway under test ── router (the underlay, and all peers)
//! ```

use std::path::Path;
use std::time::{Duration, Instant};

use adit_lab::LabError;
use adit_lab::capture::Frame;
use adit_lab::host::Host;
use adit_lab::pcapng::write_interfaces;
use adit_testbed::wire_tap::{FrameReceiver, Injector, mac};
use adit_wire::ipv6::is_ipv6;
use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::Error;
use crate::reaction::{Reaction, error_in, error_in_v6, is_neighbor_discovery};
use crate::site::{
    Families, HOST, HOST6, INSIDE, INSIDE6, OURS6, ROUTER, ROUTER6, Site, UNDERLAY, UNDERLAY6,
};
use crate::system::{Setup, System, Tunnel};

/// After the last datagram, how long the testbed waits for another.
const QUIET_TIME: Duration = Duration::from_millis(150);
/// How long the testbed waits for the first datagram. One takes a few milliseconds, but an emulated
/// machine may be busy.
const FIRST_TIMEOUT: Duration = Duration::from_millis(600);
/// How long the testbed waits for a datagram that must come.
const REQUIRED_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one receiver is polled before the other.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// The gateway's interfaces.
const INSIDE_DEVICE: &str = "inside";
const UNDERLAY_DEVICE: &str = "underlay";

/// A neighbour's end of a cable.
struct Cable {
    injector: Injector,
    receiver: FrameReceiver,
    frames: Vec<Frame>,
}

impl Cable {
    fn new(neighbour: &Host, gateway: &Host, device: &str) -> Result<Self, LabError> {
        Ok(Self {
            injector: Injector::new(neighbour, "eth0", gateway, device)?,
            receiver: FrameReceiver::new(neighbour, "eth0", gateway, device)?,
            frames: Vec::new(),
        })
    }
}

/// Gives the gateway addresses and routes of IPv6 too. The neighbours have none, as of IPv4.
fn add_ipv6(gateway: &Host, [host, router]: [&Host; 2]) -> Result<(), Error> {
    gateway.sysctl("ipv6/conf/all/forwarding", "1")?;
    for (device, address, neighbour, its_address) in
        [(INSIDE_DEVICE, INSIDE6, host, HOST6), (UNDERLAY_DEVICE, UNDERLAY6, router, ROUTER6)]
    {
        gateway.address(device, Ipv6Net::new_assert(address, 64))?;
        gateway.await_addresses(device, REQUIRED_TIMEOUT)?;
        let index = gateway.index(device)?;
        gateway.netlink()?.set_neighbour(index, its_address, mac(neighbour, "eth0")?)?;
    }
    let ours: Ipv6Net = OURS6.parse().map_err(|error| Error::Io {
        what: "read a constant".to_owned(),
        source: std::io::Error::other(error),
    })?;
    gateway.route_v6(ours, Some(HOST6), None)?;
    Ok(gateway.route_v6(Ipv6Net::default(), Some(ROUTER6), None)?)
}

/// One of the two neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Inside,
    Underlay,
}

fn is_error(datagram: &[u8]) -> bool {
    error_in(datagram).is_some() || error_in_v6(datagram).is_some()
}

/// The gateway, its neighbours and its tunnel.
pub(crate) struct Testbed {
    pub(crate) system: System,
    pub(crate) tunnel: Tunnel,
    pub(crate) gateway: Host,
    inside: Cable,
    underlay: Cable,
    free: Box<dyn Iterator<Item = Site> + Send>,
}

impl Testbed {
    /// Builds the testbed, and waits until the tunnel carries a datagram.
    pub(crate) fn build(system: System, setup: Setup) -> Result<Self, Error> {
        let (host, gateway, router) = (Host::new("host")?, Host::new("gateway")?, Host::new("router")?);
        // Distributions change the kernel's default. The host's filters must not hide the tunnel's.
        for scope in ["all", "default"] {
            gateway.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        }
        gateway.forward()?;
        gateway.connect(INSIDE_DEVICE, &host, "eth0")?;
        gateway.connect(UNDERLAY_DEVICE, &router, "eth0")?;
        gateway.address(INSIDE_DEVICE, Ipv4Net::new_assert(INSIDE, 24))?;
        gateway.address(UNDERLAY_DEVICE, Ipv4Net::new_assert(UNDERLAY, 24))?;
        // The neighbours have no addresses, so their kernels answer nothing. The gateway gets
        // static neighbour entries.
        for (device, address, neighbour) in [(INSIDE_DEVICE, HOST, &host), (UNDERLAY_DEVICE, ROUTER, &router)]
        {
            let index = gateway.index(device)?;
            gateway.netlink()?.set_neighbour(index, address, mac(neighbour, "eth0")?)?;
        }
        gateway.route(Ipv4Net::new_assert([172, 16, 0, 0].into(), 16), Some(HOST), None)?;
        gateway.route(Ipv4Net::default(), Some(ROUTER), None)?;
        if setup.families() != Families::OverIpv4 {
            add_ipv6(&gateway, [&host, &router])?;
        }
        let tunnel = Tunnel::bring_up(system, setup, &gateway)?;
        let mut testbed = Self {
            system,
            tunnel,
            inside: Cable::new(&host, &gateway, INSIDE_DEVICE)?,
            underlay: Cable::new(&router, &gateway, UNDERLAY_DEVICE)?,
            gateway,
            free: Box::new(Site::all()),
        };
        let site =
            testbed.site(if setup.families() == Families::OverIpv4 { Setup::Default } else { setup })?;
        let first = match setup.families() {
            Families::OverIpv4 => site.there(100).build(),
            Families::SixInFour | Families::OverIpv6 => site.there_v6(100).build(),
        };
        let reaction =
            testbed.put_until(Side::Inside, &[first], |reaction| !reaction.outers_to(site).is_empty())?;
        if reaction.outers_to(site).is_empty() {
            return Err(Error::Dead { system: system.title(), seconds: REQUIRED_TIMEOUT.as_secs() });
        }
        testbed.take_frames();
        Ok(testbed)
    }

    /// Takes an unused site.
    pub(crate) fn site(&mut self, setup: Setup) -> Result<Site, Error> {
        let site = self.free.next().ok_or_else(|| Error::Io {
            what: "find an unused site".to_owned(),
            source: std::io::Error::other("all are used: raise SITES"),
        })?;
        self.tunnel.add(site, setup)?;
        Ok(site)
    }

    /// Sends datagrams to the gateway, and returns all reactions.
    pub(crate) fn put(&mut self, from: Side, datagrams: &[Vec<u8>]) -> Result<Reaction, Error> {
        self.put_unless(from, datagrams, |_| false)
    }

    /// Like [`Testbed::put`], but waits until the reaction is complete. Returns an incomplete one
    /// after a timeout.
    pub(crate) fn put_until(
        &mut self,
        from: Side,
        datagrams: &[Vec<u8>],
        complete: impl Fn(&Reaction) -> bool,
    ) -> Result<Reaction, Error> {
        self.inject(from, datagrams)?;
        self.hear(REQUIRED_TIMEOUT, complete)
    }

    /// Like [`Testbed::put_until`], for a reaction that may never be complete.
    pub(crate) fn put_unless(
        &mut self,
        from: Side,
        datagrams: &[Vec<u8>],
        complete: impl Fn(&Reaction) -> bool,
    ) -> Result<Reaction, Error> {
        let errors = datagrams.iter().filter(|datagram| is_error(datagram)).count() as u64;
        let from_underlay = from == Side::Underlay && errors > 0;
        let counted = self.tunnel.errors_counted().filter(|_| from_underlay).map(|counted| counted + errors);
        self.inject(from, datagrams)?;
        if let Some(counted) = counted {
            self.wait_until_counted(counted);
        }
        // Linux acts on an error as soon as it arrives, so a short wait is enough.
        self.hear_after(if from_underlay { QUIET_TIME } else { FIRST_TIMEOUT }, QUIET_TIME, complete)
    }

    /// Waits until the tunnel has inspected so many ICMP errors. Some never reach it, so the wait
    /// has a limit.
    fn wait_until_counted(&self, errors: u64) {
        let deadline = Instant::now() + FIRST_TIMEOUT;
        while self.tunnel.errors_counted().is_some_and(|counted| counted < errors)
            && Instant::now() < deadline
        {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn inject(&mut self, from: Side, datagrams: &[Vec<u8>]) -> Result<(), Error> {
        let cable = match from {
            Side::Inside => &mut self.inside,
            Side::Underlay => &mut self.underlay,
        };
        for datagram in datagrams {
            if is_ipv6(datagram) {
                cable.injector.send_ipv6(datagram)?;
            } else {
                cable.injector.add(datagram);
            }
        }
        Ok(cable.injector.flush()?)
    }

    /// Collects reactions until they are complete, or until nothing has come for `quiet`.
    pub(crate) fn hear(
        &mut self,
        quiet: Duration,
        complete: impl Fn(&Reaction) -> bool,
    ) -> Result<Reaction, Error> {
        self.hear_after(quiet, quiet, complete)
    }

    /// Like [`Testbed::hear`], with another timeout for the first datagram.
    fn hear_after(
        &mut self,
        first: Duration,
        then: Duration,
        complete: impl Fn(&Reaction) -> bool,
    ) -> Result<Reaction, Error> {
        let mut reaction = Reaction::default();
        let (mut last, mut quiet) = (Instant::now(), first);
        while last.elapsed() < quiet && !complete(&reaction) {
            for (cable, heard) in
                [(&mut self.inside, &mut reaction.inside), (&mut self.underlay, &mut reaction.underlay)]
            {
                while let Some(datagram) = cable.receiver.next_of_any_family(POLL_INTERVAL)? {
                    // What an interface of IPv6 says by itself is no reaction.
                    if !is_neighbor_discovery(&datagram) {
                        heard.push(datagram);
                        (last, quiet) = (Instant::now(), then);
                    }
                }
            }
        }
        Ok(reaction)
    }

    /// Writes all frames since the last call to a file.
    pub(crate) fn write_frames(&mut self, path: &Path) -> Result<(), Error> {
        self.take_frames();
        let [inside, underlay] =
            [&mut self.inside, &mut self.underlay].map(|cable| std::mem::take(&mut cable.frames));
        write_interfaces(path, &[(INSIDE_DEVICE, &inside), (UNDERLAY_DEVICE, &underlay)])?;
        Ok(())
    }

    /// Discards the frames of earlier rows.
    pub(crate) fn forget_frames(&mut self) {
        self.take_frames();
        for cable in [&mut self.inside, &mut self.underlay] {
            cable.frames.clear();
        }
    }

    fn take_frames(&mut self) {
        for cable in [&mut self.inside, &mut self.underlay] {
            cable.frames.extend(cable.receiver.take_frames());
        }
    }
}
