//! Bringing an overlay up and taking it down: all of it, or nothing.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_config::Config;
use adit_dataplane::DataPlane;
use adit_dataplane::clock::Clock;
use adit_dataplane::ebpf;
use adit_dataplane::kernel::FilterTable;
use adit_linux::net_scope::Inside;
use adit_linux::netlink::{Link, Netlink};
use adit_linux::tun::{Tun, TunOptions};
use adit_tunnel::{PeerIndex, PeerTotals, Totals, Tunnel};

use crate::error::ControlError;
use crate::namespaces::{Sides, namespace};
use crate::plane_select::{self, PlaneStarter};
use crate::reconcile::change::{self, Change, Kind, Object};
use crate::reconcile::desired::{self, Desired, is_drivers};
use crate::reconcile::devices::is_of_site;
use crate::reconcile::objects::{self, Actual};
use crate::reconcile::route_events::Hearsay;
use crate::state::path_cache::PathCache;
use crate::underlay;

mod driver;

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
    pub(crate) config: Config,
    pub(crate) desired: Desired,
    /// The devices' indices: they are ours, whatever somebody calls them.
    pub(crate) devices: Vec<u32>,
    pub(crate) sides: Sides,
    pub(crate) plane: Box<dyn DataPlane>,
    plane_reason: String,
    pins: Option<PathBuf>,
    /// What is loaded into the kernel stays there when this process ends.
    stays: bool,
    memory: Option<PathCache>,
    /// What data planes counted that were replaced since the start.
    before: Totals,
    repairs: BTreeMap<Object, u64>,
    /// Where Linux's own driver carries the packets.
    driver: Option<Arc<FilterTable>>,
    /// Our address was not there when it was last looked for.
    is_underlay_missing: bool,
}

/// Everything that a configuration asks for on this machine, before anything is made.
struct Survey {
    desired: Desired,
    tunnel: Arc<Tunnel>,
    place: Inside,
}

impl Survey {
    /// What is asked for on the machine as it is; the underlay address that is `in_use` stays if it can.
    fn of(sides: &mut Sides, config: &Config, in_use: Option<Ipv4Addr>) -> Result<Self, ControlError> {
        if is_drivers(config) && sides.place.is_elsewhere() {
            let why = "which is not made in another network namespace or in a VRF (site.netns, site.vrf)";
            return Err(ControlError::PlaneCannot { plane: "kernel", why });
        }
        let machine = objects::look_at_machine(sides, config, in_use)?;
        let mut desired = Desired::of(config, &machine);
        let site = config.site.name.as_str();
        if desired.is_drivers() {
            desired.adapt_to(site, &sides.inside.links()?);
        }
        let tunnel = Arc::new(Tunnel::new(desired::tunnel_config(config, &machine))?);
        let may_probe = config.site.tunnel.probe && config.site.tunnel.df && !desired.is_drivers();
        if may_probe && tunnel.config().probe.is_none() {
            tracing::info!(
                "no address of this machine lies in site.networks, so paths are not probed: an MTU black hole \
                 will not be found"
            );
        }
        objects::refuse_foreign_device(&mut sides.inside, site, &desired)?;
        objects::refuse_foreign_routes(&mut sides.inside, site, &desired)?;
        Ok(Self { desired, tunnel, place: sides.place.clone() })
    }

    fn open(&self) -> Result<Tun, adit_linux::error::Error> {
        let name = self.desired.device.clone();
        Tun::open_in(&TunOptions { name, queues: plane_select::queues() }, self.place.clone())
    }

