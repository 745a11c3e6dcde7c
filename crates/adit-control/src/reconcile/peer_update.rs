//! A change of peers alone, made to a running overlay: its cost depends on the size of the change,
//! not on the number of peers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use adit_config::{Config, Peer, PeerDelta, PeerSet};
use adit_dataplane::DataPlane;
use adit_linux::netlink::Route;
use adit_tunnel::{TableDelta, Tunnel};
use ipnet::IpNet;

use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::change::{Change, Kind};
use crate::reconcile::desired::{Desired, DesiredRoute, Routing, mtu_of};
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::{config_diff, guard_routes, kernel_diff, machine, objects};
use crate::underlay;

/// The most peers that change in place. An installation does more of them faster, all at once.
const MAX_CHANGED_PEERS: usize = 1000;

/// The peers that a delta changes, as they are and as they are to be.
struct ChangedPeers {
    before: Vec<Arc<Peer>>,
    after: Vec<Arc<Peer>>,
}

impl ChangedPeers {
    fn of(delta: &PeerDelta, peers: &PeerSet) -> Self {
        let names = delta.removed.iter().chain(delta.replaced.iter().map(|peer| &peer.name));
        Self {
            before: names.filter_map(|name| peers.get(name)).cloned().collect(),
            after: delta.replaced.iter().chain(&delta.inserted).cloned().collect(),
        }
    }
}

/// The routes of the peers that change.
struct RouteChanges {
    before: Vec<DesiredRoute>,
    after: Vec<DesiredRoute>,
}

impl RouteChanges {
    fn of(peers: &ChangedPeers, routing: Routing) -> Self {
        // There is one tunnel interface, in the first position.
        let routes = |peers: &[Arc<Peer>]| peers.iter().flat_map(|peer| routing.to_peer(peer, 0)).collect();
        Self { before: routes(&peers.before), after: routes(&peers.after) }
    }

    fn networks_before(&self) -> HashSet<IpNet> {
        self.before.iter().map(|route| route.network).collect()
    }
}

/// An update of the peers of a running overlay, whose parts it borrows.
pub(crate) struct PeerUpdate<'a> {
    pub(crate) namespaces: &'a mut Namespaces,
    pub(crate) plane: &'a mut dyn DataPlane,
    /// The indices of the overlay's interfaces.
    pub(crate) devices: &'a [u32],
    pub(crate) desired: &'a mut Desired,
    /// The configuration that runs.
    pub(crate) running: &'a Config,
    /// The same site with the peers that are to be.
    pub(crate) config: &'a Config,
    /// The change between both.
    pub(crate) delta: &'a PeerDelta,
}

