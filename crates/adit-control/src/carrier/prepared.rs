//! The survey of a machine before anything is made: desired state and tunnel, checked against the
//! interfaces and routes of others.

use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_config::Config;
use adit_tunnel::Tunnel;

use super::Carrier;
use crate::error::ControlError;
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{self, Desired};
use crate::reconcile::{foreign, machine};

/// Everything that a configuration asks for on this machine.
pub(crate) struct Prepared {
    pub(crate) desired: Desired,
    pub(crate) tunnel: Arc<Tunnel>,
}

impl Prepared {
    /// Surveys the machine for `config`. The underlay address that is `in_use` stays if the machine
    /// still has it.
    ///
    /// # Errors
    /// Fails if the carrier cannot serve the inner side, if something of the machine is missing, if
    /// the tunnel refuses the configuration, or if an interface or route of others is in the way.
    pub(crate) fn survey(
        carrier: &dyn Carrier,
        namespaces: &mut Namespaces,
        config: &Config,
        in_use: Option<Ipv4Addr>,
    ) -> Result<Self, ControlError> {
        carrier.check_scope(&namespaces.scope)?;
        let machine = machine::look_up(namespaces, config, in_use)?;
        let mut desired = Desired::of(config, &machine);
        let site = config.site.name.as_str();
        let inner = namespaces.inner.as_mut();
        carrier.adapt(&mut desired, site, inner)?;
        let tunnel = Arc::new(Tunnel::new(desired::tunnel_config(config, &machine))?);
        if desired::wants_probes(config) && tunnel.config().probe.is_none() {
            tracing::info!(
                "no address of this machine lies in site.networks, so paths are not probed: an MTU black hole \
                 will not be found"
            );
        }
        foreign::refuse_devices(inner, site, &desired)?;
        foreign::refuse_hidden_end(inner, namespaces.underlay.as_mut(), &desired)?;
        foreign::refuse_routes(inner, site, &desired)?;
        Ok(Self { desired, tunnel })
    }
}