    /// Starts what forwards, on a device that is set up.
    fn start(
        &self,
        config: &Config,
        tun: Tun,
        device: &Link,
        stays: bool,
    ) -> Result<plane_select::Started, ControlError> {
        // Without the file system for it there is no eBPF plane; whoever asks for one is told why.
        let pins = stays.then(|| ebpf::pins_of(config.site.name.as_str()));
        let open = || self.open();
        let starter = PlaneStarter {
            tunnel: &self.tunnel,
            device: device.index,
            underlay: self.desired.underlay,
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
        Self::bring_up_with(config, true, Some(PathCache::open(memory)))
    }

    fn bring_up_with(config: &Config, stays: bool, memory: Option<PathCache>) -> Result<Self, ControlError> {
        let mut sides = Sides::open(&config.site)?;
        let survey = Survey::of(&mut sides, config, None)?;
        if survey.desired.is_drivers() {
            return driver::bring_up(sides, survey, config, stays);
        }
        if let Some(memory) = &memory {
            memory.restore(&survey.tunnel, Clock.now());
        }
        let is_taken_over = sides.inside.link(&survey.desired.device)?.is_some();
        let tun = survey.open()?;
        // One that an earlier daemon kept stays: without it, what is meant for a peer would leave in the open.
        let device = (!is_taken_over).then(|| survey.desired.device.clone());
        let undo = Undo { device, place: sides.place.clone() };
        let link = objects::set_up_device(&mut sides.inside, &survey.desired)?;
        tun.keep()?;
        // Before there is a watcher, which would look at every peer's way again and again meanwhile.
        objects::set_routes(&mut sides.inside, &survey.desired, &[link.index])?;
        let (plane, plane_reason, pins) = survey.start(config, tun, &link, stays)?;
        undo.disarm();
        Ok(Self {
            config: config.clone(),
            desired: survey.desired,
            devices: vec![link.index],
            sides,
            plane,
            plane_reason,
            pins,
            stays,
            memory,
            before: Totals::default(),
            repairs: BTreeMap::new(),
            driver: None,
            is_underlay_missing: false,
        })
    }

    /// Changes a running overlay to what `config` says; what stays the same goes on forwarding. Returns what has
    /// changed.
    ///
    /// # Errors
    /// Whatever hinders it; everything is then as it was before.
    pub fn reload(&mut self, config: &Config) -> Result<Vec<Change>, ControlError> {
        if let Some(changes) = self.amend(config)? {
            return Ok(changes);
        }
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
        // The namespace may be another one of the same name.
        let mut sides = Sides::open(&config.site)?;
        let survey = Survey::of(&mut sides, config, Some(self.desired.underlay))?;
        survey.tunnel.inherit(&self.plane.tunnel());
        if survey.desired.is_drivers() {
            return driver::install(self, survey, config);
        }
        let tun = survey.open()?;
        let link = objects::set_up_device(&mut sides.inside, &survey.desired)?;
        tun.keep()?;
        // Programs in the kernel go on meanwhile; the new ones take their place in one step.
        self.plane.shutdown();
        let before = self.counted_by(&survey.tunnel);
        let (plane, plane_reason, pins) = survey.start(config, tun, &link, self.stays)?;
        (self.plane, self.plane_reason, self.pins, self.before) = (plane, plane_reason, pins, before);
        self.sides = sides;
        // Only now is there somebody who knows a new peer.
        objects::set_routes(&mut self.sides.inside, &survey.desired, &[link.index])?;
        (self.config, self.desired, self.devices) = (config.clone(), survey.desired, vec![link.index]);
        Ok(())
    }

    /// What ends with the data plane that runs, for the peers of another tunnel: they are known by their underlay
    /// addresses.
    fn counted_by(&self, tunnel: &Tunnel) -> Totals {
        let mut counted = self.plane.own_totals();
        counted.add(&self.before);
        let old = self.plane.tunnel();
        let mut peers = vec![PeerTotals::default(); tunnel.peer_slots()];
        for (peer, config) in tunnel.peers() {
            let index = old.lookup_outer(config.underlay).map(PeerIndex::index);
            if let (Some(count), Some(before)) =
                (peers.get_mut(peer.index()), index.and_then(|index| counted.peers.get(index)))
            {
                *count = *before;
            }
        }
        Totals { peers, ..counted }
    }

    /// Looks whether everything is as it should be, and makes it so. Returns what was not.
    ///
    /// # Errors
    /// It cannot be repaired now; another attempt may.
    pub fn repair(&mut self) -> Result<Vec<Change>, ControlError> {
        if !self.sides.is_current(&self.config.site) {
            return self.follow_namespace();
        }
        driver::follow_names(self)?;
        let site = self.config.site.name.as_str();
        let mut actual = Actual::look(&mut self.sides.inside, site, &self.desired, &self.devices)?;
        let foreign = objects::foreign_routes(&mut self.sides.inside, site, &self.desired)?;
        let is_ours = actual.indices() == self.devices;
        if !is_ours {
            // Whoever has taken the name is no device of ours; routes went with the one that was.
            objects::refuse_foreign_device(&mut self.sides.inside, site, &self.desired)?;
            if !self.desired.is_drivers() {
                actual = Actual::default();
            }
        }
        let mut changes = change::of_kernel(&self.config, &self.desired, &actual);
        changes.extend(self.underlay_moved()?);
        // Its number and its table are another's: nothing that was made fits.
        let is_vrf_new = self.sides.vrf()? != self.desired.vrf;
        changes.retain(|change| change.network.is_none_or(|network| !foreign.contains(&network)));
        // The table's rules are the plane's to know.
        changes.retain(|change| change.object != Object::Table);
        if is_ours || self.desired.is_drivers() {
            let object = if self.desired.is_drivers() { Object::Table } else { Object::DataPlane };
            changes.extend(self.plane.check().err().map(|why| Change::new(Kind::Change, object, why)));
        }
        if changes.is_empty() {
            return Ok(changes);
        }
        let changes = self.repaired(changes);
        let needs_start = |change: &Change| matches!(change.object, Object::DataPlane | Object::Underlay);
        if is_vrf_new || changes.iter().any(needs_start) {
            self.install(&self.config.clone())?;
        } else if self.desired.is_drivers() {
            driver::repair(self, &foreign)?;
        } else if is_ours {
            let link = objects::set_up_device(&mut self.sides.inside, &self.desired)?;
            objects::set_routes_but(&mut self.sides.inside, &self.desired, &[link.index], &foreign)?;
        } else {
            self.install(&self.config.clone())?;
        }
        Ok(changes)
    }

    /// All that was made inside is in a namespace that nobody finds any more; it is made again in the one that has
    /// the name now.
    fn follow_namespace(&mut self) -> Result<Vec<Change>, ControlError> {
        self.install(&self.config.clone())?;
        let netns = self.desired.netns.as_deref().unwrap_or_default();
        let what = format!("{} in another network namespace {netns}", self.desired.device);
        Ok(self.repaired(vec![Change::new(Kind::Change, Object::Device, what)]))
    }

    fn repaired(&mut self, changes: Vec<Change>) -> Vec<Change> {
        for change in &changes {
            tracing::warn!(%change, "repaired");
            *self.repairs.entry(change.object).or_default() += 1;
        }
        changes
    }

    /// Where the inside is.
    pub(crate) fn place(&self) -> &Inside {
        &self.sides.place
    }

    /// Whether that still is what the file means.
    pub(crate) fn is_in_place(&self) -> bool {
        self.sides.is_current(&self.config.site)
    }

    /// Whether our address is another one now. That it is not there at all is no reason to change anything: it may
    /// come back.
    fn underlay_moved(&mut self) -> Result<Option<Change>, ControlError> {
        let before = self.desired.underlay;
        let found = underlay::find(&mut self.sides.outside, &self.config, Some(before));
        self.is_underlay_missing = found.as_ref().is_err_and(|error| error.may_come().is_some());
        let address = match found {
            Err(_) if self.is_underlay_missing => before,
            found => found?,
        };
        let what = || {
            let at = &self.config.site.underlay;
            format!("{at} {before} -> {address}: every peer's file has to name {address}")
        };
        Ok((address != before).then(|| Change::new(Kind::Change, Object::Underlay, what())))
    }

    /// Whether our address on the underlay was not there when it was last looked for.
    #[must_use]
    pub fn is_underlay_missing(&self) -> bool {
        self.is_underlay_missing
    }

    /// Whether all is as it should be after what was heard; a look at everything tells more, and costs more.
    pub(crate) fn is_as_told(&self, heard: &Hearsay) -> bool {
        heard.is_as_wished(&self.desired, &self.devices)
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
            Some(memory) => memory.save(&self.plane.tunnel()),
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
                remove_objects(&mut self.sides.inside, self.config.site.name.as_str()).map(drop)
            }
        }
    }
}

