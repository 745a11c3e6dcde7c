//! Bringing an overlay up and taking it down: all of it, or nothing.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_config::{Config, DataplaneChoice};
use adit_dataplane::DataPlane;
use adit_dataplane::clock::Clock;
use adit_dataplane::ebpf::{self, EbpfError, EbpfOptions, EbpfPlane};
use adit_dataplane::userspace::UserspacePlane;
use adit_linux::netlink::{Link, Netlink, ROUTE_PROTOCOL, Route};
use adit_linux::sysctl;
use adit_linux::tun::{Tun, TunOptions};
use adit_tunnel::Tunnel;

use crate::desired::{self, Desired, DesiredRoute};
use crate::error::ControlError;
use crate::memory::Memory;

/// What stays when a daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnExit {
    /// Device and routes stay, so that nothing meant for a peer leaves by another way, and the
    /// next start takes them over.
    Keep,
    /// Nothing stays.
    Remove,
}

/// An overlay that is up, in the network namespace of the thread that brought it up.
pub struct Overlay {
    config: Config,
    desired: Desired,
    netlink: Netlink,
    plane: Box<dyn DataPlane>,
    plane_reason: String,
    pins: Option<PathBuf>,
    memory: Option<Memory>,
}

/// Datagrams that wait for the tunnel: the kernel's default of 500 is less than two superpackets
/// of small datagrams.
const DEVICE_QUEUE: u32 = 4096;

impl Overlay {
    /// Makes device and routes and starts the data plane. When it returns, a packet sent now
    /// goes through. A device that an earlier daemon left is taken over. What is loaded into the kernel
    /// goes with this process.
    ///
    /// # Errors
    /// Whatever hinders it; what had been made by then is gone again.
    pub fn bring_up(config: &Config) -> Result<Self, ControlError> {
        Self::bring_up_with(config, None, None)
    }

    /// The same, but what is loaded into the kernel stays there when this process ends, in whatever way,
    /// and what an earlier process left there is replaced without a gap; what was learned of the paths is kept
    /// in the file `memory`, from where an earlier process's is taken over. For the one daemon that holds the
    /// overlay's lock.
    ///
    /// # Errors
    /// As [`Overlay::bring_up`].
    pub fn bring_up_to_stay(config: &Config, memory: &Path) -> Result<Self, ControlError> {
        // Without the file system for it there is no eBPF plane; whoever asks for one is told why.
        let pins = ebpf::pins_of(config.site.name.as_str());
        Self::bring_up_with(config, Some(pins), Some(Memory::open(memory)))
    }

    fn bring_up_with(
        config: &Config,
        pins: Option<Result<PathBuf, EbpfError>>,
        memory: Option<Memory>,
    ) -> Result<Self, ControlError> {
        if config.site.dataplane == DataplaneChoice::Kernel {
            return Err(ControlError::NoSuchPlane { asked: "kernel".to_owned() });
        }
        let mut netlink = Netlink::open()?;
        let local = local_addresses(&mut netlink, config.site.underlay)?;
        let underlay_mtu = underlay_mtu(&mut netlink, config)?;
        let desired = Desired::of(config, &local, underlay_mtu);
        let tunnel = Arc::new(Tunnel::new(desired::tunnel_config(config, &local, underlay_mtu))?);
        if config.tunnel.probe && tunnel.config().probe.is_none() && config.tunnel.df {
            tracing::info!(
                "no address of this machine lies in site.networks, so paths are not probed: an MTU black hole \
                 will not be found"
            );
        }
        if let Some(memory) = &memory {
            memory.recall(&tunnel, Clock.now());
        }
        refuse_foreign_device(&mut netlink, &desired)?;
        refuse_foreign_routes(&mut netlink, &desired)?;

        let is_taken_over = netlink.link(&desired.device)?.is_some();
        let open =
            || Tun::open(&TunOptions { name: desired.device.clone(), queues: queues(), persist: true });
        let tun = open()?;
        // One that an earlier daemon kept stays: without it, what is meant for a peer would leave in the open.
        let undo = Undo { device: (!is_taken_over).then(|| desired.device.clone()) };
        let link = set_up_device(&mut netlink, &desired)?;
        // Before there is a watcher, which would look at every peer's way again and again meanwhile.
        set_routes(&mut netlink, &desired, link.index)?;
        let starter =
            PlaneStarter { tunnel: &tunnel, device: link.index, underlay: config.site.underlay, open: &open };
        let (plane, plane_reason, pins) = starter.start(config.site.dataplane, tun, pins)?;
        undo.disarm();
        Ok(Self { config: config.clone(), desired, netlink, plane, plane_reason, pins, memory })
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The kernel objects it is made of.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What forwards.
    #[must_use]
    pub fn plane(&self) -> &dyn DataPlane {
        self.plane.as_ref()
    }

    /// Why this data plane and not another.
    #[must_use]
    pub fn plane_reason(&self) -> &str {
        &self.plane_reason
    }

    /// Keeps what has been learned of the paths, if there is anything new. To be called now and then; costs a
    /// few reads of memory a peer.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn remember(&mut self) -> Result<(), ControlError> {
        match &mut self.memory {
            Some(memory) => memory.keep(self.plane.tunnel()),
            None => Ok(()),
        }
    }

