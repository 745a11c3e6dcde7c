//! A veth pair with the eBPF or the userspace data plane behind it.

use adit_config::Config;
use adit_dataplane::TunnelInterface;
use adit_dataplane::kernel::limits::Limit;
use adit_linux::net_scope::NetScope;
use adit_linux::netlink::{Link, Network, Route, VethPair};

use super::{Carrier, Damage, Prepared, Repair, Running};
use crate::error::ControlError;
use crate::host::{PlaneRequest, StartedPlane, queues};
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind, Object};
use crate::reconcile::desired::Desired;
use crate::reconcile::devices::{self, DesiredDevice, HIDDEN_MAC, HIDDEN_MTU, HiddenEnd, VISIBLE_MAC};
use crate::reconcile::objects::{self, Actual};
use crate::reconcile::peer_update::PeerUpdate;

/// Carries packets through a veth pair.
pub(crate) struct VethCarrier {
    /// Whether programs in the kernel outlive this process.
    outlives_process: bool,
    /// Whether programs of now outlive this process.
    programs_stay: bool,
}

/// Both ends of the pair.
struct Pair {
    visible: Link,
    hidden: Link,
}

impl VethCarrier {
    pub(super) fn new(outlives_process: bool) -> Self {
        Self { outlives_process, programs_stay: false }
    }

    /// Starts the data plane on a pair that is set up.
    fn start(
        &self,
        namespaces: &Namespaces,
        config: &Config,
        prepared: &Prepared,
        pair: &Pair,
    ) -> Result<StartedPlane, ControlError> {
        let interface = TunnelInterface {
            name: pair.visible.name.clone(),
            index: pair.visible.index,
            mac: VISIBLE_MAC,
            mtu: prepared.desired.mtu,
            hidden_name: pair.hidden.name.clone(),
            hidden: pair.hidden.index,
            hidden_mac: HIDDEN_MAC,
            ipv6: prepared.desired.ipv6,
            queues: queues(),
            scope: namespaces.scope.clone(),
        };
        namespaces.host.start_plane(&PlaneRequest {
            choice: config.site.dataplane,
            tunnel: &prepared.tunnel,
            interface: &interface,
            mark: prepared.desired.mark,
            pins: self.outlives_process.then(|| config.site.name.as_str()),
        })
    }

    /// Brings everything up.
    fn bring_up_all(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError> {
        let pair = set_up(namespaces, &prepared.desired)?;
        // Before the data plane starts: its watcher would look up every peer's next hop again and
        // again while routes are installed.
        let desired = &prepared.desired;
        objects::set_routes(namespaces.inner.as_mut(), desired, &[pair.visible.index], &prepared.foreign)?;
        let started = self.start(namespaces, config, prepared, &pair)?;
        self.programs_stay = started.stays;
        Ok(Running::new(vec![pair.visible.index], started.plane, started.reason))
    }
}

impl Carrier for VethCarrier {
    fn check_scope(&self, _: &NetScope) -> Result<(), ControlError> {
        Ok(())
    }

    fn adapt(&self, desired: &mut Desired, site: &str, inner: &mut dyn Network) -> Result<(), ControlError> {
        adopt_name(desired, site, inner)
    }

    fn observe(
        &self,
        namespaces: &mut Namespaces,
        _: &str,
        desired: &Desired,
        known: &[u32],
        routes: &[Route],
    ) -> Result<Actual, ControlError> {
        let missing = Actual { devices: vec![None], ..Actual::default() };
        let Some(pair) = find(namespaces, desired)? else { return Ok(missing) };
        let index = pair.visible.index;
        // One that is gone by now is missing at the next look.
        let excess = namespaces.host.unreadable_offloads(&namespaces.scope, &pair.visible.name)?;
        if !known.is_empty() && known != [index] {
            // Another interface has the name of ours, and our routes disappeared together with
            // ours.
            return Ok(missing);
        }
        let host = namespaces.host.as_ref();
        let ipv6 = vec![host.ipv6(&namespaces.scope, &pair.visible.name)?];
        let hidden_ipv6 = host.ipv6(&NetScope::default(), &pair.hidden.name)?;
        Ok(Actual {
            devices: vec![Some(pair.visible)],
            hidden: Some(pair.hidden),
            unreadable_offloads: excess,
            ipv6,
            hidden_ipv6,
            routes: objects::our_routes(routes, &[index]).cloned().collect(),
            ..Actual::default()
        })
    }