fn refuse_other_device(running: &Config, config: &Config) -> Result<(), ControlError> {
    fn name<T: AsRef<str>>(name: Option<&T>) -> &str {
        name.map_or("off", AsRef::as_ref)
    }
    if is_drivers(running) != is_drivers(config) {
        return Err(ControlError::OtherPlane { site: running.site.name.to_string() });
    }
    for (key, old, new) in [
        ("site.name", running.site.name.as_str(), config.site.name.as_str()),
        ("site.device", running.site.device.as_str(), config.site.device.as_str()),
        ("site.netns", name(running.site.netns.as_ref()), name(config.site.netns.as_ref())),
        ("site.vrf", name(running.site.vrf.as_ref()), name(config.site.vrf.as_ref())),
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
    let mut sides = Sides::open(&config.site)?;
    let survey = Survey::of(&mut sides, config, None)?;
    let mut changes = change::of_configs(running, config, survey.desired.underlay);
    let actual = Actual::look(&mut sides.inside, config.site.name.as_str(), &survey.desired, &[])?;
    changes.extend(change::of_kernel(config, &survey.desired, &actual));
    Ok(changes)
}

/// Removes what an overlay of this name left in the calling thread's network namespace, or in that which its file
/// named: every device that carries its mark, and with the device its routes. Returns what was removed.
///
/// # Errors
/// The kernel refuses.
pub fn remove_leftovers(site: &str, netns: Option<&str>) -> Result<Vec<String>, ControlError> {
    if let Ok(pins) = ebpf::pins_of(site) {
        ebpf::remove_pins(&pins)?;
    }
    // With a namespace that is gone went all that was in it.
    match inside_of(netns)? {
        Some(mut inside) => remove_objects(&mut inside, site),
        None => Ok(Vec::new()),
    }
}

/// Whether there is anything that [`remove_leftovers`] would remove.
///
/// # Errors
/// The kernel cannot be asked.
pub fn has_leftovers(site: &str, netns: Option<&str>) -> Result<bool, ControlError> {
    let pinned = ebpf::pins_of(site).is_ok_and(|pins| ebpf::pins_exist(&pins));
    if pinned || objects::ipip::has_table(site) {
        return Ok(true);
    }
    let Some(mut inside) = inside_of(netns)? else { return Ok(false) };
    Ok(!objects(&mut inside, site)?.is_empty())
}

/// `None`: there is no namespace of that name.
fn inside_of(netns: Option<&str>) -> Result<Option<Netlink>, ControlError> {
    match netns.map(namespace) {
        None => Ok(Some(Netlink::open()?)),
        Some(Ok(netns)) => Ok(Some(netns.run(Netlink::open)??)),
        Some(Err(ControlError::NoNetns { .. })) => Ok(None),
        Some(Err(error)) => Err(error),
    }
}

fn objects(netlink: &mut Netlink, site: &str) -> Result<Vec<Link>, ControlError> {
    let is_ours = |link: &Link| link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site));
    Ok(netlink.links()?.into_iter().filter(is_ours).collect())
}

fn remove_objects(netlink: &mut Netlink, site: &str) -> Result<Vec<String>, ControlError> {
    let mut removed = Vec::new();
    for link in objects(netlink, site)? {
        netlink.delete_link(link.index)?;
        removed.push(link.name);
    }
    // It guards as long as there is anything to guard.
    if objects::ipip::remove_table(site)? {
        removed.push(adit_dataplane::kernel::table_name(site));
    }
    Ok(removed)
}

/// Removes the device that was made unless everything went well.
struct Undo {
    device: Option<String>,
    place: Inside,
}

impl Undo {
    fn disarm(mut self) {
        self.device = None;
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(device) = &self.device else { return };
        let remove = || {
            let mut netlink = Netlink::open()?;
            match netlink.link(device)? {
                Some(link) => netlink.delete_link(link.index),
                None => Ok(()),
            }
        };
        let removed = self.place.run(remove).flatten();
        if let Err(error) = removed {
            tracing::error!(%error, device, "cannot remove what a failed start had made");
        }
    }
}
