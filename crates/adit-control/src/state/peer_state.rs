//! The state of a peer, decided from what was sent to it and received from it.
//!
//! | state | when |
//! |---|---|
//! | `unreachable` | a router's report stands, or this host has no route to the peer |
//! | `up` | something came from it within the last 30 s: a datagram, a probe, or an answer to one |
//! | `no-answer` | a datagram was sent, and nothing has come from the peer for too long since |
//! | `idle` | otherwise |
//!
//! A datagram that leaves within [`LAST_WORD`] of the last one received asks for no answer: it may
//! be the last one of a connection. For later ones, "too long" depends on what silence proves:
//!
//! - A peer that answers probes, or that was never heard: the time in which a probe follows the
//!   datagram, and [`PROBE_ANSWER_TIMEOUT`].
//! - A peer that was heard and answers no probes (`probe = false`, or it ignores echoes): silence
//!   is normal where traffic goes one way. It has [`UNPROBED_TIMEOUT`]; until then the state stays.
//!
//! `no-answer` lasts until something comes from the peer, however seldom datagrams are sent.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use adit_tunnel::{Instant, probe_interval};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// Something was received from it within the last 30 seconds.
    Up,
    /// Nothing was sent to it since something was received, or not long enough ago.
    #[default]
    Idle,
    /// Something was sent to it, and nothing has come back, not even an ICMP error.
    NoAnswer,
    /// A router says that it is unreachable, or this host has no route to it.
    Unreachable,
}

/// How long after the last datagram from it a peer counts as up.
pub(crate) const UP_FOR: Duration = Duration::from_secs(30);
/// A datagram that is sent so soon after one was received asks for no answer.
const LAST_WORD: Duration = Duration::from_secs(3);
/// How long a probe may take there and back.
const PROBE_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a peer may be silent that was heard and answers no probes.
const UNPROBED_TIMEOUT: Duration = Duration::from_secs(180);

/// What is known of a peer at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Datagrams sent to it since the start.
    pub(crate) sent: u64,
    /// When something last came from it.
    pub(crate) heard: Option<Instant>,
    /// Whether it has ever answered a probe.
    pub(crate) answers_probes: bool,
    /// A router's report stands, or there is no route.
    pub(crate) is_unreachable: bool,
    /// Our address on the underlay is missing, so that nothing leaves.
    pub(crate) is_silenced: bool,
}

/// The states of all peers, by underlay address.
#[derive(Debug, Default)]
pub(crate) struct PeerStates {
    peers: HashMap<IpAddr, Peer>,
    /// Those of the look that is in progress.
    next: HashMap<IpAddr, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    sent: u64,
    /// When the first datagram was sent that still waits for an answer.
    asked: Option<Instant>,
    /// The state as far as traffic says.
    state: PeerState,
}

impl PeerStates {
    /// The state of one of `count` peers now. Looks may follow each other at any pace: times are
    /// exact to the time between two.
    pub(crate) fn look(&mut self, underlay: IpAddr, count: usize, seen: Seen, now: Instant) -> PeerState {
        let before = self.peers.get(&underlay).copied();
        // What was sent before the first look is not known to be unanswered.
        let mut peer = before.unwrap_or(Peer { sent: seen.sent, asked: None, state: PeerState::Idle });
        peer.look(count, seen, now);
        self.next.insert(underlay, peer);
        if seen.is_unreachable { PeerState::Unreachable } else { peer.state }
    }

    /// Ends a look at all peers: the others are forgotten.
    pub(crate) fn finish(&mut self) {
        std::mem::swap(&mut self.peers, &mut self.next);
        self.next.clear();
    }
}

