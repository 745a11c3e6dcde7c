//! Why a peer counts as unreachable.

use std::net::IpAddr;

use adit_tunnel::{Instant, PeerIndex, Reachability, Tunnel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a peer counts as unreachable, and who says so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unreachable {
    /// What is wrong.
    pub cause: UnreachableCause,
    /// The router whose ICMP error says so; `null` if this host has no route.
    #[serde(default)]
    pub router: Option<IpAddr>,
    /// The type of the ICMP error.
    #[serde(default)]
    pub icmp_type: Option<u8>,
    /// Its code.
    #[serde(default)]
    pub icmp_code: Option<u8>,
    /// Seconds since the last error, or since the route is missing.
    pub since_seconds: f64,
}

/// What keeps datagrams from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UnreachableCause {
    /// This host has no route to the peer's underlay address.
    NoRoute,
    /// A router: Network Unreachable.
    Network,
    /// A router: Host Unreachable.
    Host,
    /// Protocol Unreachable: the peer does not support IP in IP.
    Protocol,
    /// A filter on the way: administratively prohibited.
    Prohibited,
    /// Time Exceeded: the outer TTL is too small, or there is a loop.
    TimeExceeded,
}

impl Unreachable {
    /// What is known of a peer; `None`: it counts as reachable.
    pub(crate) fn of(tunnel: &Tunnel, peer: PeerIndex, now: Instant) -> Option<Self> {
        let seconds = |since| now.since(since).as_secs_f64();
        if let Some(since) = tunnel.without_route_since(peer) {
            let cause = UnreachableCause::NoRoute;
            let since_seconds = seconds(since);
            return Some(Self { cause, router: None, icmp_type: None, icmp_code: None, since_seconds });
        }
        match tunnel.reachability(peer) {
            Reachability::Assumed => None,
            Reachability::Unreachable { error, router, since } => Some(Self {
                cause: error.cause().into(),
                router: Some(router),
                icmp_type: Some(error.icmp_type),
                icmp_code: Some(error.icmp_code),
                since_seconds: seconds(since),
            }),
        }
    }

    /// In words: what, who says so, and with which ICMP type and code.
    #[must_use]
    pub fn what(&self) -> String {
        let words = self.cause.words();
        match (self.router, self.icmp_type, self.icmp_code) {
            (Some(router), Some(icmp_type), Some(icmp_code)) => {
                format!("{words}, says {router} with ICMP {icmp_type}/{icmp_code}")
            }
            _ => words.to_owned(),
        }
    }
}

impl UnreachableCause {
    /// Its name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::Network => "network",
            Self::Host => "host",
            Self::Protocol => "protocol",
            Self::Prohibited => "prohibited",
            Self::TimeExceeded => "time-exceeded",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NoRoute => "this host has no route to it",
            Self::Network => "network unreachable",
            Self::Host => "host unreachable",
            Self::Protocol => "it does not accept IP in IP",
            Self::Prohibited => "administratively prohibited",
            Self::TimeExceeded => "outer TTL too small, or a routing loop",
        }
    }
}

impl From<adit_tunnel::UnreachableCause> for UnreachableCause {
    fn from(cause: adit_tunnel::UnreachableCause) -> Self {
        use adit_tunnel::UnreachableCause as Cause;
        match cause {
            Cause::Network => Self::Network,
            Cause::Host => Self::Host,
            Cause::Protocol => Self::Protocol,
            Cause::Prohibited => Self::Prohibited,
            Cause::TimeExceeded => Self::TimeExceeded,
        }
    }
}
