//! The article's picture, drawn from what is really there.

use std::fmt::Write;

use adit_linux::netlink::{Netlink, ROUTE_PROTOCOL};

use crate::error::LabError;
use crate::host::Host;
use crate::two_sites::TwoSites;

/// Width of one side of the picture, borders left out.
const SIDE: usize = 38;

/// What stands in one box.
struct Site {
    title: String,
    lines: Vec<String>,
    underlay: String,
}

/// Draws the network as its hosts' kernels describe it now.
///
/// # Errors
/// A host could not be asked.
pub fn draw(network: &TwoSites) -> Result<String, LabError> {
    let a = site("Private network A", &network.gateway_a, &network.host_a)?;
    let b = site("Private network B", &network.gateway_b, &network.host_b)?;
    let mut out = String::new();
    let rule = format!("+{}+", "-".repeat(SIDE));
    let rows = a.lines.len().max(b.lines.len());
    let mut row = |left: &str, right: &str| {
        let _ = writeln!(out, " |{left:<SIDE$}|      |{right:<SIDE$}|");
    };
    let pad = |text: &str| format!(" {text}");
    row(&pad(&a.title), &pad(&b.title));
    for index in 0..rows {
        let line = |site: &Site| site.lines.get(index).map(|line| pad(line)).unwrap_or_default();
        row(&line(&a), &line(&b));
    }
    let gap = " ".repeat(6);
    let mut picture = format!(" {rule}{gap}{rule}\n{out} {rule}{gap}{rule}\n");
    // Below the boxes everything stands under their middles.
    let width = SIDE + 2;
    let mut under = |left: &str, right: &str| {
        picture.push_str(format!(" {left:^width$}{gap}{right:^width$}").trim_end());
        picture.push('\n');
    };
    under("|", "|");
    under(&a.underlay, &b.underlay);
    under("|", "|");
    let middle = (width - 1) / 2;
    let between = width + gap.len() - 1;
    let label = " public underlay, a router in it ";
    let _ = writeln!(picture, " {:middle$}+{label:-^between$}+", "");
    Ok(picture)
}

fn site(title: &str, gateway: &Host, host: &Host) -> Result<Site, LabError> {
    let mut lines = Vec::new();
    let mut underlay = String::new();
    for (device, address) in addresses(host)? {
        lines.push(format!("host     {address} ({device})"));
    }
    for (device, address) in addresses(gateway)? {
        if device.starts_with("underlay") {
            underlay = address;
        } else {
            lines.push(format!("gateway  {address} ({device})"));
        }
    }
    gateway.run(|| {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        for route in netlink.routes()?.into_iter().filter(|route| route.protocol == ROUTE_PROTOCOL) {
            let device = links.iter().find(|link| Some(link.index) == route.device);
            let device = device.map_or("?", |link| link.name.as_str());
            lines.push(format!("route    {} dev {device}", route.destination));
        }
        Ok::<_, adit_linux::error::Error>(())
    })?;
    Ok(Site { title: title.to_owned(), lines, underlay })
}

fn addresses(host: &Host) -> Result<Vec<(String, String)>, LabError> {
    host.run(|| {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let mut found = Vec::new();
        for address in netlink.addresses(None)? {
            if address.prefix.addr().is_loopback() {
                continue;
            }
            let link = links.iter().find(|link| link.index == address.index);
            found.push((link.map_or_else(String::new, |link| link.name.clone()), address.prefix.to_string()));
        }
        Ok::<_, adit_linux::error::Error>(found)
    })
}