    fn bring_up(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
    ) -> Result<Running, ControlError> {
        let desired = &prepared.desired;
        // Only an interface of this site has come this far with an alias.
        let is_taken_over = namespaces.inner.link(&desired.device)?.is_some_and(|link| link.alias.is_some());
        let result = self.bring_up_all(namespaces, config, prepared);
        // A pair that an earlier daemon kept stays, and so does one in the place of an earlier
        // version's TUN device: without it, packets for a peer would leave unencapsulated.
        if result.is_err() && !is_taken_over {
            let is_made = |link: &Link| devices::is_veth(link) && link.mac == Some(VISIBLE_MAC);
            objects::remove_made(namespaces.inner.as_mut(), &desired.device, is_made);
        }
        result
    }

    fn install(
        &mut self,
        namespaces: &mut Namespaces,
        config: &Config,
        prepared: &Prepared,
        running: &mut Running,
    ) -> Result<(), ControlError> {
        let desired = &prepared.desired;
        let pair = set_up(namespaces, desired)?;
        // Programs in the kernel keep forwarding until the new ones replace them in one step.
        running.plane.shutdown();
        let counts = running.ending_counts(&prepared.tunnel);
        let started = self.start(namespaces, config, prepared, &pair)?;
        running.replace_plane(started.plane, counts);
        (running.plane_reason, self.programs_stay) = (started.reason, started.stays);
        // Only now does the data plane know new peers.
        objects::set_routes(namespaces.inner.as_mut(), desired, &[pair.visible.index], &prepared.foreign)?;
        running.devices = vec![pair.visible.index];
        Ok(())
    }

    fn follow_renames(
        &mut self,
        desired: &mut Desired,
        site: &str,
        inner: &mut dyn Network,
    ) -> Result<(), ControlError> {
        adopt_name(desired, site, inner)
    }

    fn check_plane(&self, running: &Running, is_whole: bool) -> Option<Change> {
        // Without its interface the data plane fails too, and is started again together with it.
        let damage = is_whole.then(|| running.plane.check().err()).flatten()?;
        Some(Change::new(Kind::Change, Object::DataPlane, damage))
    }

    fn repair(
        &mut self,
        namespaces: &mut Namespaces,
        damage: &Damage<'_>,
        _: &mut Running,
    ) -> Result<Repair, ControlError> {
        if !damage.is_whole {
            return Ok(Repair::NeedsInstall);
        }
        let &Damage { desired, foreign, routes, .. } = damage;
        let had_other_ipv6 =
            namespaces.host.ipv6(&namespaces.scope, &desired.device)?.differs_from(desired.ipv6);
        let pair = set_up(namespaces, desired)?;
        let (inner, devices) = (namespaces.inner.as_mut(), [pair.visible.index]);
        let had_other_master = pair.visible.master != desired.vrf.as_ref().map(|vrf| vrf.index);
        if had_other_master || had_other_ipv6 {
            // The change has removed routes.
            objects::set_routes(inner, desired, &devices, foreign)?;
        } else {
            objects::set_routes_among(inner, desired, &devices, foreign, routes)?;
        }
        Ok(Repair::Done)
    }

    fn update_peers(&mut self, update: PeerUpdate<'_>) -> Result<Option<Vec<Change>>, ControlError> {
        update.run()
    }

    fn remove(&mut self, namespaces: &Namespaces, site: &str) -> Result<(), ControlError> {
        if self.programs_stay {
            namespaces.host.remove_pins(site)?;
        }
        Ok(())
    }

    fn learns_paths(&self) -> bool {
        true
    }

    fn limits(&self) -> &'static [Limit] {
        &[]
    }
}

/// Takes over the name that the tunnel interface has now, if somebody has renamed it.
fn adopt_name(desired: &mut Desired, site: &str, inner: &mut dyn Network) -> Result<(), ControlError> {
    if inner.link(&desired.device)?.is_some() {
        return Ok(());
    }
    let alias = devices::alias(site);
    let is_ours = |link: &Link| devices::is_veth(link) && link.alias.as_deref() == Some(&alias);
    if let Some(link) = inner.links()?.into_iter().find(is_ours) {
        desired.device.clone_from(&link.name);
        for device in &mut desired.devices {
            device.name.clone_from(&link.name);
        }
    }
    Ok(())
}