impl Peer {
    fn look(&mut self, count: usize, seen: Seen, now: Instant) {
        let silence = seen.heard.map(|heard| now.since(heard));
        if self.asked.is_some_and(|asked| seen.heard.is_some_and(|heard| heard >= asked)) {
            self.asked = None;
        }
        if seen.sent != self.sent {
            self.sent = seen.sent;
            if silence.is_none_or(|silence| silence > LAST_WORD) && !seen.is_silenced {
                self.asked.get_or_insert(now);
            }
        }
        let is_proof = seen.answers_probes || seen.heard.is_none();
        let patience = if is_proof { probe_interval(count) + PROBE_ANSWER_TIMEOUT } else { UNPROBED_TIMEOUT };
        self.state = match self.asked {
            _ if silence.is_some_and(|silence| silence < UP_FOR) => PeerState::Up,
            None => PeerState::Idle,
            Some(asked) if now.since(asked) >= patience => PeerState::NoAnswer,
            Some(_) => self.state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 1, 2));

    const START: u64 = 1_000_000;

    /// A peer that is looked at twice a second.
    #[derive(Default)]
    struct Watched {
        states: PeerStates,
        seen: Seen,
        now: Instant,
        /// The states, each with the second in which it began.
        history: Vec<(u64, PeerState)>,
    }

    impl Watched {
        fn new(answers_probes: bool) -> Self {
            let seen = Seen { answers_probes, ..Seen::default() };
            let mut watched = Self { seen, now: Instant::from_millis(START), ..Self::default() };
            watched.states.look(PEER, 1, seen, watched.now);
            watched.states.finish();
            watched
        }

        fn second(&self) -> u64 {
            (self.now.as_millis() - START) / 1000
        }

        /// Lets so many seconds pass. `each` says what happens in a second: whether a datagram is
        /// sent, and whether one is received.
        fn pass(&mut self, seconds: u64, each: impl Fn(u64) -> (bool, bool)) -> &mut Self {
            for _ in 0..seconds {
                let (sends, receives) = each(self.second());
                self.seen.sent += u64::from(sends);
                if receives {
                    self.seen.heard = Some(self.now);
                }
                for _ in 0..2 {
                    let state = self.states.look(PEER, 1, self.seen, self.now);
                    self.states.finish();
                    if self.history.last().is_none_or(|(_, last)| *last != state) {
                        self.history.push((self.second(), state));
                    }
                    self.now = self.now.saturating_add(Duration::from_millis(500));
                }
            }
            self
        }
    }

    const NOTHING: fn(u64) -> (bool, bool) = |_| (false, false);
    const SENDS: fn(u64) -> (bool, bool) = |_| (true, false);
    const BOTH: fn(u64) -> (bool, bool) = |_| (true, true);

    use PeerState::{Idle, NoAnswer, Unreachable, Up};

    #[test]
    fn nothing_sent_is_idle() {
        assert_eq!(Watched::new(false).pass(600, NOTHING).history, [(0, Idle)]);
    }

    #[test]
    fn a_peer_that_was_never_heard_does_not_answer() {
        for answers_probes in [false, true] {
            let mut peer = Watched::new(answers_probes);
            peer.pass(10, NOTHING).pass(1, SENDS).pass(600, NOTHING);
            assert_eq!(peer.history, [(0, Idle), (15, NoAnswer)], "one datagram");
            peer.pass(600, SENDS).pass(1, BOTH);
            assert_eq!(peer.history[1..], [(15, NoAnswer), (1211, Up)], "many, and then an answer");
        }
    }

    #[test]
    fn the_last_datagram_of_a_connection_needs_no_answer() {
        for answers_probes in [false, true] {
            let mut peer = Watched::new(answers_probes);
            peer.pass(10, BOTH).pass(2, SENDS).pass(600, NOTHING);
            assert_eq!(peer.history, [(0, Up), (39, Idle)]);
        }
    }

    #[test]
    fn a_peer_that_falls_silent_under_traffic_does_not_answer() {
        let mut peer = Watched::new(true);
        peer.pass(10, BOTH).pass(600, SENDS).pass(600, NOTHING);
        assert_eq!(peer.history, [(0, Up), (39, NoAnswer)], "it answered probes");
        let mut peer = Watched::new(false);
        peer.pass(10, BOTH).pass(600, SENDS).pass(600, NOTHING);
        assert_eq!(peer.history, [(0, Up), (193, NoAnswer)], "it did not");
    }