    /// Stops forwarding, and removes the kernel objects or leaves them.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn close(mut self, on_exit: OnExit) -> Result<(), ControlError> {
        self.plane.shutdown();
        match on_exit {
            OnExit::Keep => Ok(()),
            OnExit::Remove => {
                if let Some(pins) = &self.pins {
                    ebpf::remove_pins(pins)?;
                }
                remove_objects(&mut self.netlink, self.config.site.name.as_str()).map(drop)
            }
        }
    }
}

/// Removes what an overlay of this name left in the calling thread's network namespace: every
/// device that carries its mark, and with the device its routes. Returns what was removed.
///
/// # Errors
/// The kernel refuses.
pub fn remove_leftovers(site: &str) -> Result<Vec<String>, ControlError> {
    if let Ok(pins) = ebpf::pins_of(site) {
        ebpf::remove_pins(&pins)?;
    }
    remove_objects(&mut Netlink::open()?, site)
}

/// Whether there is anything that [`remove_leftovers`] would remove.
///
/// # Errors
/// The kernel cannot be asked.
pub fn has_leftovers(site: &str) -> Result<bool, ControlError> {
    let pinned = ebpf::pins_of(site).is_ok_and(|pins| ebpf::pins_exist(&pins));
    Ok(pinned || !objects(&mut Netlink::open()?, site)?.is_empty())
}

fn objects(netlink: &mut Netlink, site: &str) -> Result<Vec<Link>, ControlError> {
    let alias = desired::alias(site);
    Ok(netlink.links()?.into_iter().filter(|link| link.alias.as_deref() == Some(&alias)).collect())
}

fn remove_objects(netlink: &mut Netlink, site: &str) -> Result<Vec<String>, ControlError> {
    let mut removed = Vec::new();
    for link in objects(netlink, site)? {
        netlink.delete_link(link.index)?;
        removed.push(link.name);
    }
    Ok(removed)
}

/// What a data plane is started from.
struct PlaneStarter<'a> {
    tunnel: &'a Arc<Tunnel>,
    device: u32,
    underlay: Ipv4Addr,
    /// Opens the device once more.
    open: &'a dyn Fn() -> Result<Tun, adit_linux::error::Error>,
}

type Started = (Box<dyn DataPlane>, String, Option<PathBuf>);

