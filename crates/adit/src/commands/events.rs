//! `adit events`: what happens to the peers, as it happens.

use std::process::ExitCode;

use adit_control::api::client;
use adit_control::state::events::{DownCause, Event, EventKind};
use adit_control::state::paths::{self, RuntimePaths};

use crate::Failure;
use crate::output::Output;

pub(crate) fn events(name: Option<&str>, output: &Output) -> Result<ExitCode, Failure> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => the_one_that_runs()?,
    };
    let events = client::follow(&RuntimePaths::of(&name))?;
    // Whoever starts this from a program knows by it that nothing is missed from here on.
    output.note(format_args!("following overlay `{name}`"));
    for event in events {
        let event = event?;
        if output.is_json() {
            output.line(serde_json::to_string(&event)?);
        } else {
            output.line(line(&event));
        }
    }
    Err(format!("the daemon of overlay `{name}` has ended").into())
}

fn the_one_that_runs() -> Result<String, Failure> {
    // A dead daemon's socket is no running overlay.
    let mut running = paths::running();
    running.retain(|name| client::status(&RuntimePaths::of(name)).is_ok());
    match running.as_slice() {
        [] => Err("no overlay is running; `adit up FILE` starts one".into()),
        [only] => Ok(only.clone()),
        several => Err(format!("several overlays are running: name one of {}", several.join(", ")).into()),
    }
}

fn line(event: &Event) -> String {
    let kind = match &event.kind {
        EventKind::PeerUp { peer } => format!("peer {peer}  up"),
        EventKind::PeerDown { peer, cause } => format!("peer {peer}  down: {}", cause_of(*cause)),
        EventKind::PathMtuChanged { peer, from, to, told_by } => {
            format!("peer {peer}  path mtu {to}, was {from} ({})", told_by.who())
        }
        EventKind::ProbesAnswered { peer } => format!("peer {peer}  answers probes"),
        EventKind::ProbesUnanswered { peer } => format!("peer {peer}  does not answer probes any more"),
        EventKind::UnderlayMissing { address } => {
            format!("underlay address {address} missing: nothing comes or goes")
        }
        EventKind::UnderlayPresent { address } => format!("underlay address {address} there again"),
        EventKind::UnderlayMoved { from, to } => {
            format!("underlay address {from} -> {to}: every peer's file has to name {to}")
        }
        EventKind::Repaired { object, times: 1 } => format!("repaired {object}"),
        EventKind::Repaired { object, times } => format!("repaired {object} {times} times"),
        EventKind::Missed { events } => {
            format!("{events} events were missed: they came faster than they were read")
        }
    };
    format!("{}  site {}  {kind}", event.at, event.site)
}

fn cause_of(cause: DownCause) -> &'static str {
    match cause {
        DownCause::Silent => "nothing heard lately",
        DownCause::Network => "a router says: network unreachable",
        DownCause::Host => "a router says: host unreachable",
        DownCause::Protocol => "it does not speak IP in IP",
        DownCause::TimeExceeded => "outer TTL too small, or a loop",
    }
}
