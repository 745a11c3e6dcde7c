//! What a configuration would change on a machine, beside what runs.

use std::sync::Arc;

use adit_config::{Config, Mtu, UnderlayAddresses};
use adit_linux::netlink::Route;

use crate::carrier::choice::carrier_of;
use crate::carrier::{Carrier, Prepared};
use crate::error::ControlError;
use crate::host::{Host, LinuxHost};
use crate::namespaces::Namespaces;
use crate::reconcile::change::Change;
use crate::reconcile::desired::{Desired, largest_overhead};
use crate::reconcile::devices::uses_kernel_plane;
use crate::reconcile::foreign_routes::ForeignRoutes;
use crate::reconcile::forwarding::ForwardingPath;
use crate::reconcile::machine::InUse;
use crate::reconcile::objects::Actual;
use crate::reconcile::{config_diff, guard_routes, kernel_diff};
use crate::state::warning::Warning;

/// An overlay that runs, as another process knows it.
#[derive(Clone, Debug)]
pub struct RunningOverlay {
    /// Its configuration.
    pub config: Config,
    /// The underlay addresses in use.
    pub underlay: UnderlayAddresses,
    /// MTU of the tunnel interface, in bytes.
    pub mtu: u16,
}

impl RunningOverlay {
    /// Returns what a change of it keeps if the machine still has it.
    pub(super) fn in_use(&self) -> InUse {
        let is_auto = self.config.site.tunnel.mtu == Mtu::Auto;
        let underlay_mtu = is_auto.then(|| {
            let overhead = largest_overhead(&self.config, self.underlay);
            self.mtu.saturating_add(overhead as u16)
        });
        InUse::of(&self.config, Some(self.underlay), underlay_mtu)
    }
}

/// Returns what `config` would change on this machine, in the calling thread's network namespace.
/// `running` is the overlay of that name; `None`: nothing runs.
///
/// # Errors
/// Fails if `config` could not be brought up, or could not replace what runs.
pub fn plan(running: Option<&RunningOverlay>, config: &Config) -> Result<Plan, ControlError> {
    let host: Arc<dyn Host> = Arc::new(LinuxHost);
    plan_on(&host, running, config)
}

/// What a configuration would change.
#[derive(Debug)]
pub struct Plan {
    /// The changes.
    pub changes: Vec<Change>,
    /// What would keep traffic from passing.
    pub warnings: Vec<Warning>,
}

pub(super) fn plan_on(
    host: &Arc<dyn Host>,
    running: Option<&RunningOverlay>,
    config: &Config,
) -> Result<Plan, ControlError> {
    if let Some(running) = running {
        refuse_other_device(&running.config, config)?;
    }
    let in_use = running.map(RunningOverlay::in_use).unwrap_or_default();
    let carrier = carrier_of(config, false);
    let mut namespaces = Namespaces::open(host, &config.site)?;
    let Prepared { desired, foreign, .. } =
        Prepared::survey(carrier.as_ref(), &mut namespaces, config, &in_use)?;
    let running = running.map(|running| &running.config);
    let mut changes = config_diff::compare(running, config, desired.underlay);
    let routes = namespaces.inner.routes_of(desired.table())?;
    let look = Look { config, desired: &desired, foreign: &foreign, known: &[], routes: &routes };
    let (of_kernel, _) = differences(carrier.as_ref(), &mut namespaces, &look)?;
    changes.extend(of_kernel);
    let mut warnings = forwarding_warnings(&mut namespaces, config, &desired)?;
    warnings.extend(foreign.warnings());
    Ok(Plan { changes, warnings })
}

/// What the desired state is compared with.
pub(super) struct Look<'a> {
    pub(super) config: &'a Config,
    pub(super) desired: &'a Desired,
    /// Routes of others, which stay where they have the place of ours.
    pub(super) foreign: &'a ForeignRoutes,
    /// The indices of the overlay's interfaces if it runs here.
    pub(super) known: &'a [u32],
    /// All routes of the table of the overlay's routes.
    pub(super) routes: &'a [Route],
}

/// Compares the desired state with the kernel's. Both a plan and a repair are made of this, so they
/// never differ. Also returns the kernel's state.
pub(super) fn differences(
    carrier: &dyn Carrier,
    namespaces: &mut Namespaces,
    look: &Look<'_>,
) -> Result<(Vec<Change>, Actual), ControlError> {
    let &Look { config, desired, foreign, known, routes } = look;
    let mut actual = carrier.observe(namespaces, config.site.name.as_str(), desired, known, routes)?;
    actual.guards = guard_routes::among(routes, desired).cloned().collect();
    let mut changes = kernel_diff::compare(config, desired, &actual);
    changes.retain(|change| !foreign.keep_out(change));
    Ok((changes, actual))
}

/// Refuses changes that cannot be made while the overlay runs.
pub(super) fn refuse_other_device(running: &Config, config: &Config) -> Result<(), ControlError> {
    fn name<T: AsRef<str>>(name: Option<&T>) -> &str {
        name.map_or("off", AsRef::as_ref)
    }
    if uses_kernel_plane(running) != uses_kernel_plane(config) {
        return Err(ControlError::OtherPlane { site: running.site.name.to_string() });
    }
    for (key, old, new) in [
        ("site.name", running.site.name.as_str(), config.site.name.as_str()),
        ("site.device", running.site.device.as_str(), config.site.device.as_str()),
        ("site.netns", name(running.site.netns.as_ref()), name(config.site.netns.as_ref())),
        ("site.vrf", name(running.site.vrf.as_ref()), name(config.site.vrf.as_ref())),
    ] {
        if old != new {
            let site = running.site.name.to_string();
            return Err(ControlError::NotInPlace { site, key, old: old.to_owned(), new: new.to_owned() });
        }
    }
    Ok(())
}

/// Returns a warning for each interface that does not forward what it has to.
pub(super) fn forwarding_warnings(
    namespaces: &mut Namespaces,
    config: &Config,
    desired: &Desired,
) -> Result<Vec<Warning>, ControlError> {
    let path = forwarding_path(namespaces, config, desired)?;
    let Namespaces { host, scope, .. } = namespaces;
    Ok(path.warnings(|name| host.forwards(scope, name).ok(), || host.forwards_ipv6(scope).ok()))
}

/// Finds the interfaces that must forward.
pub(super) fn forwarding_path(
    namespaces: &mut Namespaces,
    config: &Config,
    desired: &Desired,
) -> Result<ForwardingPath, ControlError> {
    let (links, addresses) = (namespaces.inner.links()?, namespaces.inner.addresses(None)?);
    Ok(ForwardingPath::of(&config.site, desired, &links, &addresses))
}
