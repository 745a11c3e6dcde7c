//! `adit events`: follow the events of an overlay.

use std::net::IpAddr;
use std::process::ExitCode;

use adit_control::api::client;
use adit_control::state::events::{DownCause, Event, EventKind};
use adit_control::state::paths::{self, RuntimePaths};
use adit_control::state::unreachable::UnreachableCause;

use crate::Failure;
use crate::commands::ask;
use crate::output::Output;

pub(crate) fn events(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => only_running_overlay(output)?,
    };
    let events = client::follow(&RuntimePaths::of(&name))?;
    // A program that reads our output misses no event after this line.
    output.note(format_args!("following overlay `{name}`"));
    for event in events {
        let event = event?;
        if output.is_json() {
            output.line(serde_json::to_string(&event)?);
        } else {
            output.line(line(&event));
        }
        if output.is_lost() {
            return Ok(ExitCode::SUCCESS);
        }
    }
    Err(format!("the daemon of overlay `{name}` has ended").into())
}

/// The name of the running overlay.
///
/// # Errors
/// None is running or can be read, or several are.
fn only_running_overlay(output: &Output) -> Result<String, Failure> {
    let found = ask::overlays(None, paths::running, client::status)?.or_none()?;
    found.note_unreadable(output);
    let running: Vec<String> = found.answers.into_iter().map(|status| status.site.name).collect();
    match running.as_slice() {
        [] => Err("no running overlay can be read".into()),
        [only] => Ok(only.clone()),
        several => Err(format!("several overlays are running; name one of: {}", several.join(", ")).into()),
    }
}

fn line(event: &Event) -> String {
    let kind = match &event.kind {
        EventKind::PeerUp { peer } => format!("peer {peer}  up"),
        EventKind::PeerDown { peer, cause, router, icmp_type, icmp_code, .. } => {
            format!("peer {peer}  down: {}{}", cause_of(*cause), reported(*router, *icmp_type, *icmp_code))
        }
        EventKind::PathMtuChanged { peer, from, to, told_by } => {
            format!("peer {peer}  path mtu {to}, was {from} ({})", told_by.who())
        }
        EventKind::ProbesAnswered { peer } => format!("peer {peer}  answers probes"),
        EventKind::ProbesUnanswered { peer } => format!("peer {peer}  no longer answers probes"),
        EventKind::UnderlayMissing { address } => {
            format!("underlay address {address} missing: no traffic until it returns")
        }
        EventKind::UnderlayPresent { address } => format!("underlay address {address} returned"),
        EventKind::UnderlayMoved { from, to } => {
            format!("underlay address {from} -> {to}: name {to} in every peer's file")
        }
        EventKind::CarriedBy { tx, rx, reason } => {
            format!("sent by {tx}, received by {rx} ({reason})")
        }
        EventKind::RelayPathChanged { path, reason } => {
            format!("from peer to peer: {} ({reason})", path.who())
        }
        EventKind::Repaired { object, times: 1 } => format!("repaired {object}"),
        EventKind::Repaired { object, times } => format!("repaired {object} {times} times"),
        EventKind::Warning(warning) => format!("warning: {}", warning.what),
        EventKind::WarningOver { name, about } => format!("warning over: {} {about}", name.as_str()),
        EventKind::Missed { events } => {
            format!("{events} events missed: they came faster than they were read")
        }
    };
    format!("{}  site {}  {kind}", event.at, event.site)
}

fn cause_of(cause: DownCause) -> &'static str {
    match cause {
        DownCause::Silent => "nothing received lately",
        DownCause::NoAnswer => "no answer: something was sent, and nothing came back",
        DownCause::Unreachable(UnreachableCause::NoRoute) => "this host has no route to it",
        DownCause::Unreachable(UnreachableCause::Network) => "network unreachable",
        DownCause::Unreachable(UnreachableCause::Host) => "host unreachable",
        DownCause::Unreachable(UnreachableCause::Protocol) => {
            "protocol unreachable: it does not accept IP in IP"
        }
        DownCause::Unreachable(UnreachableCause::Prohibited) => "administratively prohibited",
        DownCause::Unreachable(UnreachableCause::TimeExceeded) => {
            "time exceeded: outer TTL too small, or a routing loop"
        }
    }
}

/// Who reports it, if a router does.
fn reported(router: Option<IpAddr>, icmp_type: Option<u8>, icmp_code: Option<u8>) -> String {
    match (router, icmp_type, icmp_code) {
        (Some(router), Some(icmp_type), Some(icmp_code)) => {
            format!(", reports {router} (ICMP {icmp_type}/{icmp_code})")
        }
        _ => String::new(),
    }
}
