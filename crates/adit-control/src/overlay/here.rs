//! A look at this machine for a configuration: everything that would keep the overlay from
//! starting, and everything that would keep traffic from passing. It changes nothing.

use std::net::Ipv4Addr;
use std::sync::Arc;

use adit_config::{Config, Underlay};
use adit_tunnel::Tunnel;

use super::plan::{RunningOverlay, forwarding_warnings, refuse_other_device};
use crate::carrier::choice::carrier_of;
use crate::error::ControlError;
use crate::host::{Host, LinuxHost};
use crate::namespaces::Namespaces;
use crate::reconcile::desired::{Desired, Machine, tunnel_config};
use crate::reconcile::devices::uses_kernel_plane;
use crate::reconcile::foreign_routes::{self, ForeignRoutes};
use crate::reconcile::{foreign_devices, machine};
use crate::state::warning::Warning;

/// What was found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What would keep the overlay from starting, or from the change.
    pub obstacles: Vec<ControlError>,
    /// What would keep traffic from passing.
    pub warnings: Vec<Warning>,
    /// Chains of the firewall with rules that the outer datagrams would pass by.
    pub passed_by: Vec<String>,
}

/// Looks at this machine, in the calling thread's network namespace, for `config`. `running` is the
/// overlay of that name; `None`: nothing runs.
#[must_use]
pub fn look_here(running: Option<&RunningOverlay>, config: &Config) -> Findings {
    let host: Arc<dyn Host> = Arc::new(LinuxHost);
    look_on(&host, running, config)
}

pub(super) fn look_on(host: &Arc<dyn Host>, running: Option<&RunningOverlay>, config: &Config) -> Findings {
    let mut findings = Findings::default();
    if let Err(error) = look(host, running, config, &mut findings) {
        findings.obstacles.push(error);
    }
    if !uses_kernel_plane(config) {
        findings.passed_by = host.chains_passed_by();
    }
    findings
}

/// Adds what it finds to `findings`. Fails where nothing more can be looked at.
fn look(
    host: &Arc<dyn Host>,
    running: Option<&RunningOverlay>,
    config: &Config,
    findings: &mut Findings,
) -> Result<(), ControlError> {
    if let Some(running) = running {
        findings.note(refuse_other_device(&running.config, config));
    }
    let in_use = running.map(RunningOverlay::in_use).unwrap_or_default();
    let carrier = carrier_of(config, false);
    let mut namespaces = Namespaces::open(host, &config.site)?;
    findings.note(carrier.check_scope(&namespaces.scope));
    let machine = match machine::look_up(&mut namespaces, config, &in_use) {
        Ok(machine) => machine,
        Err(error) => {
            findings.obstacles.push(error);
            assumed(&mut namespaces, config)
        }
    };
    // Without our address there is no tunnel to try.
    if !machine.underlay.first().is_unspecified() {
        match Tunnel::new(tunnel_config(config, &machine)) {
            Ok(tunnel) if running.is_none() => findings.note(host.try_plane(config.site.dataplane, &tunnel)),
            Ok(_) => {}
            Err(error) => findings.obstacles.push(error.into()),
        }
    }
    let mut desired = Desired::of(config, &machine);
    let site = config.site.name.as_str();
    carrier.adapt(&mut desired, site, namespaces.inner.as_mut())?;
    let (inner, underlay) = (namespaces.inner.as_mut(), namespaces.underlay.as_mut());
    findings.note(foreign_devices::refuse(inner, site, &desired));
    findings.note(foreign_devices::refuse_hidden_end(inner, underlay, &desired));
    findings.note(foreign_devices::refuse_pairs(inner, site, &desired));
    findings.note(foreign_routes::refuse_shared_metric(inner, site));
    let foreign = ForeignRoutes::look_up(inner, site, &desired)?;
    findings.obstacles.extend(foreign.refusals_except(&in_use.networks));
    if running.is_some() {
        // Without an overlay they are obstacles.
        findings.warnings.extend(foreign.warnings());
    }
    findings.warnings.extend(forwarding_warnings(&mut namespaces, config, &desired)?);
    Ok(())
}

impl Findings {
    fn note(&mut self, found: Result<(), ControlError>) {
        self.obstacles.extend(found.err());
    }
}

/// Returns the facts to go on with where those of the machine are not all there.
fn assumed(namespaces: &mut Namespaces, config: &Config) -> Machine {
    let underlay = match config.site.underlay {
        Underlay::Addresses(addresses) => addresses,
        Underlay::Interface(_) => Ipv4Addr::UNSPECIFIED.into(),
    };
    let vrf = namespaces.vrf().ok().flatten();
    Machine { underlay, local: Vec::new(), underlay_mtu: machine::DEFAULT_MTU, vrf }
}