    #[test]
    fn an_idle_peer_that_is_asked_and_does_not_answer() {
        let mut peer = Watched::new(true);
        peer.pass(1, BOTH).pass(99, NOTHING).pass(50, SENDS);
        assert_eq!(peer.history, [(0, Up), (30, Idle), (105, NoAnswer)]);
        let mut peer = Watched::new(true);
        // An answer within two seconds.
        peer.pass(1, BOTH).pass(99, NOTHING).pass(50, |second| (true, second >= 102));
        assert_eq!(peer.history, [(0, Up), (30, Idle), (102, Up)]);
    }

    /// Such patterns must not make the state go back and forth.
    #[test]
    fn traffic_in_one_direction_keeps_its_state() {
        type Pattern = fn(u64) -> (bool, bool);
        type Row = (&'static str, bool, Pattern, &'static [(u64, PeerState)]);
        let table: [Row; 6] = [
            ("sends only, probes answered", true, |second| (true, second % 2 == 0), &[(0, Up)]),
            (
                "sends seldom, nothing comes",
                false,
                |second| (second % 60 == 0, false),
                &[(0, Idle), (5, NoAnswer)],
            ),
            (
                "sends all the time, an answer each minute",
                false,
                |second| (true, second % 60 == 0),
                &[(0, Up)],
            ),
            ("receives only", false, |_| (false, true), &[(0, Up)]),
            ("receives each 20 seconds", false, |second| (false, second % 20 == 0), &[(0, Up)]),
            ("sends all the time, nothing comes", false, SENDS, &[(0, Idle), (5, NoAnswer)]),
        ];
        for (what, answers_probes, pattern, expected) in table {
            let mut peer = Watched::new(answers_probes);
            assert_eq!(peer.pass(3600, pattern).history, expected, "{what}");
        }
    }

    #[test]
    fn what_does_not_leave_asks_for_nothing() {
        let mut peer = Watched::new(false);
        peer.seen.is_silenced = true;
        peer.pass(60, SENDS);
        peer.seen.is_silenced = false;
        assert_eq!(peer.pass(60, SENDS).history, [(0, Idle), (65, NoAnswer)]);
    }

    #[test]
    fn unreachable_stands_above_all_and_hides_nothing() {
        let mut peer = Watched::new(true);
        peer.pass(10, SENDS);
        peer.seen.is_unreachable = true;
        peer.pass(10, SENDS);
        peer.seen.is_unreachable = false;
        peer.pass(10, SENDS);
        let expected = [(0, Idle), (5, NoAnswer), (10, Unreachable), (20, NoAnswer)];
        assert_eq!(peer.history, expected);
    }

    #[test]
    fn what_was_sent_before_the_first_look_waits_for_nothing() {
        let seen = Seen { sent: 7, ..Seen::default() };
        let mut peer = Watched { seen, now: Instant::from_millis(START), ..Watched::default() };
        assert_eq!(peer.pass(60, NOTHING).history, [(0, Idle)]);
    }

    #[test]
    fn with_more_peers_probes_take_longer() {
        let state_after = |count, seconds| {
            let mut states = PeerStates::default();
            let mut state = Idle;
            for (sent, at) in [(0, 0), (1, 0), (1, seconds)] {
                state = states.look(
                    PEER,
                    count,
                    Seen { sent, ..Seen::default() },
                    Instant::from_millis(at * 1000),
                );
                states.finish();
            }
            state
        };
        assert_eq!((state_after(1, 4), state_after(1, 5)), (Idle, NoAnswer));
        assert_eq!((state_after(100_000, 22), state_after(100_000, 23)), (Idle, NoAnswer));
    }
}
