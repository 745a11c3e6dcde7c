//! Bringing an overlay up and taking it down: all of it, or nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_config::{Config, DataplaneChoice};
use adit_dataplane::DataPlane;
use adit_dataplane::clock::Clock;
use adit_dataplane::ebpf;
use adit_linux::netlink::{Link, Netlink};
use adit_linux::tun::{Tun, TunOptions};
use adit_tunnel::{PeerIndex, PeerTotals, Totals, Tunnel};

use crate::change::{self, Change, Kind, Object};
use crate::desired::{self, Desired};
use crate::error::ControlError;
use crate::kernel::{self, Actual};
use crate::memory::Memory;
use crate::starter::{self, PlaneStarter};

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
    /// The device's index: it is ours, whatever somebody calls it.
    device: u32,
    netlink: Netlink,
    plane: Box<dyn DataPlane>,
    plane_reason: String,
    pins: Option<PathBuf>,
    /// What is loaded into the kernel stays there when this process ends.
    stays: bool,
    memory: Option<Memory>,
    /// What data planes counted that were replaced since the start.
    before: Totals,
    repairs: BTreeMap<Object, u64>,
}

/// Everything that a configuration asks for on this machine, before anything is made.
struct Survey {
    desired: Desired,
    tunnel: Arc<Tunnel>,
}

impl Survey {
    fn of(netlink: &mut Netlink, config: &Config) -> Result<Self, ControlError> {
        if config.site.dataplane == DataplaneChoice::Kernel {
            return Err(ControlError::NoSuchPlane { asked: "kernel".to_owned() });
        }
        let local = kernel::local_addresses(netlink, config.site.underlay)?;
        let underlay_mtu = kernel::underlay_mtu(netlink, config)?;
        let desired = Desired::of(config, &local, underlay_mtu);
        let tunnel = Arc::new(Tunnel::new(desired::tunnel_config(config, &local, underlay_mtu))?);
        if config.tunnel.probe && tunnel.config().probe.is_none() && config.tunnel.df {
            tracing::info!(
                "no address of this machine lies in site.networks, so paths are not probed: an MTU black hole \
                 will not be found"
            );
        }
        kernel::refuse_foreign_device(netlink, &desired)?;
        kernel::refuse_foreign_routes(netlink, &desired)?;
        Ok(Self { desired, tunnel })
    }

    fn open(&self) -> Result<Tun, adit_linux::error::Error> {
        Tun::open(&TunOptions { name: self.desired.device.clone(), queues: starter::queues() })
    }

    /// Starts what forwards, on a device that is set up.
    fn start(
        &self,
        config: &Config,
        tun: Tun,
        device: &Link,
        stays: bool,
    ) -> Result<starter::Started, ControlError> {
        // Without the file system for it there is no eBPF plane; whoever asks for one is told why.
        let pins = stays.then(|| ebpf::pins_of(config.site.name.as_str()));
        let open = || self.open();
        let starter = PlaneStarter {
            tunnel: &self.tunnel,
            device: device.index,
            underlay: config.site.underlay,
            open: &open,
        };
        starter.start(config.site.dataplane, tun, pins)
    }
}

impl Overlay {
    /// Makes device and routes and starts the data plane. When it returns, a packet sent now
    /// goes through. A device that an earlier daemon left is taken over. What is loaded into the kernel
    /// goes with this process.
    ///
    /// # Errors
    /// Whatever hinders it; what had been made by then is gone again.
    pub fn bring_up(config: &Config) -> Result<Self, ControlError> {
        Self::bring_up_with(config, false, None)
    }

    /// The same, but what is loaded into the kernel stays there when this process ends, in whatever way,
    /// and what an earlier process left there is replaced without a gap; what was learned of the paths is kept
    /// in the file `memory`, from where an earlier process's is taken over. For the one daemon that holds the
    /// overlay's lock.
    ///
    /// # Errors
    /// As [`Overlay::bring_up`].
    pub fn bring_up_to_stay(config: &Config, memory: &Path) -> Result<Self, ControlError> {
        Self::bring_up_with(config, true, Some(Memory::open(memory)))
    }

    fn bring_up_with(config: &Config, stays: bool, memory: Option<Memory>) -> Result<Self, ControlError> {
        let mut netlink = Netlink::open()?;
        let survey = Survey::of(&mut netlink, config)?;
        if let Some(memory) = &memory {
            memory.recall(&survey.tunnel, Clock.now());
        }
        let is_taken_over = netlink.link(&survey.desired.device)?.is_some();
        let tun = survey.open()?;
        // One that an earlier daemon kept stays: without it, what is meant for a peer would leave in the open.
        let undo = Undo { device: (!is_taken_over).then(|| survey.desired.device.clone()) };
        let link = kernel::set_up_device(&mut netlink, &survey.desired)?;
        tun.keep()?;
        // Before there is a watcher, which would look at every peer's way again and again meanwhile.
        kernel::set_routes(&mut netlink, &survey.desired, link.index)?;
        let (plane, plane_reason, pins) = survey.start(config, tun, &link, stays)?;
        undo.disarm();
        Ok(Self {
            config: config.clone(),
            desired: survey.desired,
            device: link.index,
            netlink,
            plane,
            plane_reason,
            pins,
            stays,
            memory,
            before: Totals::default(),
            repairs: BTreeMap::new(),
        })
    }

