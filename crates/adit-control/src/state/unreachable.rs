//! The cause for which a peer counts as unreachable, as the status and the path cache write it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The ICMP error that a router sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnreachableCause {
    /// Network Unreachable.
    Network,
    /// Host Unreachable.
    Host,
    /// Protocol Unreachable: the peer does not speak IP in IP.
    Protocol,
    /// Time Exceeded: the outer TTL is too small, or there is a loop.
    TimeExceeded,
}

impl From<adit_tunnel::UnreachableCause> for UnreachableCause {
    fn from(cause: adit_tunnel::UnreachableCause) -> Self {
        use adit_tunnel::UnreachableCause as Cause;
        match cause {
            Cause::Network => Self::Network,
            Cause::Host => Self::Host,
            Cause::Protocol => Self::Protocol,
            Cause::TimeExceeded => Self::TimeExceeded,
        }
    }
}

impl From<UnreachableCause> for adit_tunnel::UnreachableCause {
    fn from(cause: UnreachableCause) -> Self {
        match cause {
            UnreachableCause::Network => Self::Network,
            UnreachableCause::Host => Self::Host,
            UnreachableCause::Protocol => Self::Protocol,
            UnreachableCause::TimeExceeded => Self::TimeExceeded,
        }
    }
}