/// Finds both ends of the pair.
fn find(namespaces: &mut Namespaces, desired: &Desired) -> Result<Option<Pair>, ControlError> {
    let visible = namespaces.inner.link(&desired.device)?.filter(devices::is_veth);
    let Some((visible, other)) = visible.and_then(|link| Some((link.lower?, link))).map(swap) else {
        return Ok(None);
    };
    let hidden = namespaces.underlay.link_by_index(other)?.filter(devices::is_veth);
    // Indices of a third namespace would be other interfaces.
    let may_be_apart = namespaces.scope.netns.is_some();
    let hidden = hidden.filter(|hidden| {
        let are_apart = visible.is_lower_elsewhere;
        let is_mutual = hidden.lower == Some(visible.index) && hidden.is_lower_elsewhere == are_apart;
        is_mutual && (may_be_apart || !are_apart)
    });
    Ok(hidden.map(|hidden| Pair { visible, hidden }))
}

fn swap<A, B>((a, b): (A, B)) -> (B, A) {
    (b, a)
}

/// Creates the pair if it is missing, configures both ends, and sets them up.
fn set_up(namespaces: &mut Namespaces, desired: &Desired) -> Result<Pair, ControlError> {
    let name = &desired.device;
    let (Some(device), Some(hidden_end)) = (desired.devices.first(), &desired.hidden) else {
        return Err(ControlError::vanished(name));
    };
    let pair = match find(namespaces, desired)? {
        Some(pair) => pair,
        None => create(namespaces, desired, hidden_end)?,
    };
    set_up_hidden(namespaces, &pair.hidden, hidden_end)?;
    set_up_visible(namespaces, &pair.visible, device, desired)?;
    Ok(pair)
}

/// Creates the pair. What is left of an earlier version or of half a pair goes first; the names are
/// known to be ours.
fn create(namespaces: &mut Namespaces, desired: &Desired, hidden: &HiddenEnd) -> Result<Pair, ControlError> {
    if let Some(old) = namespaces.inner.link(&desired.device)? {
        namespaces.inner.delete_link(old.index)?;
    }
    // The other end of it may be in a network namespace that has lost its name.
    objects::remove_hidden_ends(namespaces.underlay.as_mut(), hidden)?;
    let request = VethPair {
        name: desired.device.clone(),
        mac: VISIBLE_MAC,
        mtu: desired.mtu.into(),
        hidden: hidden.name.clone(),
        hidden_mac: HIDDEN_MAC,
        hidden_mtu: HIDDEN_MTU,
    };
    namespaces.underlay.add_veth_pair(&request, namespaces.scope.netns.as_ref())?;
    find(namespaces, desired)?.ok_or_else(|| ControlError::vanished(&desired.device))
}

fn set_up_visible(
    namespaces: &mut Namespaces,
    link: &Link,
    device: &DesiredDevice,
    desired: &Desired,
) -> Result<(), ControlError> {
    let vrf = desired.vrf.as_ref().map(|vrf| vrf.index);
    if link.master != vrf {
        // This removes all routes of the interface, so they are installed later.
        namespaces.inner.set_master(link.index, vrf)?;
    }
    objects::configure_device(namespaces, link, device, desired)?;
    set_ethernet(namespaces.inner.as_mut(), link, VISIBLE_MAC)?;
    namespaces.host.limit_offloads(&namespaces.scope, &link.name)?;
    Ok(namespaces.inner.set_up(link.index)?)
}

fn set_up_hidden(namespaces: &mut Namespaces, link: &Link, hidden: &HiddenEnd) -> Result<(), ControlError> {
    let underlay = namespaces.underlay.as_mut();
    if link.master.is_some() {
        underlay.set_master(link.index, None)?;
    }
    underlay.set_alias(link.index, &hidden.alias)?;
    underlay.set_mtu(link.index, HIDDEN_MTU)?;
    set_ethernet(underlay, link, HIDDEN_MAC)?;
    // What is left of it on this end would only be chatter: packets are read, not received.
    objects::set_ipv6(namespaces.host.as_ref(), &NetScope::default(), &link.name, false)?;
    Ok(namespaces.underlay.set_up(link.index)?)
}

fn set_ethernet(network: &mut dyn Network, link: &Link, mac: [u8; 6]) -> Result<(), ControlError> {
    if link.mac != Some(mac) {
        network.set_mac(link.index, mac)?;
    }
    Ok(network.set_no_arp(link.index)?)
}