    /// Changes a running overlay to what `config` says; what stays the same goes on forwarding. Returns what has
    /// changed.
    ///
    /// # Errors
    /// Whatever hinders it; everything is then as it was before.
    pub fn reload(&mut self, config: &Config) -> Result<Vec<Change>, ControlError> {
        let changes = plan(Some(&self.config), config)?;
        if changes.is_empty() {
            return Ok(changes);
        }
        let before = self.config.clone();
        let metrics = config.site.metrics;
        if changes.len() == 1 && metrics != before.site.metrics {
            // Who reads the numbers is nothing to what forwards.
            self.config.site.metrics = metrics;
            return Ok(changes);
        }
        if let Err(error) = self.install(config) {
            if let Err(error) = self.install(&before) {
                tracing::error!(%error, "what ran before cannot be restored");
            }
            return Err(error);
        }
        Ok(changes)
    }

    /// Puts all that `config` asks for in the place of what there is.
    fn install(&mut self, config: &Config) -> Result<(), ControlError> {
        let survey = Survey::of(&mut self.netlink, config)?;
        survey.tunnel.inherit(self.plane.tunnel());
        let tun = survey.open()?;
        let link = kernel::set_up_device(&mut self.netlink, &survey.desired)?;
        tun.keep()?;
        // Programs in the kernel go on meanwhile; the new ones take their place in one step.
        self.plane.shutdown();
        let before = self.counted_by(&survey.tunnel);
        let (plane, plane_reason, pins) = survey.start(config, tun, &link, self.stays)?;
        (self.plane, self.plane_reason, self.pins, self.before) = (plane, plane_reason, pins, before);
        // Only now is there somebody who knows a new peer.
        kernel::set_routes(&mut self.netlink, &survey.desired, link.index)?;
        (self.config, self.desired, self.device) = (config.clone(), survey.desired, link.index);
        Ok(())
    }

    /// What ends with the data plane that runs, for the peers of another tunnel: they are known by their underlay
    /// addresses.
    fn counted_by(&self, tunnel: &Tunnel) -> Totals {
        let mut counted = self.plane.own_totals();
        counted.add(&self.before);
        let old = self.plane.tunnel();
        let peers = tunnel.peers().map(|(_, peer)| {
            let IpAddr::V4(underlay) = peer.underlay else { return PeerTotals::default() };
            let index = old.lookup_outer(underlay).map(PeerIndex::index);
            index.and_then(|index| counted.peers.get(index)).copied().unwrap_or_default()
        });
        let peers = peers.collect();
        Totals { peers, ..counted }
    }

    /// Looks whether everything is as it should be, and makes it so. Returns what was not.
    ///
    /// # Errors
    /// It cannot be repaired now; another attempt may.
    pub fn repair(&mut self) -> Result<Vec<Change>, ControlError> {
        let mut actual = Actual::look(&mut self.netlink, &self.desired)?;
        let foreign = kernel::foreign_routes(&mut self.netlink, &self.desired)?;
        let is_ours = actual.device.as_ref().is_some_and(|link| link.index == self.device);
        if !is_ours {
            // Whoever has taken the name is no device of ours; routes went with the one that was.
            kernel::refuse_foreign_device(&mut self.netlink, &self.desired)?;
            actual = Actual::default();
        }
        let mut changes = change::of_kernel(&self.config, &self.desired, &actual);
        changes.retain(|change| !foreign.iter().any(|network| change.is_about(*network)));
        if is_ours && let Err(why) = self.plane.check() {
            changes.push(Change::new(Kind::Change, Object::DataPlane, why));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        for change in &changes {
            tracing::warn!(%change, "repaired");
            *self.repairs.entry(change.object).or_default() += 1;
        }
        if is_ours && changes.iter().all(|change| change.object != Object::DataPlane) {
            let link = kernel::set_up_device(&mut self.netlink, &self.desired)?;
            kernel::set_routes_but(&mut self.netlink, &self.desired, link.index, &foreign)?;
        } else {
            self.install(&self.config.clone())?;
        }
        Ok(changes)
    }

    /// All counts since the start, whatever was replaced since.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = self.plane.totals();
        totals.add(&self.before);
        totals
    }

    /// How often something of each kind had to be repaired.
    #[must_use]
    pub fn repairs(&self) -> &BTreeMap<Object, u64> {
        &self.repairs
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

fn refuse_other_device(running: &Config, config: &Config) -> Result<(), ControlError> {
    for (key, old, new) in [
        ("site.name", running.site.name.as_str(), config.site.name.as_str()),
        ("site.device", running.site.device.as_str(), config.site.device.as_str()),
    ] {
        if old != new {
            return Err(ControlError::NotInPlace { key, old: old.to_owned(), new: new.to_owned() });
        }
    }
    Ok(())
}

/// What `config` would change on this machine, in the calling thread's network namespace, beside what runs.
///
/// # Errors
/// It could not be brought up, or not in place of what runs.
pub fn plan(running: Option<&Config>, config: &Config) -> Result<Vec<Change>, ControlError> {
    if let Some(running) = running {
        refuse_other_device(running, config)?;
    }
    let mut netlink = Netlink::open()?;
    let mut changes = change::of_configs(running, config);
    let survey = Survey::of(&mut netlink, config)?;
    let actual = Actual::look(&mut netlink, &survey.desired)?;
    changes.extend(change::of_kernel(config, &survey.desired, &actual));
    Ok(changes)
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
