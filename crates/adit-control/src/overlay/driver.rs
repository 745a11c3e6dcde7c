//! The life of an overlay whose packets Linux's own driver carries: what is made stays in the kernel, so bringing it up,
//! changing it and repairing it are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_config::Config;
use adit_dataplane::kernel::{FilterTable, KernelPlane};
use adit_linux::netlink::{Link, Netlink};
use adit_tunnel::Totals;
use ipnet::Ipv4Net;

use super::{Overlay, Survey};
use crate::error::ControlError;
use crate::namespaces::Sides;
use crate::reconcile::objects::ipip;

const REASON: &str = "as configured: Linux's own ipip driver";

pub(super) fn bring_up(
    mut sides: Sides,
    survey: Survey,
    config: &Config,
    stays: bool,
) -> Result<Overlay, ControlError> {
    let site = config.site.name.as_str();
    let netlink = &mut sides.inside;
    let before = Before::look(netlink, site)?;
    let guard = Arc::new(FilterTable::open()?);
    let made = ipip::make(netlink, &guard, site, &survey.desired, &[], &[]).and_then(|devices| {
        let plane = KernelPlane::of(survey.tunnel, Arc::clone(&guard), devices.clone())?;
        Ok((devices, plane))
    });
    let (devices, plane) = match made {
        Ok(made) => made,
        Err(error) => {
            before.restore(netlink, site);
            return Err(error);
        }
    };
    Ok(Overlay {
        config: config.clone(),
        desired: survey.desired,
        devices,
        sides,
        plane: Box::new(plane),
        plane_reason: REASON.to_owned(),
        pins: None,
        stays,
        // What is learned of the paths is the kernel's.
        memory: None,
        before: Totals::default(),
        repairs: BTreeMap::new(),
        driver: Some(guard),
        is_underlay_missing: false,
    })
}

pub(super) fn install(overlay: &mut Overlay, survey: Survey, config: &Config) -> Result<(), ControlError> {
    let Some(guard) = overlay.driver.clone() else {
        return Err(ControlError::OtherPlane { site: config.site.name.to_string() });
    };
    let site = config.site.name.as_str();
    let devices =
        ipip::make(&mut overlay.sides.inside, &guard, site, &survey.desired, &overlay.devices, &[])?;
    let before = overlay.counted_by(&survey.tunnel);
    let plane = KernelPlane::of(survey.tunnel, guard, devices.clone())?;
    (overlay.plane, overlay.before) = (Box::new(plane), before);
    (overlay.config, overlay.desired, overlay.devices) = (config.clone(), survey.desired, devices);
    Ok(())
}

/// Somebody may have given an interface of ours another name: the table has to know it.
pub(super) fn follow_names(overlay: &mut Overlay) -> Result<(), ControlError> {
    let Some(guard) = &overlay.driver else { return Ok(()) };
    let before = overlay.desired.filter.clone();
    overlay.desired.adapt_to(overlay.config.site.name.as_str(), &overlay.sides.inside.links()?);
    match &overlay.desired.filter {
        Some(filter) if overlay.desired.filter != before => Ok(guard.set(filter)?),
        _ => Ok(()),
    }
}

pub(super) fn repair(overlay: &mut Overlay, foreign: &[Ipv4Net]) -> Result<(), ControlError> {
    let Some(guard) = overlay.driver.clone() else { return Ok(()) };
    let tunnel = overlay.plane.tunnel();
    let site = overlay.config.site.name.as_str();
    let devices =
        ipip::make(&mut overlay.sides.inside, &guard, site, &overlay.desired, &overlay.devices, foreign)?;
    if devices != overlay.devices {
        overlay.before = overlay.counted_by(&tunnel);
        overlay.plane = Box::new(KernelPlane::of(tunnel, guard, devices.clone())?);
        overlay.devices = devices;
    }
    Ok(())
}

/// What there was of a site before a start.
struct Before {
    devices: Vec<u32>,
    has_table: bool,
}

impl Before {
    fn look(netlink: &mut Netlink, site: &str) -> Result<Self, ControlError> {
        let devices = super::objects(netlink, site)?.iter().map(|link| link.index).collect();
        Ok(Self { devices, has_table: ipip::has_table(site) })
    }

    /// Removes what a failed start had made; what an earlier daemon kept stays.
    fn restore(&self, netlink: &mut Netlink, site: &str) {
        let is_new = |link: &&Link| !self.devices.contains(&link.index);
        let removed = super::objects(netlink, site).and_then(|links| {
            for link in links.iter().filter(is_new) {
                netlink.delete_link(link.index)?;
            }
            if !self.has_table {
                ipip::remove_table(site)?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            tracing::error!(%error, site, "cannot remove what a failed start had made");
        }
    }
}
