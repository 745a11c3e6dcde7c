//! A change of peers alone, made to what runs: as much work as there is change.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_config::{Config, Peer, PeerDelta};
use adit_tunnel::Tunnel;
use ipnet::Ipv4Net;

use crate::error::ControlError;
use crate::overlay::Overlay;
use crate::reconcile::change::{self, Change, Kind};
use crate::reconcile::desired::{DesiredRoute, is_drivers};
use crate::reconcile::objects;

/// What a start anew does better: it does everything for all peers at once.
const MOST: usize = 1000;

/// The peers that are not the same in two configurations of one site.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PeerChanges {
    delta: PeerDelta,
    before: Vec<Arc<Peer>>,
    after: Vec<Arc<Peer>>,
}

impl PeerChanges {
    /// `None`: nothing changes, or more than peers, or too many of them.
    pub(crate) fn between(old: &Config, new: &Config) -> Option<Self> {
        if old.site != new.site {
            return None;
        }
        let delta = old.peers.delta_to(&new.peers);
        let names = delta.removed.iter().chain(delta.replaced.iter().map(|peer| &peer.name));
        let before: Vec<_> = names.filter_map(|name| old.peers.get(name)).cloned().collect();
        let after: Vec<_> = delta.replaced.iter().chain(&delta.inserted).cloned().collect();
        (1..=MOST).contains(&before.len().max(after.len())).then_some(Self { delta, before, after })
    }

    /// What becomes of the routes, by an example of what there is on this site.
    fn routes(&self, example: &DesiredRoute) -> RouteChanges {
        let of = |peers: &[Arc<Peer>]| -> Vec<DesiredRoute> {
            let networks =
                peers.iter().flat_map(|peer| peer.networks.iter().map(move |network| (peer, network)));
            let route = |(peer, network): (&Arc<Peer>, &Ipv4Net)| DesiredRoute {
                network: *network,
                peer: peer.name.to_string(),
                via: example.via.is_some().then_some(peer.underlay),
                ..example.clone()
            };
            networks.map(route).collect()
        };
        RouteChanges { before: of(&self.before), after: of(&self.after) }
    }
}

/// The routes of peers that change.
struct RouteChanges {
    before: Vec<DesiredRoute>,
    after: Vec<DesiredRoute>,
}

/// On a hub peers are routed to by gateways, and of many gateways one stands for all: does none of that change for
/// those that stay?
fn has_same_gateways(old: &Config, new: &Config) -> bool {
    [1, objects::GATEWAYS].into_iter().all(|most| (old.peers.len() > most) == (new.peers.len() > most))
}

impl Overlay {
    /// Changes peers of a running overlay, if nothing else is to change; whoever is not concerned is not touched.
    /// `None`: it has to be installed anew for that, which also mends what may be half done then.
    pub(crate) fn amend(&mut self, config: &Config) -> Result<Option<Vec<Change>>, ControlError> {
        if is_drivers(config) {
            // There is nothing to be started anew: installing touches only what changes.
            return Ok(None);
        }
        let running = self.config.clone();
        let Some(peers) = PeerChanges::between(&running, config) else { return Ok(None) };
        // Of an address that the file does not say, nobody has asked whether it is in a new peer's network.
        config.peers.check_site_underlay(self.desired.underlay)?;
        let tunnel = self.plane.tunnel();
        if !self.is_as_made(&tunnel)? {
            return Ok(None);
        }
        let (amended, steps) = tunnel.with_peers(&peers.delta)?;
        let added: Vec<Ipv4Addr> = steps.added.iter().map(|(_, address)| *address).collect();
        let has_many = objects::has_many_gateways(&self.desired);
        let Some(example) = self.desired.routes.first().filter(|_| has_same_gateways(&running, config))
        else {
            return Ok(None);
        };
        let routes = peers.routes(example);
        if self.smallest_mtu(&amended, &added)? != tunnel.config().underlay_mtu {
            return Ok(None);
        }
        let before: HashSet<Ipv4Net> = routes.before.iter().map(|route| route.network).collect();
        let new: Vec<&DesiredRoute> =
            routes.after.iter().filter(|route| !before.contains(&route.network)).collect();
        objects::refuse_foreign_among(
            &mut self.sides.inside,
            config.site.name.as_str(),
            &self.desired,
            &new,
        )?;
        if let Err(why) = self.plane.update_peers(Arc::new(amended), &steps) {
            tracing::info!(why, "the data plane is started anew for this change");
            return Ok(None);
        }
        let mut changes = change::of_configs(Some(&running), config, self.desired.underlay);
        match self.set_routes(&routes, has_many) {
            Ok(of_routes) => changes.extend(of_routes),
            Err(error) => {
                tracing::warn!(%error, "everything is made anew for this change");
                return Ok(None);
            }
        }
        self.desired.routes.retain(|route| !before.contains(&route.network));
        self.desired.routes.extend(routes.after);
        self.config = config.clone();
        Ok(Some(changes))
    }

