//! The objects of the kernel data plane: interfaces of Linux's own ipip driver and the table of nf_tables that guards
//! them, looked at, and made as they are wanted.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use adit_dataplane::kernel::{FilterTable, table_name};
use adit_linux::netlink::{Link, Netlink};
use adit_linux::nftables::Tables;

use super::{Actual, our_routes, set_routes_but, set_up, table};
use crate::error::ControlError;
use crate::reconcile::desired::{Desired, DesiredDevice};
use crate::reconcile::devices::{is_of_site, there};
use ipnet::Ipv4Net;

/// See [`Actual::look`].
pub(super) fn look(
    netlink: &mut Netlink,
    site: &str,
    desired: &Desired,
    known: &[u32],
) -> Result<Actual, ControlError> {
    let links = netlink.links()?;
    let devices: Vec<Option<Link>> =
        there(&desired.devices, site, &links, known).into_iter().map(Option::<&Link>::cloned).collect();
    let wanted: HashSet<u32> = devices.iter().flatten().map(|link| link.index).collect();
    let unwanted: Vec<Link> =
        ours(&links, site).filter(|link| !wanted.contains(&link.index)).cloned().collect();
    let all: Vec<u32> = devices.iter().flatten().chain(&unwanted).map(|link| link.index).collect();
    let routes = if all.is_empty() { Vec::new() } else { our_routes(netlink, &all, table(desired))? };
    // Whether rules are still the same is the guard's to know, which has made them.
    let filter = match &desired.filter {
        None => None,
        Some(filter) => {
            let ruleset = filter.ruleset();
            Tables::open()?.look(&ruleset.table)?.map(|found| found.is(&ruleset, found.rules))
        }
    };
    Ok(Actual { devices, unwanted, routes, filter })
}

/// The site's interfaces of the driver.
fn ours<'a>(links: &'a [Link], site: &str) -> impl Iterator<Item = &'a Link> {
    let is_ours = move |link: &&Link| {
        link.ipip.is_some() && link.alias.as_deref().is_some_and(|alias| is_of_site(alias, site))
    };
    links.iter().filter(is_ours)
}

/// Makes table, interfaces and routes what is wanted, each in a place where nothing that stays is interrupted: first
/// the table, so that no interface ever takes what it should not; interfaces that are missing; the routes, each of
/// which changes over at once; and last what is not wanted any more goes. Returns the interfaces' indices.
pub(crate) fn make(
    netlink: &mut Netlink,
    guard: &FilterTable,
    site: &str,
    desired: &Desired,
    known: &[u32],
    foreign: &[Ipv4Net],
) -> Result<Vec<u32>, ControlError> {
    if let Some(filter) = &desired.filter {
        guard.set(filter)?;
    }
    let actual = look(netlink, site, desired, known)?;
    let mut indices = Vec::with_capacity(desired.devices.len());
    for (device, found) in desired.devices.iter().zip(&actual.devices) {
        indices.push(make_device(netlink, desired, device, found.as_ref())?);
    }
    let unwanted = actual.unwanted.iter().map(|link| link.index);
    let all: Vec<u32> = indices.iter().copied().chain(unwanted.clone()).collect();
    // Those of the interfaces that go are replaced, and the rest goes.
    set_routes_but(netlink, desired, &all, foreign)?;
    for index in unwanted {
        netlink.delete_link(index)?;
    }
    Ok(indices)
}

fn make_device(
    netlink: &mut Netlink,
    desired: &Desired,
    device: &DesiredDevice,
    found: Option<&Link>,
) -> Result<u32, ControlError> {
    let vanished = || ControlError::ForeignDevice {
        device: device.name.clone(),
        what: "it vanished while it was being set up".to_owned(),
    };
    let Some(ipip) = &device.ipip else { return Err(vanished()) };
    let link = match found {
        Some(link) => link.clone(),
        None => {
            // What a start that died has just made, or nothing.
            let half = netlink.link(&device.name)?.filter(|link| is_half_made(link, device));
            if half.is_none() {
                add(netlink, desired, device)?;
            }
            half.map_or_else(|| netlink.link(&device.name), |link| Ok(Some(link)))?.ok_or_else(vanished)?
        }
    };
    if link.ipip != Some(*ipip) {
        netlink.change_ipip(link.index, ipip)?;
    }
    if link.alias.as_deref() != Some(&device.alias) || link.mtu != u32::from(desired.mtu) || !link.up {
        set_up(netlink, &link, device, desired)?;
    }
    if !link.up {
        netlink.set_up(link.index)?;
    }
    Ok(link.index)
}

/// Whether it is what a start makes first: just so, and not up yet, and marked by nobody.
pub(super) fn is_half_made(link: &Link, device: &DesiredDevice) -> bool {
    link.alias.is_none() && !link.up && link.ipip.is_some() && link.ipip == device.ipip
}

/// The kernel loads the module itself where it is told how (`/proc/sys/kernel/modprobe`); where that does not help, we
/// try once.
fn add(netlink: &mut Netlink, desired: &Desired, device: &DesiredDevice) -> Result<(), ControlError> {
    let Some(ipip) = &device.ipip else { return Ok(()) };
    let mut attempt = || netlink.add_ipip(&device.name, u32::from(desired.mtu), ipip);
    let is_missing = |error: &adit_linux::error::Error| error.errno() == Some(adit_linux::EOPNOTSUPP);
    match attempt() {
        Err(error) if is_missing(&error) => {
            let modprobe = load_module();
            attempt().map_err(|error| match is_missing(&error) {
                true => ControlError::NoDriver { error, modprobe },
                false => error.into(),
            })
        }
        result => Ok(result?),
    }
}

/// What came of it, in words.
fn load_module() -> String {
    let mut command = Command::new("modprobe");
    command.arg("ipip").stdin(Stdio::null());
    match command.output() {
        Ok(output) if output.status.success() => "`modprobe ipip` did not help".to_owned(),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            format!("`modprobe ipip` said: {}", said.trim().lines().next().unwrap_or("nothing"))
        }
        Err(error) => format!("`modprobe ipip` cannot be run: {error}"),
    }
}

/// Removes the table of a site; whether there was one. A kernel without nf_tables has none.
pub(crate) fn remove_table(site: &str) -> Result<bool, ControlError> {
    if !has_table(site) {
        return Ok(false);
    }
    Ok(Tables::open()?.delete(&table_name(site))?)
}

/// Whether there is one.
pub(crate) fn has_table(site: &str) -> bool {
    let found = Tables::open().and_then(|mut tables| tables.exists(&table_name(site)));
    found.unwrap_or(false)
}