impl PlaneStarter<'_> {
    /// Starts what was chosen, and says why that one.
    fn start(
        &self,
        choice: DataplaneChoice,
        tun: Tun,
        pins: Option<Result<PathBuf, EbpfError>>,
    ) -> Result<Started, ControlError> {
        if choice == DataplaneChoice::Userspace {
            return self.userspace(tun, "as configured".to_owned(), pins);
        }
        let asked = choice == DataplaneChoice::Ebpf;
        let pins = match pins.transpose() {
            Ok(pins) => pins,
            Err(error) if asked => return Err(error.into()),
            Err(error) => return self.fall_back(tun, &error, None),
        };
        let options = EbpfOptions { pins: pins.clone(), ..EbpfOptions::default() };
        let tunnel = Arc::clone(self.tunnel);
        match EbpfPlane::start(tunnel, tun, self.device, self.underlay, &options) {
            Ok(plane) => {
                let why = if asked { "as configured" } else { "auto: this kernel takes the programs" };
                let reason = format!("{why}, attached by {}", plane.hook().as_str());
                Ok((Box::new(plane), reason, pins))
            }
            Err(error) if asked => Err(error.into()),
            Err(error) => self.fall_back((self.open)()?, &error, pins),
        }
    }

    fn fall_back(&self, tun: Tun, error: &EbpfError, pins: Option<PathBuf>) -> Result<Started, ControlError> {
        tracing::warn!(%error, "the eBPF data plane cannot be used; userspace forwards");
        self.userspace(tun, format!("auto: not ebpf, {error}"), pins.map(Ok))
    }

    fn userspace(
        &self,
        tun: Tun,
        reason: String,
        pins: Option<Result<PathBuf, EbpfError>>,
    ) -> Result<Started, ControlError> {
        let plane = UserspacePlane::start(Arc::clone(self.tunnel), tun, self.underlay)?;
        // Programs of an earlier start would go on in front of it, by what was true then.
        if let Some(Ok(pins)) = &pins {
            ebpf::remove_pins(pins)?;
        }
        Ok((Box::new(plane), reason, None))
    }
}

/// A queue for every two processors: one thread for each direction.
fn queues() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).clamp(1, 4)
}

fn local_addresses(netlink: &mut Netlink, underlay: Ipv4Addr) -> Result<Vec<Ipv4Addr>, ControlError> {
    let local: Vec<Ipv4Addr> =
        netlink.addresses(None)?.into_iter().map(|address| address.prefix.addr()).collect();
    if !local.contains(&underlay) {
        let found: Vec<String> =
            local.iter().filter(|address| !address.is_loopback()).map(Ipv4Addr::to_string).collect();
        let found = if found.is_empty() { "none yet".to_owned() } else { found.join(", ") };
        return Err(ControlError::UnderlayMissing { address: underlay, found });
    }
    Ok(local)
}

/// The largest datagram that the underlay takes towards every peer.
fn underlay_mtu(netlink: &mut Netlink, config: &Config) -> Result<u16, ControlError> {
    let links = netlink.links()?;
    let peers: Vec<Ipv4Addr> = config.peers.iter().map(|peer| peer.underlay).collect();
    let mut smallest = None;
    // A peer without a route yet is no reason not to start.
    for route in netlink.routes_to(&peers, Some(config.site.underlay))?.into_iter().flatten() {
        let link = links.iter().find(|link| link.index == route.device).map(|link| link.mtu);
        smallest = smallest.into_iter().chain(link).min();
    }
    Ok(smallest.unwrap_or(1500).min(u32::from(u16::MAX)) as u16)
}

fn refuse_foreign_device(netlink: &mut Netlink, desired: &Desired) -> Result<(), ControlError> {
    match netlink.link(&desired.device)? {
        Some(link) if link.alias.as_deref() != Some(&desired.alias) => {
            let what = match (&link.alias, &link.kind) {
                (Some(alias), _) => format!("its alias is `{alias}`"),
                (None, Some(kind)) => format!("a device of kind `{kind}` without our alias"),
                (None, None) => "a device without our alias".to_owned(),
            };
            Err(ControlError::ForeignDevice { device: desired.device.clone(), what })
        }
        _ => Ok(()),
    }
}

fn refuse_foreign_routes(netlink: &mut Netlink, desired: &Desired) -> Result<(), ControlError> {
    let device = netlink.link(&desired.device)?.map(|link| link.index);
    let links = netlink.links()?;
    let routes = netlink.routes()?;
    let wanted: HashMap<_, _> = desired.routes.iter().map(|route| (route.network, route)).collect();
    for route in routes {
        let Some(wanted) = wanted.get(&route.destination) else { continue };
        if route.protocol == ROUTE_PROTOCOL && (device.is_none() || route.device == device) {
            continue;
        }
        return Err(ControlError::ForeignRoute {
            network: wanted.network,
            peer: wanted.peer.clone(),
            what: describe(&route, &links),
        });
    }
    Ok(())
}

