//! The events of an overlay: what happens to its peers, its underlay address, and its kernel
//! objects.
//!
//! An event is a difference between the snapshots of two ticks. What changes and changes back
//! between them is none.

use std::collections::HashMap;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::status::{
    PathMtuFrom, PeerState, PeerStatus, Probing, Relay, RelayPath, SCHEMA, SiteStatus, Status, UnderlayState,
};
use crate::state::unreachable::UnreachableCause;
use crate::state::warning::{Warning, WarningName};

/// Something that happened, with its number and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The version of the shape.
    pub schema: u32,
    /// Its number. Each event's is one more than that of the one before, and those of a later
    /// daemon are greater.
    #[serde(default)]
    pub seq: u64,
    /// When it was seen: UTC in the format of RFC 3339.
    pub at: String,
    /// The site's name.
    pub site: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// Something was received from a peer that was down.
    PeerUp {
        /// Its name.
        peer: String,
    },
    /// Nothing has been received from a peer lately, or a router says that it is unreachable.
    PeerDown {
        /// Its name.
        peer: String,
        /// Why it counts as down.
        cause: DownCause,
    },
    /// The path MTU to a peer has changed, or its source has.
    PathMtuChanged {
        /// Its name.
        peer: String,
        /// The old one, in bytes.
        from: u16,
        /// The new one, in bytes.
        to: u16,
        /// The source of the new one.
        told_by: PathMtuFrom,
    },
    /// A peer has begun to answer probes.
    ProbesAnswered {
        /// Its name.
        peer: String,
    },
    /// A peer no longer answers probes.
    ProbesUnanswered {
        /// Its name.
        peer: String,
    },
    /// The machine has lost its address on the underlay.
    UnderlayMissing {
        /// The address.
        address: String,
    },
    /// The machine has its address on the underlay again.
    UnderlayPresent {
        /// The address.
        address: String,
    },
    /// The site has another address on the underlay. Every peer's file has to name it.
    UnderlayMoved {
        /// The old address.
        from: String,
        /// The new address.
        to: String,
    },
    /// Another data plane carries a direction now: eBPF programs see nothing any more, or again.
    CarriedBy {
        /// The one that carries from the host to peers.
        tx: String,
        /// The one that carries from peers to the host.
        rx: String,
        /// Why.
        reason: String,
    },
    /// Datagrams from one peer to another take another way now.
    RelayPathChanged {
        /// Who forwards them.
        path: RelayPath,
        /// Why.
        reason: String,
    },
    /// Kernel objects of the overlay had been changed by others, and were repaired. The log has
    /// details.
    Repaired {
        /// Their kind.
        object: String,
        /// How many repairs.
        times: u64,
    },
    /// Something about this machine keeps traffic from passing.
    Warning(Warning),
    /// A warning does not hold any more.
    WarningOver {
        /// Its name.
        name: WarningName,
        /// What it was about.
        about: String,
    },
    /// The events that this reader has asked for are partly gone: it was too slow, or away for too
    /// long.
    Missed {
        /// How many are gone.
        events: u64,
    },
}

/// Why a peer counts as down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DownCause {
    /// Nothing has been received from it lately. It may have had nothing to send.
    Silent,
    /// A router: Network Unreachable.
    Network,
    /// A router: Host Unreachable.
    Host,
    /// Protocol Unreachable: the peer does not support IP in IP.
    Protocol,
    /// Time Exceeded: the outer TTL is too small, or there is a loop.
    TimeExceeded,
}

impl Event {
    /// The event with the number `seq`, seen now.
    #[must_use]
    pub fn now(seq: u64, site: &str, kind: EventKind) -> Self {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { schema: SCHEMA, seq, at, site: site.to_owned(), kind }
    }

