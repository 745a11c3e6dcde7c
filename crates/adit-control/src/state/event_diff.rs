//! The events between two snapshots.
//!
//! An event is a difference between the snapshots of two ticks. What changes and changes back
//! between them is none.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::state::events::{DownCause, EventKind};
use crate::state::status::{PeerState, PeerStatus, Probing, Relay, SiteStatus, Status};
use crate::state::unreachable::Unreachable;
use crate::state::warning::Warning;

/// What happened between two statuses, in the order of the peers. A new peer counts as silent
/// before. A removed peer has no event.
#[must_use]
pub(crate) fn between(before: &Status, after: &Status) -> Vec<EventKind> {
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
    let has_moved = before.underlays != after.underlays;
    if has_moved {
        let (from, to) = (before.underlays.join(", "), after.underlays.join(", "));
        kinds.push(EventKind::UnderlayMoved { from, to });
    }
    let is_in = |site: &SiteStatus, address: &String| site.underlay_missing.contains(address);
    for address in after.underlay_missing.iter().filter(|address| !is_in(before, address)) {
        kinds.push(EventKind::UnderlayMissing { address: address.clone() });
    }
    for address in before.underlay_missing.iter().filter(|address| !is_in(after, address)) {
        // One that we have no more has moved.
        if after.underlays.contains(address) {
            kinds.push(EventKind::UnderlayPresent { address: address.clone() });
        }
    }
}

