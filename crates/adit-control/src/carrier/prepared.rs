//! The survey of a machine before anything is made: desired state and tunnel, checked against the
//! interfaces and routes of others.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_config::Config;
use adit_tunnel::{HostFacts, Tunnel};
use ipnet::Ipv4Net;

use super::Carrier;
use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{self, Desired};
use crate::reconcile::foreign_routes::{self, ForeignRoutes};
use crate::reconcile::{foreign_devices, machine, other_overlays};

/// Everything that a configuration asks for on this machine.
pub(crate) struct Prepared {
    pub(crate) desired: Desired,
    pub(crate) tunnel: Arc<Tunnel>,
    /// Routes of others, which stay as they are.
    pub(crate) foreign: ForeignRoutes,
}

/// What an overlay that runs has, and keeps if the machine still has it.
#[derive(Default)]
pub(crate) struct InUse {
    /// Our underlay address.
    pub(crate) underlay: Option<Ipv4Addr>,
    /// The MTU of the underlay, in bytes, where no peer has a route at present.
    pub(crate) underlay_mtu: Option<u16>,
    /// The networks of its peers. A foreign route to one of them, which came meanwhile, is no
    /// reason to refuse a change.
    pub(crate) networks: HashSet<Ipv4Net>,
}

impl InUse {
    /// Returns what an overlay with this configuration has.
    pub(crate) fn of(config: &Config, underlay: Option<Ipv4Addr>, underlay_mtu: Option<u16>) -> Self {
        let networks = config.peers.iter().flat_map(|peer| peer.networks.iter().copied());
        Self { underlay, underlay_mtu, networks: networks.collect() }
    }
}

impl Prepared {
    /// Surveys the machine for `config`.
    ///
    /// # Errors
    /// Fails if the carrier cannot serve the inner side, if something of the machine is missing, if
    /// the tunnel refuses the configuration, or if an interface or route of others is in the way.
    pub(crate) fn survey(
        carrier: &dyn Carrier,
        namespaces: &mut Namespaces,
        config: &Config,
        in_use: &InUse,
    ) -> Result<Self, ControlError> {
        carrier.check_scope(&namespaces.scope)?;
        let machine = machine::look_up(namespaces, config, in_use)?;
        let mut desired = Desired::of(config, &machine);
        let site = config.site.name.as_str();
        let inner = namespaces.inner.as_mut();
        carrier.adapt(&mut desired, site, inner)?;
        let tunnel = Tunnel::new(desired::tunnel_config(config, &machine))?;
        if desired::wants_probes(config) && tunnel.config().probe.is_none() {
            tracing::info!(
                "no address of this machine lies in site.networks, so paths are not probed: an MTU black hole \
                 will not be found"
            );
        }
        foreign_devices::refuse(inner, site, &desired)?;
        foreign_devices::refuse_hidden_end(inner, namespaces.underlay.as_mut(), &desired)?;
        foreign_devices::refuse_pairs(inner, site, &desired)?;
        foreign_routes::refuse_shared_metric(inner, site)?;
        let foreign = ForeignRoutes::look_up(inner, site, &desired)?;
        foreign.refuse_except(&in_use.networks)?;
        let other_networks = other_overlays::networks(namespaces, site)?;
        let facts = HostFacts { other_networks, ..desired::host_facts(config, &machine, &tunnel) };
        let tunnel = if facts.other_networks.is_empty() { tunnel } else { tunnel.on_host(facts) };
        Ok(Self { desired, tunnel: Arc::new(tunnel), foreign })
    }
}