    /// Writes it to the log.
    pub fn log(&self) {
        match &self.kind {
            EventKind::CarriedBy { tx, rx, reason } => {
                tracing::warn!(%tx, %rx, %reason, "another data plane carries");
            }
            EventKind::RelayPathChanged { path, reason } => {
                tracing::info!(%reason, "from peer to peer: {}", path.who());
            }
            EventKind::PeerUp { peer } => tracing::info!(%peer, "the peer is up"),
            EventKind::PeerDown { peer, cause: DownCause::Silent } => {
                tracing::info!(%peer, "nothing has been received from the peer lately");
            }
            EventKind::PeerDown { peer, cause } => {
                tracing::warn!(%peer, cause = cause.as_str(), "a router says that the peer cannot be reached");
            }
            EventKind::PathMtuChanged { peer, from, to, told_by } => {
                let who = told_by.who();
                tracing::info!(%peer, from, to, "path MTU changed: {who}");
            }
            EventKind::ProbesAnswered { peer } => tracing::info!(%peer, "the peer answers probes"),
            EventKind::ProbesUnanswered { peer } => {
                tracing::info!(%peer, "the peer no longer answers probes");
            }
            EventKind::UnderlayMissing { address } => {
                tracing::warn!(%address, "the underlay address is missing: nothing is sent or received until it is back");
            }
            EventKind::UnderlayPresent { address } => {
                tracing::info!(%address, "the underlay address is back");
            }
            EventKind::UnderlayMoved { .. } => {}
            EventKind::Warning(warning) => tracing::warn!("{}", warning.what),
            EventKind::WarningOver { name, about } => {
                tracing::info!(about, "{} does not hold any more", name.as_str());
            }
            // A repair is logged with more detail where it is made, and missed events concern one
            // reader only.
            EventKind::Repaired { .. } | EventKind::Missed { .. } => {}
        }
    }
}

impl DownCause {
    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Network => "network",
            Self::Host => "host",
            Self::Protocol => "protocol",
            Self::TimeExceeded => "time-exceeded",
        }
    }
}

impl PathMtuFrom {
    /// A phrase for people.
    #[must_use]
    pub const fn who(self) -> &'static str {
        match self {
            Self::Underlay => "the underlay's own",
            Self::Router => "reported by a router",
            Self::Probe => "found by probes",
        }
    }
}

/// What happened between two statuses, in the order of the peers. A new peer counts as silent
/// before. A removed peer has no event.
#[must_use]
pub fn between(before: &Status, after: &Status) -> Vec<EventKind> {
    // The peers differ only after a change of the configuration.
    let is_same = before.peers.len() == after.peers.len()
        && before.peers.iter().zip(&after.peers).all(|(before, after)| before.name == after.name);
    let mut kinds = Vec::new();
    if is_same {
        for (before, after) in before.peers.iter().zip(&after.peers) {
            of_peer(Some(before), after, &mut kinds);
        }
    } else {
        let by_name: HashMap<&str, &PeerStatus> =
            before.peers.iter().map(|peer| (peer.name.as_str(), peer)).collect();
        for after in &after.peers {
            of_peer(by_name.get(after.name.as_str()).copied(), after, &mut kinds);
        }
    }
    of_underlay(&before.site, &after.site, &mut kinds);
    let SiteStatus { carried_by, dataplane_reason, .. } = &after.site;
    if before.site.carried_by != *carried_by && !before.site.carried_by.rx.is_empty() {
        let (tx, rx, reason) = (carried_by.tx.clone(), carried_by.rx.clone(), dataplane_reason.clone());
        kinds.push(EventKind::CarriedBy { tx, rx, reason });
    }
    // Between two peers, so not at a site with one.
    if before.site.relay.path != after.site.relay.path && after.peers.len() > 1 {
        let Relay { path, reason } = after.site.relay.clone();
        kinds.push(EventKind::RelayPathChanged { path, reason });
    }
    for (object, times) in &after.repairs {
        let times = times.saturating_sub(before.repairs.get(object).copied().unwrap_or(0));
        if times > 0 {
            kinds.push(EventKind::Repaired { object: object.clone(), times });
        }
    }
    of_warnings(&before.warnings, &after.warnings, &mut kinds);
    kinds
}