    /// Whether the machine is what the data plane was started for, and the data plane whole.
    fn is_as_made(&mut self, tunnel: &Tunnel) -> Result<bool, ControlError> {
        if !self.is_in_place() || self.sides.vrf()? != self.desired.vrf {
            return Ok(false);
        }
        let local = objects::local_addresses(&mut self.sides.inside, self.desired.underlay)?;
        let is_same_machine = local == tunnel.config().local_addresses;
        let link = self.sides.inside.link(&self.desired.device)?;
        let vrf = self.desired.vrf.as_ref().map(|vrf| vrf.index);
        let is_ours = link.is_some_and(|link| {
            let is_set_up = link.up && link.mtu == u32::from(self.desired.mtu) && link.master == vrf;
            self.devices == [link.index] && is_set_up
        });
        Ok(is_same_machine && is_ours && self.plane.check().is_ok())
    }

    /// What the underlay takes towards every peer: known of those that are there, asked for those that come.
    fn smallest_mtu(&mut self, tunnel: &Tunnel, added: &[Ipv4Addr]) -> Result<u16, ControlError> {
        let own = tunnel.config().underlay;
        let known = tunnel.peers().map(|(peer, _)| tunnel.underlay_mtu(peer));
        let asked = objects::smallest_mtu(&mut self.sides.outside, added, own)?;
        Ok(known.chain(asked).min().unwrap_or_default())
    }

    /// Routes that are other ones from now on are set, those that are none any more go.
    fn set_routes(&mut self, routes: &RouteChanges, has_many: bool) -> Result<Vec<Change>, ControlError> {
        let device = self.devices.first().copied().unwrap_or_default();
        let kernel_routes = |routes: &[DesiredRoute]| -> Vec<_> {
            let table = objects::table(&self.desired);
            routes.iter().map(|route| objects::kernel_route(route, device, table, has_many)).collect()
        };
        let (before, after) = (kernel_routes(&routes.before), kernel_routes(&routes.after));
        let there: HashMap<Ipv4Net, _> = before.iter().map(|route| (route.destination, route)).collect();
        let wanted: HashSet<Ipv4Net> = after.iter().map(|route| route.destination).collect();
        let new: Vec<_> =
            after.into_iter().filter(|route| there.get(&route.destination) != Some(&route)).collect();
        let gone: Vec<_> =
            before.iter().filter(|route| !wanted.contains(&route.destination)).cloned().collect();
        self.sides.inside.replace_routes(&new)?;
        self.sides.inside.delete_routes(&gone)?;
        let kind = |destination| if there.contains_key(destination) { Kind::Change } else { Kind::Add };
        let (device, desired) = (&self.desired.device, &self.desired);
        let new = new.iter().map(|route| change::of_route(kind(&route.destination), route, device, desired));
        let gone = gone.iter().map(|route| change::of_route(Kind::Remove, route, device, desired));
        Ok(new.chain(gone).collect())
    }
}
