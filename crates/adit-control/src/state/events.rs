//! The events of an overlay: what happens to its peers, its underlay address, and its kernel
//! objects.
//!
//! `event_diff.rs` finds them.

use std::net::IpAddr;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::status::{PathMtuFrom, PeerState, RelayPath, SCHEMA};
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
    /// A peer is not up any more, or for another reason than before.
    PeerDown {
        /// Its name.
        peer: String,
        /// Its state now: `idle`, `no-answer` or `unreachable`.
        state: PeerState,
        /// Why it counts as down.
        cause: DownCause,
        /// The router whose ICMP error says so, if one does.
        #[serde(default)]
        router: Option<IpAddr>,
        /// The type of the ICMP error.
        #[serde(default)]
        icmp_type: Option<u8>,
        /// Its code.
        #[serde(default)]
        icmp_code: Option<u8>,
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
    /// Nothing has been received from it lately, and nothing sent that waits for an answer.
    Silent,
    /// Something was sent to it, and nothing has come back.
    NoAnswer,
    /// A router, or this host, says that it cannot be reached.
    #[serde(untagged)]
    Unreachable(UnreachableCause),
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
            EventKind::PeerDown { peer, cause: DownCause::Silent, .. } => {
                tracing::info!(%peer, "nothing has been received from the peer lately");
            }
            EventKind::PeerDown { peer, cause: DownCause::NoAnswer, .. } => {
                tracing::warn!(%peer, "the peer does not answer: something was sent, and nothing came back");
            }
            EventKind::PeerDown {
                peer, cause: DownCause::Unreachable(UnreachableCause::NoRoute), ..
            } => {
                tracing::warn!(%peer, "this host has no route to the peer");
            }
            EventKind::PeerDown { peer, cause, router: Some(router), icmp_type, icmp_code, .. } => {
                let (icmp_type, icmp_code) = (icmp_type.unwrap_or_default(), icmp_code.unwrap_or_default());
                tracing::warn!(
                    %peer, cause = cause.as_str(), %router, icmp = %format_args!("{icmp_type}/{icmp_code}"),
                    "a router says that the peer cannot be reached"
                );
            }
            EventKind::PeerDown { peer, cause, .. } => {
                tracing::warn!(%peer, cause = cause.as_str(), "the peer cannot be reached");
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
            Self::NoAnswer => "no-answer",
            Self::Unreachable(cause) => cause.as_str(),
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