/// A warning whose words change is no event.
fn of_warnings(before: &[Warning], after: &[Warning], kinds: &mut Vec<EventKind>) {
    let is_in = |warnings: &[Warning], it: &Warning| warnings.iter().any(|warning| warning.is_same(it));
    for warning in after.iter().filter(|warning| !is_in(before, warning)) {
        kinds.push(EventKind::Warning(warning.clone()));
    }
    for Warning { name, about, .. } in before.iter().filter(|warning| !is_in(after, warning)) {
        kinds.push(EventKind::WarningOver { name: *name, about: about.clone() });
    }
}

fn of_underlay(before: &SiteStatus, after: &SiteStatus, kinds: &mut Vec<EventKind>) {
    let (from, to) = (before.underlay.clone(), after.underlay.clone());
    let has_moved = from != to;
    if has_moved {
        kinds.push(EventKind::UnderlayMoved { from, to: to.clone() });
    }
    match (before.underlay_state, after.underlay_state) {
        (UnderlayState::Present, UnderlayState::Missing) => {
            kinds.push(EventKind::UnderlayMissing { address: to });
        }
        (UnderlayState::Missing, UnderlayState::Present) if !has_moved => {
            kinds.push(EventKind::UnderlayPresent { address: to });
        }
        _ => {}
    }
}

fn of_peer(before: Option<&PeerStatus>, after: &PeerStatus, kinds: &mut Vec<EventKind>) {
    let peer = || after.name.clone();
    let now = down(after);
    if before.map_or(Some(DownCause::Silent), down) != now {
        kinds.push(match now {
            None => EventKind::PeerUp { peer: peer() },
            Some(cause) => EventKind::PeerDown { peer: peer(), cause },
        });
    }
    let Some(before) = before else { return };
    let told = |peer: &PeerStatus| (peer.path_mtu, peer.soft_state.path_mtu_from);
    if told(before) != told(after) {
        let (to, told_by) = told(after);
        kinds.push(EventKind::PathMtuChanged { peer: peer(), from: before.path_mtu, to, told_by });
    }
    match (before.soft_state.probe, after.soft_state.probe) {
        (Probing::Off | Probing::Unanswered, Probing::Answered) => {
            kinds.push(EventKind::ProbesAnswered { peer: peer() });
        }
        (Probing::Answered, Probing::Unanswered) => {
            kinds.push(EventKind::ProbesUnanswered { peer: peer() });
        }
        _ => {}
    }
}

