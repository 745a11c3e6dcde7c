//! What happens to the peers of an overlay: told once each, in the log and to whoever follows.
//!
//! An event is a difference between two looks at the overlay. What changes and changes back between them is none.

use std::collections::HashMap;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::status::{
    PathMtuFrom, PeerState, PeerStatus, Probing, SCHEMA, SiteStatus, Status, UnderlayState,
};
use crate::state::unreachable::UnreachableCause;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// The version of the shape.
    pub schema: u32,
    /// Its number. Each event's is one more than that of the one before, and those of a later daemon are greater.
    #[serde(default)]
    pub seq: u64,
    /// When it was seen, as RFC 3339 has it, in UTC.
    pub at: String,
    /// The site's name.
    pub site: String,
    /// What it was.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A peer is heard.
    PeerUp {
        /// Its name.
        peer: String,
    },
    /// A peer is not heard any more, or is said to be out of reach.
    PeerDown {
        /// Its name.
        peer: String,
        /// Why it is thought so.
        cause: DownCause,
    },
    /// What fits through to a peer has changed, or who says so.
    PathMtuChanged {
        /// Its name.
        peer: String,
        /// What it was, in bytes.
        from: u16,
        /// What it is, in bytes.
        to: u16,
        /// Who told.
        told_by: PathMtuFrom,
    },
    /// A peer answers probes that it did not answer.
    ProbesAnswered {
        /// Its name.
        peer: String,
    },
    /// A peer does not answer probes any more.
    ProbesUnanswered {
        /// Its name.
        peer: String,
    },
    /// The machine has lost its address on the underlay.
    UnderlayMissing {
        /// Which.
        address: String,
    },
    /// It has it again.
    UnderlayPresent {
        /// Which.
        address: String,
    },
    /// Our address on the underlay is another one; every peer's file has to name it.
    UnderlayMoved {
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// Somebody else had changed what is ours, and it was put right. The log says what it was.
    Repaired {
        /// Of which kind it was.
        object: String,
        /// How often.
        times: u64,
    },
    /// Whoever follows was too slow: so many events passed it by.
    Missed {
        /// How many.
        events: u64,
    },
}

/// Why a peer is thought to be down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DownCause {
    /// Nothing has been heard from it lately; perhaps there was nothing to say.
    Silent,
    /// A router: Network Unreachable.
    Network,
    /// A router: Host Unreachable.
    Host,
    /// Protocol Unreachable: it does not speak IP in IP.
    Protocol,
    /// Time Exceeded: the outer TTL is too small, or there is a loop.
    TimeExceeded,
}

impl Event {
    /// Something that is seen now.
    #[must_use]
    pub fn now(seq: u64, site: &str, kind: EventKind) -> Self {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        Self { schema: SCHEMA, seq, at, site: site.to_owned(), kind }
    }

    /// Says it in the log.
    pub fn log(&self) {
        match &self.kind {
            EventKind::PeerUp { peer } => tracing::info!(%peer, "the peer is up"),
            EventKind::PeerDown { peer, cause: DownCause::Silent } => {
                tracing::info!(%peer, "nothing has been heard from the peer lately");
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
                tracing::info!(%peer, "the peer does not answer probes any more");
            }
            EventKind::UnderlayMissing { address } => {
                tracing::warn!(%address, "the underlay address is gone: nothing comes or goes until it is back");
            }
            EventKind::UnderlayPresent { address } => {
                tracing::info!(%address, "the underlay address is there again");
            }
            EventKind::UnderlayMoved { .. } => {}
            // Whoever repairs says more of it; and what is missed is between one follower and us.
            EventKind::Repaired { .. } | EventKind::Missed { .. } => {}
        }
    }
}

impl DownCause {
    /// As it is in JSON.
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
    /// Who it was, for people.
    #[must_use]
    pub const fn who(self) -> &'static str {
        match self {
            Self::Underlay => "the underlay's own",
            Self::Router => "reported by a router",
            Self::Probe => "found by probes",
        }
    }
}

/// What happened between two looks at an overlay, in the order of its peers. A peer that was not there before
/// has been silent; one that is gone had nothing happen to it but that.
#[must_use]
pub fn between(before: &Status, after: &Status) -> Vec<EventKind> {
    // The peers are the same ones from look to look, but after a change of the file.
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
    for (object, times) in &after.repairs {
        let times = times.saturating_sub(before.repairs.get(object).copied().unwrap_or(0));
        if times > 0 {
            kinds.push(EventKind::Repaired { object: object.clone(), times });
        }
    }
    kinds
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

/// Why the peer is down, unless it is up.
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

    /// A peer named `b`: its state, what a router says, its path MTU and who told it, whether it answers probes.
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
    fn each_difference_is_one_event() {
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
    fn what_only_gets_older_or_more_is_no_event() {
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
    fn what_becomes_of_the_underlay_address_is_told() {
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
    fn repairs_are_told_by_kind() {
        let mut before = status("b", UP);
        before.repairs.insert("route".to_owned(), 2);
        let mut after = before.clone();
        after.repairs.extend([("route".to_owned(), 5), ("device".to_owned(), 1)]);
        let repaired = |object: &str, times| EventKind::Repaired { object: object.to_owned(), times };
        assert_eq!(between(&before, &after), [repaired("device", 1), repaired("route", 3)]);
        assert_eq!(between(&after, &after), []);
    }

    #[test]
    fn peers_are_told_apart_by_name() {
        let mut before = status("b", UP);
        before.peers.extend(status("c", IDLE).peers);
        let mut after = before.clone();
        after.peers.reverse();
        assert_eq!(between(&before, &after), [], "another order in the file");
        after.peers.retain(|peer| peer.name == "c");
        assert_eq!(between(&before, &after), [], "one has been taken out of the file");
        assert_eq!(between(&after, &status("b", IDLE)), [], "one that is new, and not heard yet");
        assert_eq!(between(&after, &status("b", UP)), [EventKind::PeerUp { peer: peer() }], "and heard");
    }

    #[test]
    fn as_json_it_is_flat() {
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
