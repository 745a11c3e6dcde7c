//! Keeps the host's own tunnel drivers from answering our peers. A raw socket keeps the IP input quiet about a protocol
//! that nobody speaks; but where `tunnel4` is loaded (by `ipip` or `sit`), somebody does.

use std::net::Ipv4Addr;

use adit_linux::nftables::Tunnel4DropRule;
use adit_tunnel::Tunnel;

/// For a plane without programs: what those decline does not reach the host's IP input.
pub(super) enum Tunnel4State {
    /// None is loaded yet.
    NotLoaded { table: String },
    /// Kept quiet, as long as this lives.
    Quiet { _rule: Tunnel4DropRule },
    /// They answer, and nothing can be done.
    Heard,
}

impl Tunnel4State {
    pub(super) fn of(device: &str) -> Self {
        Self::NotLoaded { table: format!("adit-{device}") }
    }

    /// Looks whether one has been loaded meanwhile.
    pub(super) fn look(&mut self, tunnel: &Tunnel, underlay: Ipv4Addr) {
        let Self::NotLoaded { table } = self else { return };
        if !Tunnel4DropRule::is_needed() {
            return;
        }
        let peers: Vec<Ipv4Addr> = tunnel.peers().map(|(_, peer)| peer.underlay).collect();
        *self = match Tunnel4DropRule::start(table, underlay, &peers) {
            Ok(rule) => Self::Quiet { _rule: rule },
            Err(error) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers peers with Port Unreachable");
                Self::Heard
            }
        };
    }
}