/// Why the peer is down; `None` if it is up.
fn down(peer: &PeerStatus) -> Option<DownCause> {
    match (peer.state, &peer.soft_state.unreachable) {
        (PeerState::Up, _) => None,
        (_, Some(unreachable)) => Some(match unreachable.cause {
            UnreachableCause::Network => DownCause::Network,
            UnreachableCause::Host => DownCause::Host,
            UnreachableCause::Protocol => DownCause::Protocol,
            UnreachableCause::TimeExceeded => DownCause::TimeExceeded,
        }),
        (PeerState::Idle | PeerState::Unreachable, None) => Some(DownCause::Silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sample;
    use crate::state::status::Unreachable;

    /// A peer named `b`: its state, what a router says, its path MTU and the source of that,
    /// whether it answers probes.
    type Peer = (PeerState, Option<UnreachableCause>, (u16, PathMtuFrom), Probing);

    const UP: Peer = (PeerState::Up, None, (1500, PathMtuFrom::Underlay), Probing::Answered);
    const IDLE: Peer = (PeerState::Idle, None, UP.2, UP.3);
    const AWAY: Peer = (PeerState::Unreachable, Some(UnreachableCause::Host), UP.2, UP.3);

    fn status(name: &str, peer: Peer) -> Status {
        let mut status = sample::status();
        let shown = &mut status.peers[0];
        shown.name = name.to_owned();
        (shown.state, (shown.path_mtu, shown.soft_state.path_mtu_from), shown.soft_state.probe) =
            (peer.0, peer.2, peer.3);
        shown.soft_state.unreachable = peer.1.map(|cause| Unreachable { cause, since_seconds: 1.0 });
        status
    }

    fn peer() -> String {
        "b".to_owned()
    }

    fn down_by(cause: DownCause) -> Vec<EventKind> {
        vec![EventKind::PeerDown { peer: peer(), cause }]
    }

    fn mtu(from: u16, to: u16, told_by: PathMtuFrom) -> Vec<EventKind> {
        vec![EventKind::PathMtuChanged { peer: peer(), from, to, told_by }]
    }

    #[test]
    fn each_difference_of_a_peer_is_one_event() {
        let up = || vec![EventKind::PeerUp { peer: peer() }];
        let narrow = |told_by| (UP.0, UP.1, (1300, told_by), UP.3);
        let table: [(Peer, Peer, Vec<EventKind>); 16] = [
            (UP, UP, vec![]),
            (IDLE, IDLE, vec![]),
            (AWAY, AWAY, vec![]),
            (IDLE, UP, up()),
            (AWAY, UP, up()),
            (UP, IDLE, down_by(DownCause::Silent)),
            (AWAY, IDLE, down_by(DownCause::Silent)),
            (UP, AWAY, down_by(DownCause::Host)),
            (IDLE, AWAY, down_by(DownCause::Host)),
            (AWAY, (AWAY.0, Some(UnreachableCause::Protocol), AWAY.2, AWAY.3), down_by(DownCause::Protocol)),
            (UP, narrow(PathMtuFrom::Router), mtu(1500, 1300, PathMtuFrom::Router)),
            (narrow(PathMtuFrom::Router), narrow(PathMtuFrom::Probe), mtu(1300, 1300, PathMtuFrom::Probe)),
            (narrow(PathMtuFrom::Probe), UP, mtu(1300, 1500, PathMtuFrom::Underlay)),
            ((UP.0, UP.1, UP.2, Probing::Unanswered), UP, vec![EventKind::ProbesAnswered { peer: peer() }]),
            (UP, (UP.0, UP.1, UP.2, Probing::Unanswered), vec![EventKind::ProbesUnanswered { peer: peer() }]),
            (UP, (UP.0, UP.1, UP.2, Probing::Off), vec![]),
        ];
        for (before, after, expected) in table {
            let found = between(&status("b", before), &status("b", after));
            assert_eq!(found, expected, "{before:?} to {after:?}");
        }
    }

    #[test]
    fn a_counter_or_an_age_that_grows_is_no_event() {
        let before = status("b", AWAY);
        let mut after = before.clone();
        after.peers[0].tx.packets += 1;
        after.peers[0].last_rx_seconds = Some(9.0);
        after.peers[0].soft_state.unreachable =
            Some(Unreachable { cause: UnreachableCause::Host, since_seconds: 2.0 });
        after.drops.insert("queue-full".to_owned(), 1);
        assert_eq!(between(&before, &after), []);
    }

    #[test]
    fn each_change_of_the_underlay_address_is_an_event() {
        use UnderlayState::{Missing, Present};
        let at = |address: &str, state| {
            let mut status = status("b", UP);
            (status.site.underlay, status.site.underlay_state) = (address.to_owned(), state);
            status
        };
        let (old, new) = ("10.1.1.1".to_owned(), "10.1.1.7".to_owned());
        let moved = || EventKind::UnderlayMoved { from: old.clone(), to: new.clone() };
        let gone = |address: &String| EventKind::UnderlayMissing { address: address.clone() };
        for (before, after, expected) in [
            ((&old, Present), (&old, Present), vec![]),
            ((&old, Missing), (&old, Missing), vec![]),
            ((&old, Present), (&old, Missing), vec![gone(&old)]),
            ((&old, Missing), (&old, Present), vec![EventKind::UnderlayPresent { address: old.clone() }]),
            ((&old, Present), (&new, Present), vec![moved()]),
            ((&old, Missing), (&new, Present), vec![moved()]),
            ((&old, Present), (&new, Missing), vec![moved(), gone(&new)]),
        ] {
            let found = between(&at(before.0, before.1), &at(after.0, after.1));
            assert_eq!(found, expected, "{before:?} to {after:?}");
        }
    }

    #[test]
    fn another_way_from_peer_to_peer_is_an_event_at_a_hub() {
        let hub = |path, reason: &str| {
            let mut status = status("b", UP);
            status.peers.extend(self::status("c", UP).peers);
            status.site.relay = Relay { path, reason: reason.to_owned() };
            status
        };
        let changed = |path, reason: &str| EventKind::RelayPathChanged { path, reason: reason.to_owned() };
        let (direct, stack) = (hub(RelayPath::Direct, "no rule"), hub(RelayPath::Stack, "a rule"));
        assert_eq!(between(&direct, &stack), [changed(RelayPath::Stack, "a rule")]);
        assert_eq!(between(&stack, &direct), [changed(RelayPath::Direct, "no rule")]);
        assert_eq!(between(&stack, &hub(RelayPath::Stack, "another rule")), []);
        let alone = |mut status: Status| {
            status.peers.pop();
            status
        };
        assert_eq!(between(&alone(direct), &alone(stack)), [], "there is nothing to relay");
    }

    #[test]
    fn repairs_are_events_by_kind() {
        let mut before = status("b", UP);
        before.repairs.insert("route".to_owned(), 2);
        let mut after = before.clone();
        after.repairs.extend([("route".to_owned(), 5), ("device".to_owned(), 1)]);
        let repaired = |object: &str, times| EventKind::Repaired { object: object.to_owned(), times };
        assert_eq!(between(&before, &after), [repaired("device", 1), repaired("route", 3)]);
        assert_eq!(between(&after, &after), []);
    }

    #[test]
    fn a_warning_is_an_event_when_it_comes_and_when_it_goes() {
        let warning = |about: &str, what: &str| Warning {
            name: WarningName::ForwardingOff,
            about: about.to_owned(),
            what: what.to_owned(),
        };
        let with = |warnings: &[Warning]| Status { warnings: warnings.to_vec(), ..status("b", UP) };
        let (one, other) = (warning("all", "off"), warning("lan", "off"));
        let over = || EventKind::WarningOver { name: WarningName::ForwardingOff, about: "all".to_owned() };
        for (before, after, expected) in [
            (vec![], vec![], vec![]),
            (vec![], vec![one.clone()], vec![EventKind::Warning(one.clone())]),
            (vec![one.clone()], vec![warning("all", "in other words")], vec![]),
            (vec![one.clone()], vec![other.clone()], vec![EventKind::Warning(other.clone()), over()]),
            (vec![one.clone(), other.clone()], vec![other], vec![over()]),
        ] {
            assert_eq!(between(&with(&before), &with(&after)), expected, "{before:?} to {after:?}");
        }
    }

    #[test]
    fn peers_are_compared_by_name() {
        let mut before = status("b", UP);
        before.peers.extend(status("c", IDLE).peers);
        let mut after = before.clone();
        after.peers.reverse();
        assert_eq!(between(&before, &after), [], "another order in the file");
        after.peers.retain(|peer| peer.name == "c");
        assert_eq!(between(&before, &after), [], "one has been removed from the file");
        assert_eq!(between(&after, &status("b", IDLE)), [], "a new one that is silent");
        assert_eq!(
            between(&after, &status("b", UP)),
            [EventKind::PeerUp { peer: peer() }],
            "a new one that is up"
        );
    }

    #[test]
    fn an_event_is_one_flat_json_object() {
        let event = Event {
            at: "2026-11-23T18:00:00.000Z".to_owned(),
            ..Event::now(7, "a", EventKind::PeerDown { peer: peer(), cause: DownCause::TimeExceeded })
        };
        let json = serde_json::to_value(&event).unwrap();
        let expected = serde_json::json!({
            "schema": 1, "seq": 7, "at": "2026-11-23T18:00:00.000Z", "site": "a", "event": "peer-down", "peer": "b",
            "cause": "time-exceeded",
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        assert_eq!(DownCause::TimeExceeded.as_str(), "time-exceeded");
    }
}
