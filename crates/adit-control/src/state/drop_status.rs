//! Drops of one reason, as the status shows them.

use std::net::IpAddr;

use adit_tunnel::{Dropped, Instant, Tunnel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was dropped for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DropStatus {
    /// Packets since the start.
    pub count: u64,
    /// The last of them; `null` if it is not known: the kernel plane only counts, and a daemon that
    /// starts again takes over the count alone.
    pub last: Option<LastDrop>,
}

/// The last packet that was dropped for a reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LastDrop {
    /// Its source: of the inner header if it was from a peer or for one, else of the outer header;
    /// of an ICMP error, the router. `null` if that could not be read.
    pub source: Option<IpAddr>,
    /// The peer that it was for or came from; `null` if that is not known.
    pub peer: Option<String>,
    /// Seconds since then.
    pub seconds: f64,
}

impl DropStatus {
    pub(crate) fn new(count: u64, last: Option<Dropped>, tunnel: &Tunnel, now: Instant) -> Self {
        let last = last.map(|dropped| {
            let peer = dropped.peer.and_then(|peer| tunnel.peers().find(|(index, _)| *index == peer));
            LastDrop {
                source: dropped.source,
                peer: peer.map(|(_, peer)| peer.name.to_string()),
                seconds: now.since(dropped.at).as_secs_f64(),
            }
        });
        Self { count, last }
    }
}
