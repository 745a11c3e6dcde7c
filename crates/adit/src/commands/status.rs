//! `adit status`: show the running overlays.

use std::process::ExitCode;

use adit_control::ControlError;
use adit_control::api::client;
use adit_control::reconcile::change::Object;
use adit_control::state::dead;
use adit_control::state::drop_status::DropStatus;
use adit_control::state::paths::{self, RuntimePaths};
use adit_control::state::status::{
    CarriedBy, DaemonState, PathMtuFrom, PeerState, PeerStatus, SiteStatus, Status, UnderlayState,
};

use crate::Failure;
use crate::commands::ask;
use crate::commands::drops;
use crate::output::Output;

pub(crate) fn status(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let found = ask::overlays(name, paths::known, status_of)?;
    let none_is_dead = found.answers.iter().all(|status| status.daemon != DaemonState::Dead);
    let shown = if output.is_json() {
        found.json(output)
    } else {
        let found = found.or_none()?;
        found.answers.iter().for_each(|status| show(status, output));
        if found.note_unreadable(output) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    };
    Ok(if none_is_dead { shown } else { ExitCode::FAILURE })
}

/// The answer of the daemon, or what is known of the overlay without it.
fn status_of(paths: &RuntimePaths) -> Result<Status, ControlError> {
    match client::status(paths) {
        Err(none @ ControlError::NotRunning { .. }) => dead::status(paths)?.ok_or(none),
        answered => answered,
    }
}

fn show(status: &Status, output: &Output) {
    let site = &status.site;
    if let Some(why) = &status.waiting_for {
        output.line(format_args!("site {}  waiting: {why}", site.name));
        return;
    }
    if status.daemon == DaemonState::Dead {
        let file = if status.file.is_empty() { "FILE" } else { &status.file };
        output.line(format_args!(
            "site {name}  device {}  dead: {}\n  `adit up {file}` starts a daemon, `adit down {name}` removes what is left",
            site.device,
            site.dataplane_reason,
            name = site.name,
        ));
        return;
    }
    let at = site.underlay_interface.as_ref().map_or(String::new(), |name| format!(" ({name})"));
    output.line(format_args!(
        "site {}  underlay {}{at}  device {}  mtu {}",
        site.name,
        site.underlays.join(", "),
        site.device,
        site.mtu
    ));
    if site.underlay_state == UnderlayState::Missing {
        let missing = site.underlay_missing.join(", ");
        let what = if site.underlay_missing.len() < site.underlays.len() {
            format!("nothing is sent from {missing} until it returns")
        } else {
            format!("no traffic until {missing} returns")
        };
        output.line(format_args!("  underlay address missing: {what}"));
    }
    output.line(format_args!(
        "  data plane {} ({}); plaintext: nothing is encrypted",
        carriers(site),
        site.dataplane_reason
    ));
    if !site.limits.is_empty() {
        let names: Vec<&str> = site.limits.iter().map(|limit| limit.name.as_str()).collect();
        output.line(format_args!("  lacks {} (`adit check FILE` explains)", names.join(", ")));
    }
    for warning in &status.warnings {
        output.line(format_args!("  warning: {}", warning.what));
    }
    if status.peers.len() > 1 {
        output.line(format_args!("  from peer to peer: {} ({})", site.relay.path.who(), site.relay.reason));
    }
    for chain in &site.passed_by {
        output.line(format_args!("  outer datagrams pass by {chain}"));
    }
    let width = status.peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0);
    for peer in &status.peers {
        output.line(peer_line(peer, width));
        if let Some(policy) = &peer.xfrm_policy {
            output.line(format_args!("    left to the kernel's stack: {policy}"));
        }
    }
    for (reason, DropStatus { count, last }) in &status.drops {
        let last = last.as_ref().map_or(String::new(), |last| format!(" (last{})", drops::last(last)));
        output.line(format_args!("  dropped {reason} {count}{last}"));
    }
    for (object, count) in &status.repairs {
        let times = if *count == 1 { "once" } else { "times" };
        let count = if *count == 1 { String::new() } else { format!("{count} ") };
        // What others have changed, they know. What failed inside is news.
        let why = status.last_repairs.get(object).filter(|_| object == Object::DataPlane.as_str());
        let why =
            why.map_or(String::new(), |last| format!(" (last {:.0} s ago: {})", last.seconds, last.what));
        output.line(format_args!("  repaired {object} {count}{times}{why}"));
    }
    for (anomaly, count) in &status.ecn {
        output.line(format_args!("  ECN anomaly {anomaly} {count}"));
    }
}

/// The data plane, and those that carry if they are others.
fn carriers(site: &SiteStatus) -> String {
    let CarriedBy { tx, rx } = &site.carried_by;
    let of_direction = |word: &str, by: &String| match by.is_empty() || *by == site.dataplane {
        true => String::new(),
        false => format!(", {word} by {by}"),
    };
    format!("{}{}{}", site.dataplane, of_direction("sent", tx), of_direction("received", rx))
}

fn peer_line(peer: &PeerStatus, width: usize) -> String {
    let soft = &peer.soft_state;
    let state = match (peer.state, &soft.unreachable) {
        (PeerState::Up, _) => "up".to_owned(),
        (PeerState::Idle, _) => "idle".to_owned(),
        (PeerState::Unreachable, None) => "unreachable".to_owned(),
        (PeerState::NoAnswer, _) => "no answer".to_owned(),
        (PeerState::Unreachable, Some(unreachable)) => {
            format!("unreachable ({}, {:.0} s ago)", unreachable.what(), unreachable.since_seconds)
        }
    };
    let path_mtu = match soft.path_mtu_from {
        PathMtuFrom::Underlay => peer.path_mtu.to_string(),
        PathMtuFrom::Router => format!("{} (reported by a router)", peer.path_mtu),
        PathMtuFrom::Probe => format!("{} (found by probes)", peer.path_mtu),
    };
    let path_mtu = match &soft.not_probed {
        Some(why) => format!("{path_mtu} (not probed: {why})"),
        None => path_mtu,
    };
    let hops = match soft.hops {
        None => String::new(),
        Some(1) => "  1 hop".to_owned(),
        Some(hops) => format!("  {hops} hops"),
    };
    let marked = match soft.congestion_experienced {
        0 => String::new(),
        marked => format!("  {marked} marked congested"),
    };
    let heard = match peer.last_rx_seconds {
        Some(seconds) => format!("heard {seconds:.1} s ago"),
        None => "never heard".to_owned(),
    };
    // The address that packets are sent to comes first.
    let others: Vec<&str> =
        peer.underlays.iter().map(String::as_str).filter(|other| *other != peer.underlay).collect();
    let underlay = match others.as_slice() {
        [] => peer.underlay.clone(),
        others => format!("{} (also {})", peer.underlay, others.join(", ")),
    };
    let networks: Vec<String> = peer.networks.iter().map(ToString::to_string).collect();
    format!(
        "  peer {:width$}  {state}  {}  {}  path mtu {path_mtu}{hops}  tx {}  rx {}  {heard}{marked}",
        peer.name,
        underlay,
        networks.join(" "),
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