fn of_peer(before: Option<&PeerStatus>, after: &PeerStatus, kinds: &mut Vec<EventKind>) {
    let peer = || after.name.clone();
    let now = down(after);
    let was = before.map_or(Some(Down::SILENT), down);
    if was.as_ref().map(Down::key) != now.as_ref().map(Down::key) {
        kinds.push(match now {
            None => EventKind::PeerUp { peer: peer() },
            Some(Down { state, cause, router, icmp_type, icmp_code }) => {
                EventKind::PeerDown { peer: peer(), state, cause, router, icmp_type, icmp_code }
            }
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
        // A data plane that has been started again knows of no answer yet.
        (Probing::Answered, Probing::Unanswered) if after.soft_state.not_probed.is_some() => {
            kinds.push(EventKind::ProbesUnanswered { peer: peer() });
        }
        _ => {}
    }
}

/// Why a peer is down, and who says so.
struct Down {
    state: PeerState,
    cause: DownCause,
    router: Option<IpAddr>,
    icmp_type: Option<u8>,
    icmp_code: Option<u8>,
}

impl Down {
    const SILENT: Self = Self::without_icmp(PeerState::Idle, DownCause::Silent);

    /// What is news if it changes. Several routers may report the same.
    fn key(&self) -> (PeerState, DownCause, Option<u8>, Option<u8>) {
        (self.state, self.cause, self.icmp_type, self.icmp_code)
    }

    const fn without_icmp(state: PeerState, cause: DownCause) -> Self {
        Self { state, cause, router: None, icmp_type: None, icmp_code: None }
    }
}

/// Why the peer is down; `None` if it is up.
fn down(peer: &PeerStatus) -> Option<Down> {
    match (peer.state, &peer.soft_state.unreachable) {
        (PeerState::Up, _) => None,
        (PeerState::NoAnswer, _) => Some(Down::without_icmp(peer.state, DownCause::NoAnswer)),
        (state, Some(unreachable)) => {
            let &Unreachable { cause, router, icmp_type, icmp_code, .. } = unreachable;
            Some(Down { state, cause: DownCause::Unreachable(cause), router, icmp_type, icmp_code })
        }
        (PeerState::Idle | PeerState::Unreachable, None) => {
            Some(Down::without_icmp(peer.state, DownCause::Silent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::drop_status::DropStatus;
    use crate::state::events::Event;
    use crate::state::sample;
    use crate::state::status::{PathMtuFrom, RelayPath};
    use crate::state::unreachable::UnreachableCause;
    use crate::state::warning::WarningName;
    use std::net::Ipv4Addr;

    /// A peer named `b`: its state, what a router says, its path MTU and the source of that,
    /// whether it answers probes.
    type Peer = (PeerState, Option<UnreachableCause>, (u16, PathMtuFrom), Probing);

    const UP: Peer = (PeerState::Up, None, (1500, PathMtuFrom::Underlay), Probing::Answered);
    const IDLE: Peer = (PeerState::Idle, None, UP.2, UP.3);
    const MUTE: Peer = (PeerState::NoAnswer, None, UP.2, UP.3);
    const AWAY: Peer = (PeerState::Unreachable, Some(UnreachableCause::Host), UP.2, UP.3);

    fn status(name: &str, peer: Peer) -> Status {
        let mut status = sample::status();
        let shown = &mut status.peers[0];
        shown.name = name.to_owned();
        (shown.state, (shown.path_mtu, shown.soft_state.path_mtu_from), shown.soft_state.probe) =
            (peer.0, peer.2, peer.3);
        shown.soft_state.unreachable = peer.1.map(|cause| report(cause, ROUTER));
        status
    }

    fn peer() -> String {
        "b".to_owned()
    }

    const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

    /// A report of code 1, unless there is no route.
    fn report(cause: UnreachableCause, router: impl Into<IpAddr>) -> Unreachable {
        let icmp = |number: u8| (cause != UnreachableCause::NoRoute).then_some(number);
        let router = (cause != UnreachableCause::NoRoute).then_some(router.into());
        Unreachable { cause, router, icmp_type: icmp(3), icmp_code: icmp(1), since_seconds: 1.0 }
    }

    fn down_by(state: PeerState, cause: DownCause) -> Vec<EventKind> {
        let (router, icmp_type, icmp_code) = (None, None, None);
        vec![EventKind::PeerDown { peer: peer(), state, cause, router, icmp_type, icmp_code }]
    }

    fn reported(cause: UnreachableCause) -> Vec<EventKind> {
        vec![EventKind::PeerDown {
            peer: peer(),
            state: PeerState::Unreachable,
            cause: DownCause::Unreachable(cause),
            router: Some(ROUTER),
            icmp_type: Some(3),
            icmp_code: Some(1),
        }]
    }

    fn mtu(from: u16, to: u16, told_by: PathMtuFrom) -> Vec<EventKind> {
        vec![EventKind::PathMtuChanged { peer: peer(), from, to, told_by }]
    }

    #[test]
    fn each_difference_of_a_peer_is_one_event() {
        let up = || vec![EventKind::PeerUp { peer: peer() }];
        let narrow = |told_by| (UP.0, UP.1, (1300, told_by), UP.3);
        let away_by = |cause| (AWAY.0, Some(cause), AWAY.2, AWAY.3);
        let table: [(Peer, Peer, Vec<EventKind>); 22] = [
            (UP, UP, vec![]),
            (IDLE, IDLE, vec![]),
            (AWAY, AWAY, vec![]),
            (IDLE, UP, up()),
            (AWAY, UP, up()),
            (UP, IDLE, down_by(PeerState::Idle, DownCause::Silent)),
            (AWAY, IDLE, down_by(PeerState::Idle, DownCause::Silent)),
            (UP, MUTE, down_by(PeerState::NoAnswer, DownCause::NoAnswer)),
            (IDLE, MUTE, down_by(PeerState::NoAnswer, DownCause::NoAnswer)),
            (MUTE, UP, up()),
            (UP, AWAY, reported(UnreachableCause::Host)),
            (IDLE, AWAY, reported(UnreachableCause::Host)),
            (MUTE, AWAY, reported(UnreachableCause::Host)),
            (AWAY, away_by(UnreachableCause::Protocol), reported(UnreachableCause::Protocol)),
            (AWAY, away_by(UnreachableCause::Prohibited), reported(UnreachableCause::Prohibited)),
            (
                AWAY,
                away_by(UnreachableCause::NoRoute),
                down_by(AWAY.0, DownCause::Unreachable(UnreachableCause::NoRoute)),
            ),
            (UP, narrow(PathMtuFrom::Router), mtu(1500, 1300, PathMtuFrom::Router)),
            (narrow(PathMtuFrom::Router), narrow(PathMtuFrom::Probe), mtu(1300, 1300, PathMtuFrom::Probe)),
            (narrow(PathMtuFrom::Probe), UP, mtu(1300, 1500, PathMtuFrom::Underlay)),
            ((UP.0, UP.1, UP.2, Probing::Unanswered), UP, vec![EventKind::ProbesAnswered { peer: peer() }]),
            (UP, (UP.0, UP.1, UP.2, Probing::Unanswered), vec![]),
            (UP, (UP.0, UP.1, UP.2, Probing::Off), vec![]),
        ];
        for (before, after, expected) in table {
            let found = between(&status("b", before), &status("b", after));
            assert_eq!(found, expected, "{before:?} to {after:?}");
        }
    }

    #[test]
    fn a_peer_that_answers_no_probe_of_a_search_is_an_event() {
        let before = status("b", UP);
        let mut after = status("b", (UP.0, UP.1, UP.2, Probing::Unanswered));
        after.peers[0].soft_state.not_probed = Some("it answers no probe".to_owned());
        assert_eq!(between(&before, &after), [EventKind::ProbesUnanswered { peer: "b".to_owned() }]);
        assert_eq!(between(&after, &after), []);
    }

    #[test]
    fn a_counter_or_an_age_that_grows_or_another_router_is_no_event() {
        let before = status("b", AWAY);
        let mut after = before.clone();
        after.peers[0].tx.packets += 1;
        after.peers[0].last_rx_seconds = Some(9.0);
        after.peers[0].soft_state.unreachable = Some(Unreachable {
            since_seconds: 2.0,
            ..report(UnreachableCause::Host, Ipv4Addr::new(10, 9, 9, 8))
        });
        after.drops.insert("queue-full".to_owned(), DropStatus { count: 1, last: None });
        assert_eq!(between(&before, &after), []);
    }

    #[test]
    fn each_change_of_the_underlay_address_is_an_event() {
        const PRESENT: bool = true;
        const MISSING: bool = false;
        let at = |addresses: &str, is_present| {
            let mut status = status("b", UP);
            status.site.underlays = addresses.split(", ").map(str::to_owned).collect();
            status.site.underlay_missing = status.site.underlays.last().cloned().into_iter().collect();
            status.site.underlay_missing.retain(|_| is_present == MISSING);
            status
        };
        let (old, new) = ("10.1.1.1".to_owned(), "10.1.1.7".to_owned());
        let (v6, both) = ("2001:db8::1".to_owned(), "10.1.1.1, 2001:db8::1".to_owned());
        let moved = || EventKind::UnderlayMoved { from: old.clone(), to: new.clone() };
        let gone = |address: &String| EventKind::UnderlayMissing { address: address.clone() };
        for (before, after, expected) in [
            ((&old, PRESENT), (&old, PRESENT), vec![]),
            ((&old, MISSING), (&old, MISSING), vec![]),
            ((&old, PRESENT), (&old, MISSING), vec![gone(&old)]),
            ((&old, MISSING), (&old, PRESENT), vec![EventKind::UnderlayPresent { address: old.clone() }]),
            ((&old, PRESENT), (&new, PRESENT), vec![moved()]),
            ((&old, MISSING), (&new, PRESENT), vec![moved()]),
            ((&old, PRESENT), (&new, MISSING), vec![moved(), gone(&new)]),
            ((&both, PRESENT), (&both, MISSING), vec![gone(&v6)]),
            ((&both, MISSING), (&both, PRESENT), vec![EventKind::UnderlayPresent { address: v6.clone() }]),
            (
                (&both, MISSING),
                (&old, PRESENT),
                vec![EventKind::UnderlayMoved { from: both.clone(), to: old.clone() }],
            ),
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
            ..Event::now(7, "a", reported(UnreachableCause::TimeExceeded).remove(0))
        };
        let json = serde_json::to_value(&event).unwrap();
        let expected = serde_json::json!({
            "schema": 2, "seq": 7, "at": "2026-11-23T18:00:00.000Z", "site": "a", "event": "peer-down", "peer": "b",
            "state": "unreachable", "cause": "time-exceeded", "router": "10.9.9.9", "icmp_type": 3,
            "icmp_code": 1,
        });
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        assert_eq!(DownCause::Unreachable(UnreachableCause::TimeExceeded).as_str(), "time-exceeded");
    }
}