fn describe(route: &Route, links: &[Link]) -> String {
    let mut what = Vec::new();
    if let Some(gateway) = route.gateway {
        what.push(format!("via {gateway}"));
    }
    if let Some(link) = links.iter().find(|link| Some(link.index) == route.device) {
        what.push(format!("dev {}", link.name));
    }
    what.push(format!("proto {}", route.protocol));
    what.join(" ")
}

fn set_up_device(netlink: &mut Netlink, desired: &Desired) -> Result<Link, ControlError> {
    let missing = || ControlError::ForeignDevice {
        device: desired.device.clone(),
        what: "it vanished while it was being set up".to_owned(),
    };
    let link = netlink.link(&desired.device)?.ok_or_else(missing)?;
    netlink.set_alias(link.index, &desired.alias)?;
    netlink.set_mtu(link.index, u32::from(desired.mtu))?;
    netlink.set_txqueuelen(link.index, DEVICE_QUEUE)?;
    // Only IPv4 is carried; without this the kernel would send router solicitations into it.
    // A kernel without IPv6 has no such knob.
    let _ = sysctl::write(&format!("net/ipv6/conf/{}/disable_ipv6", desired.device), "1");
    netlink.set_up(link.index)?;
    Ok(link)
}

/// Routes of ours that are no longer wanted go, those that are wanted come; those that are as they should
/// be are left alone.
fn set_routes(netlink: &mut Netlink, desired: &Desired, device: u32) -> Result<(), ControlError> {
    let is_large = has_many_gateways(desired);
    let wanted: Vec<Route> =
        desired.routes.iter().map(|route| kernel_route(route, device, is_large)).collect();
    let at: HashMap<_, _> = wanted.iter().map(|route| route.destination).zip(0..).collect();
    let mut is_set = vec![false; wanted.len()];
    let mut unwanted = Vec::new();
    for route in netlink.routes_by(ROUTE_PROTOCOL, device)? {
        match at.get(&route.destination) {
            Some(&place) => is_set[place] |= wanted[place].is_already(&route),
            None => unwanted.push(route),
        }
    }
    netlink.delete_routes(&unwanted)?;
    let missing: Vec<Route> =
        wanted.into_iter().zip(is_set).filter(|(_, is_set)| !is_set).map(|(route, _)| route).collect();
    Ok(netlink.replace_routes(&missing)?)
}

/// The kernel compares a route with all those it keeps for the same device, one after another, but for those
/// that lead by the same gateway: with 10,000 gateways, that is two seconds.
const GATEWAYS: usize = 256;
/// Stands for whichever peer it is: the address that RFC 7600 sets aside for a host that has none. That
/// there is a gateway is all that counts, see [`DesiredRoute::via`].
const ANY_PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

fn has_many_gateways(desired: &Desired) -> bool {
    desired.routes.iter().map(|route| route.via).collect::<HashSet<_>>().len() > GATEWAYS
}

fn kernel_route(route: &DesiredRoute, device: u32, is_large: bool) -> Route {
    Route {
        destination: route.network,
        device: Some(device),
        gateway: route.via.map(|peer| if is_large { ANY_PEER } else { peer }),
        onlink: route.via.is_some(),
        preferred_source: route.preferred_source,
        protocol: ROUTE_PROTOCOL,
        ..Route::default()
    }
}

/// Removes the device that was made unless everything went well.
struct Undo {
    device: Option<String>,
}

impl Undo {
    fn disarm(mut self) {
        self.device = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(device) = &self.device else { return };
        let removed = Netlink::open().and_then(|mut netlink| match netlink.link(device)? {
            Some(link) => netlink.delete_link(link.index),
            None => Ok(()),
        });
        if let Err(error) = removed {
            tracing::error!(%error, device, "cannot remove what a failed start had made");
        }
    }
}
