//! Keeps the host's own tunnel drivers from answering our peers with Port Unreachable.
//!
//! A raw socket keeps the IP input from answering Protocol Unreachable for a protocol that the
//! kernel does not know. Where `tunnel4` is loaded (by `ipip` or `sit`) the kernel knows protocol
//! 4, and only a rule of nf_tables helps.

use std::net::Ipv4Addr;

use adit_linux::nftables::Tunnel4DropRule;
use adit_tunnel::Tunnel;

/// What is known of `tunnel4`. Only a plane without an offload needs it: what an offload declines
/// does not reach the host's IP input.
pub(super) enum Tunnel4State {
    /// Not loaded yet.
    NotLoaded { table: String },
    /// Loaded, and kept from answering while this exists.
    Silenced { table: String, _rule: Tunnel4DropRule },
    /// Loaded, and it answers: the rule could not be set.
    Answering,
}

impl Tunnel4State {
    pub(super) fn new(device: &str) -> Self {
        Self::NotLoaded { table: format!("adit-{device}") }
    }

    /// Whether the rule is set, which names the peers.
    pub(super) fn is_silenced(&self) -> bool {
        matches!(self, Self::Silenced { .. })
    }

    /// Removes the rule. The next look sets it anew, for other peers.
    pub(super) fn renew(&mut self) {
        if let Self::Silenced { table, .. } = self {
            *self = Self::NotLoaded { table: std::mem::take(table) };
        }
    }

    /// Looks whether it has been loaded, and sets the rule.
    pub(super) fn look(&mut self, tunnel: &Tunnel, underlay: Ipv4Addr) {
        let Self::NotLoaded { table } = self else { return };
        if !Tunnel4DropRule::is_needed() {
            return;
        }
        // The rule would drop what the stack has to pass on.
        let is_ours = |index| !tunnel.is_left_to_stack(index);
        let peers = tunnel.peers().filter(|(index, _)| is_ours(*index));
        let peers: Vec<Ipv4Addr> = peers.map(|(_, peer)| peer.underlay).collect();
        *self = match Tunnel4DropRule::start(table, underlay, &peers) {
            Ok(rule) => Self::Silenced { table: table.clone(), _rule: rule },
            Err(error) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers peers with Port Unreachable");
                Self::Answering
            }
        };
    }
}