impl PeerUpdate<'_> {
    /// Updates the peers. Those that stay are not touched. `None`: this needs an installation,
    /// which also completes what may be half done.
    ///
    /// # Errors
    /// Fails if a foreign route is in the way, if the tunnel refuses the peers, or if the kernel
    /// cannot be asked. Nothing has changed then.
    pub(crate) fn run(mut self) -> Result<Option<Vec<Change>>, ControlError> {
        if self.delta.len() > MAX_CHANGED_PEERS {
            return Ok(None);
        }
        // An interface has addresses of the families that peers have.
        let is_named = self.config.site.underlay.interface().is_some();
        if is_named && underlay::families(&self.config.peers) != underlay::families(&self.running.peers) {
            return Ok(None);
        }
        // The file may name our underlay by its interface, so only now is it known whether that
        // address is in a new peer's network.
        self.config.peers.check_site_underlay(self.desired.underlay)?;
        let tunnel = self.plane.tunnel();
        if !self.is_machine_unchanged(&tunnel)? || self.config.peers.has_ipv6() != self.desired.ipv6 {
            return Ok(None);
        }
        let (amended, steps) = tunnel.with_peers(self.delta)?;
        if self.desired.routing_with_peers_of(self.config) != self.desired.routing {
            return Ok(None);
        }
        let peers = ChangedPeers::of(self.delta, &self.running.peers);
        let routes = RouteChanges::of(&peers, self.desired.routing);
        let underlay_mtu = tunnel.config().underlay_mtu;
        let is_mtu_new = mtu_of(self.config, self.desired.underlay, underlay_mtu) != self.desired.mtu;
        if is_mtu_new || self.smallest_mtu(&amended, &steps)? != underlay_mtu {
            return Ok(None);
        }
        if !self.is_place_free(&routes)? {
            return Ok(None);
        }
        if let Err(why) = self.plane.update_peers(Arc::new(amended), &steps) {
            tracing::info!(why, "the data plane is started again for this change");
            return Ok(None);
        }
        let mut changes = config_diff::peer_changes(&self.running.peers, self.delta);
        match self.set_routes(&routes) {
            Ok(of_routes) => changes.extend(of_routes),
            Err(error) => {
                tracing::warn!(%error, "everything is installed again for this change");
                return Ok(None);
            }
        }
        let before = routes.networks_before();
        self.desired.routes.retain(|route| !before.contains(&route.network));
        self.desired.routes.extend(routes.after);
        Ok(Some(changes))
    }

    /// Returns true if the machine is as it was when the data plane was started, and the data plane
    /// is whole.
    fn is_machine_unchanged(&mut self, tunnel: &Tunnel) -> Result<bool, ControlError> {
        let Namespaces { inner, .. } = &mut *self.namespaces;
        let (underlay, vrf) = (self.desired.underlay, self.desired.vrf.as_ref());
        let local = machine::local_addresses(inner.as_mut(), underlay, vrf)?;
        let has_same_addresses = local == tunnel.config().local_addresses;
        let link = inner.link(&self.desired.device)?;
        let vrf = self.desired.vrf.as_ref().map(|vrf| vrf.index);
        let has_device = link.is_some_and(|link| {
            let is_set_up = link.up && link.mtu == u32::from(self.desired.mtu) && link.master == vrf;
            self.devices == [link.index] && is_set_up
        });
        Ok(has_same_addresses && has_device && self.plane.check().is_ok())
    }

    /// Returns the smallest MTU towards all peers of `tunnel`, in bytes. Those of peers that stay
    /// are known; only added ones are looked up.
    fn smallest_mtu(&mut self, tunnel: &Tunnel, steps: &TableDelta) -> Result<u16, ControlError> {
        let known = tunnel.peers().map(|(peer, _)| tunnel.underlay_mtu(peer));
        let added = steps.added.iter().map(|(_, path)| *path);
        let asked = machine::smallest_mtu(self.namespaces.underlay.as_mut(), added, self.desired.sources())?;
        Ok(known.chain(asked).min().unwrap_or_default())
    }

    /// Refuses new networks that have a route of others in the way. Returns false if one has the
    /// place of a route that changes, which then stays as it is.
    fn is_place_free(&mut self, routes: &RouteChanges) -> Result<bool, ControlError> {
        let changed: Vec<&DesiredRoute> =
            routes.after.iter().filter(|route| !routes.before.contains(route)).collect();
        let site = self.config.site.name.as_str();
        let inner = self.namespaces.inner.as_mut();
        let found = ForeignRoutes::look_up_among(inner, site, self.desired, self.devices, &changed)?;
        found.refuse_except(&routes.networks_before())?;
        Ok(found.in_place.is_empty())
    }

    /// Installs the routes that are new or different, and deletes those that are no longer desired.
    /// Guards are the first to come and the last to go.
    fn set_routes(&mut self, routes: &RouteChanges) -> Result<Vec<Change>, ControlError> {
        let device = self.devices.first().copied().unwrap_or_default();
        let table = objects::table(self.desired);
        let kernel_routes = |routes: &[DesiredRoute]| -> Vec<Route> {
            routes.iter().map(|route| objects::kernel_route(route, device, table)).collect()
        };
        let (before, after) = (kernel_routes(&routes.before), kernel_routes(&routes.after));
        let there: HashMap<IpNet, _> = before.iter().map(|route| (route.destination, route)).collect();
        let wanted: HashSet<IpNet> = after.iter().map(|route| route.destination).collect();
        let different = after.into_iter().filter(|route| there.get(&route.destination) != Some(&route));
        let (changed, new): (Vec<Route>, Vec<Route>) =
            different.partition(|route| there.contains_key(&route.destination));
        let gone: Vec<_> =
            before.iter().filter(|route| !wanted.contains(&route.destination)).cloned().collect();
        let guard = |route: &DesiredRoute| guard_routes::guard_of(route, self.desired.guard_metric, table);
        let is_added = |route: &&DesiredRoute| !there.contains_key(&route.network);
        let is_gone = |route: &&DesiredRoute| !wanted.contains(&route.network);
        let new_guards: Vec<_> = routes.after.iter().filter(is_added).map(guard).collect();
        let gone_guards: Vec<_> = routes.before.iter().filter(is_gone).map(guard).collect();
        // Those that are new are added: what somebody else has put there meanwhile stays.
        self.namespaces.inner.add_routes(&new_guards)?;
        self.namespaces.inner.replace_routes(&changed)?;
        self.namespaces.inner.add_routes(&new)?;
        self.namespaces.inner.delete_routes(&gone)?;
        self.namespaces.inner.delete_routes(&gone_guards)?;
        let change = |kind, route| kernel_diff::route_change(kind, route, &self.desired.device, self.desired);
        let changed = changed.iter().map(|route| change(Kind::Change, route));
        let new = new.iter().map(|route| change(Kind::Add, route));
        let gone = gone.iter().map(|route| change(Kind::Remove, route));
        let guard_change = |kind, route| kernel_diff::guard_change(kind, route, self.desired);
        let new_guards = new_guards.iter().map(|route| guard_change(Kind::Add, route));
        let gone_guards = gone_guards.iter().map(|route| guard_change(Kind::Remove, route));
        Ok(new_guards.chain(changed).chain(new).chain(gone).chain(gone_guards).collect())
    }
}
