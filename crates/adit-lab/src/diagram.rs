//! A diagram of the two-site network, drawn from the state of its kernels.

use std::fmt::Write;

use adit_linux::netlink::{Netlink, ROUTE_PROTOCOL, Route};

use crate::error::LabError;
use crate::host::Host;
use crate::two_sites::TwoSites;

/// The width of one box in columns, without its borders.
const BOX_WIDTH: usize = 38;

/// The contents of one box.
struct SiteBox {
    title: String,
    lines: Vec<String>,
    underlay: String,
}

/// Draws the network with the addresses and routes that its hosts have now.
///
/// # Errors
/// Fails if a host's kernel cannot be queried.
pub fn draw(network: &TwoSites) -> Result<String, LabError> {
    let a = site_box("Private network A", &network.gateway_a, &network.host_a)?;
    let b = site_box("Private network B", &network.gateway_b, &network.host_b)?;
    let mut out = String::new();
    let rule = format!("+{}+", "-".repeat(BOX_WIDTH));
    let rows = a.lines.len().max(b.lines.len());
    let mut row = |left: &str, right: &str| {
        let _ = writeln!(out, " |{left:<BOX_WIDTH$}|      |{right:<BOX_WIDTH$}|");
    };
    let pad = |text: &str| format!(" {text}");
    row(&pad(&a.title), &pad(&b.title));
    for index in 0..rows {
        let line = |site: &SiteBox| site.lines.get(index).map(|line| pad(line)).unwrap_or_default();
        row(&line(&a), &line(&b));
    }
    let gap = " ".repeat(6);
    let mut diagram = format!(" {rule}{gap}{rule}\n{out} {rule}{gap}{rule}\n");
    // What is below the boxes is centred under them.
    let width = BOX_WIDTH + 2;
    let mut under = |left: &str, right: &str| {
        diagram.push_str(format!(" {left:^width$}{gap}{right:^width$}").trim_end());
        diagram.push('\n');
    };
    under("|", "|");
    under(&a.underlay, &b.underlay);
    under("|", "|");
    let middle = (width - 1) / 2;
    let between = width + gap.len() - 1;
    let label = " public underlay, a router in it ";
    let _ = writeln!(diagram, " {:middle$}+{label:-^between$}+", "");
    Ok(diagram)
}

fn site_box(title: &str, gateway: &Host, host: &Host) -> Result<SiteBox, LabError> {
    let mut lines = Vec::new();
    let mut underlay = Vec::new();
    for (device, address) in addresses(host)? {
        lines.push(format!("host     {address} ({device})"));
    }
    for (device, address) in addresses(gateway)? {
        if device.starts_with("underlay") {
            underlay.push(address);
        } else {
            lines.push(format!("gateway  {address} ({device})"));
        }
    }
    gateway.run(|| {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        // Not the guards, which have no interface.
        let is_shown = |route: &Route| route.protocol == ROUTE_PROTOCOL && route.device.is_some();
        for route in netlink.routes()?.into_iter().filter(is_shown) {
            let device = links.iter().find(|link| Some(link.index) == route.device);
            let device = device.map_or("?", |link| link.name.as_str());
            lines.push(format!("route    {} dev {device}", route.destination));
        }
        Ok::<_, adit_linux::error::Error>(())
    })?;
    Ok(SiteBox { title: title.to_owned(), lines, underlay: underlay.join(", ") })
}

fn addresses(host: &Host) -> Result<Vec<(String, String)>, LabError> {
    host.run(|| {
        let mut netlink = Netlink::open()?;
        let links = netlink.links()?;
        let mut found = Vec::new();
        for address in netlink.addresses(None)? {
            if address.prefix.addr().is_loopback() || !address.is_global {
                continue;
            }
            let link = links.iter().find(|link| link.index == address.index);
            found.push((link.map_or_else(String::new, |link| link.name.clone()), address.prefix.to_string()));
        }
        Ok::<_, adit_linux::error::Error>(found)
    })
}
