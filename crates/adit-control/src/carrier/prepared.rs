//! The survey of a machine before anything is made: desired state and tunnel, checked against the
//! interfaces and routes of others.

use std::sync::Arc;

use adit_config::Config;
use adit_tunnel::{HostFacts, Tunnel};

use super::Carrier;
use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{self, Desired};
use crate::reconcile::foreign_routes::{self, ForeignRoutes};
use crate::reconcile::machine::InUse;
use crate::reconcile::{foreign_devices, machine, other_overlays};

/// Everything that a configuration asks for on this machine.
pub(crate) struct Prepared {
    pub(crate) desired: Desired,
    pub(crate) tunnel: Arc<Tunnel>,
    /// Routes of others, which stay as they are.
    pub(crate) foreign: ForeignRoutes,
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
