//! The host's own rules about the tunnel's datagrams: its firewall, and the policies of IPsec.
//!
//! Frames that a data plane sends and receives itself pass by the hooks of the host's IP stack.
//! Whatever the host's administrator has forbidden there must hold nevertheless:
//!
//! - *FORWARD*: programs relay from peer to peer directly only if no rule can be there.
//! - *xfrm*: a peer that a policy covers is left to the stack, which applies the policy.
//! - The other hooks see a tunnel's frames like those of any packet socket: not at all. The status
//!   names the chains that have rules there.

mod forward;
mod policies;
mod watch;

use std::collections::BTreeMap;

use adit_tunnel::PeerIndex;

pub(crate) use watch::HostRulesWatch;
pub use watch::chains_passed_by;

/// What the host's own rules mean for a data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// The way from one peer to another.
    pub relay: RelayPath,
    /// Chains with rules that the tunnel's frames pass by.
    pub passed_by: Vec<String>,
    /// The peers that a policy of IPsec covers, and the policy.
    pub policies: BTreeMap<PeerIndex, String>,
}

/// The way of a datagram from one peer to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPath {
    /// True if programs relay; false if the host's stack forwards, with its FORWARD rules.
    pub is_direct: bool,
    /// Why.
    pub reason: String,
}

impl Default for RelayPath {
    fn default() -> Self {
        Self { is_direct: false, reason: "this data plane leaves it to the host's stack".to_owned() }
    }
}
