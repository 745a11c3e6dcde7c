//! `adit status`: what runs, and how it fares.

use std::process::ExitCode;

use adit_control::client;
use adit_control::places::{self, Places};
use adit_control::status::{PeerState, PeerStatus, Status};

use crate::Failure;
use crate::output::Output;

pub(crate) fn status(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    if let Some(name) = name {
        let status = client::status(&Places::of(name))?;
        if output.is_json() {
            output.line(serde_json::to_string(&status)?);
        } else {
            show(&status, output);
        }
        return Ok(ExitCode::SUCCESS);
    }
    // A dead daemon's socket is no running overlay.
    let running: Vec<Status> =
        places::running().iter().filter_map(|name| client::status(&Places::of(name)).ok()).collect();
    match (running.as_slice(), output.is_json()) {
        ([], _) => return Err("no overlay is running; `adit up FILE` starts one".into()),
        // One overlay is the common case, and has the shape of the contract.
        ([only], true) => output.line(serde_json::to_string(only)?),
        (several, true) => output.line(serde_json::to_string(several)?),
        (several, false) => several.iter().for_each(|status| show(status, output)),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Status, output: &Output) {
    let site = &status.site;
    output.line(format_args!(
        "site {}  underlay {}  device {}  mtu {}",
        site.name, site.underlay, site.device, site.mtu
    ));
    output.line(format_args!(
        "  data plane {} ({}); plaintext: nothing is encrypted",
        site.dataplane, site.dataplane_reason
    ));
    let width = status.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0);
    for peer in &status.peers {
        output.line(peer_line(peer, width));
    }
    for (reason, count) in &status.drops {
        output.line(format_args!("  dropped {reason} {count}"));
    }
}

fn peer_line(peer: &PeerStatus, width: usize) -> String {
    let state = match peer.state {
        PeerState::Up => "up",
        PeerState::Idle => "idle",
        PeerState::Unreachable => "unreachable",
    };
    let heard = match peer.last_rx_seconds {
        Some(seconds) => format!("heard {seconds:.1} s ago"),
        None => "never heard".to_owned(),
    };
    let networks: Vec<String> = peer.networks.iter().map(ToString::to_string).collect();
    format!(
        "  peer {:width$}  {state}  {}  {}  path mtu {}  tx {}  rx {}  {heard}",
        peer.name,
        peer.underlay,
        networks.join(" "),
        peer.path_mtu,
        traffic(peer.tx.packets, peer.tx.bytes),
        traffic(peer.rx.packets, peer.rx.bytes),
    )
}

fn traffic(packets: u64, bytes: u64) -> String {
    let (unit, scale) = match bytes {
        0..1_000 => ("B", 1.0),
        1_000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let digits = usize::from(scale > 1.0);
    format!("{packets} packets {:.digits$} {unit}", bytes as f64 / scale)
}
