//! Keeps the kernel from answering our peers' datagrams in our place.
//!
//! A raw socket keeps the IP input from answering Protocol Unreachable for a protocol that the
//! kernel does not know. Where `tunnel4` is loaded (by `ipip` or `sit`) the kernel knows the
//! protocols and answers Port Unreachable, and only a rule of nf_tables helps.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_linux::error::Error;
use adit_linux::nftables::Tunnel4DropRule;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_tunnel::Tunnel;

/// Part of the name of the next table. The rule that replaces another is set before the other is
/// removed, so two tables exist at that moment.
static NEXT_TABLE: AtomicU32 = AtomicU32::new(0);

/// See the module. Only a plane without an offload needs it: what an offload declines does not
/// reach the host's IP input.
pub(super) struct ProtocolClaim {
    protocols: &'static [TunnelProtocol],
    _placeholders: Vec<RawSocket>,
    device: String,
    tunnel4: Mutex<Tunnel4>,
}

/// What is known of `tunnel4`.
enum Tunnel4 {
    /// Not loaded yet.
    NotLoaded,
    /// Loaded, and kept from answering while the rule exists. A rule that is out of date names
    /// other peers.
    Silenced { _rule: Tunnel4DropRule, is_current: bool },
    /// Loaded, and it answers: the rule could not be set.
    Answering,
}

impl ProtocolClaim {
    /// Claims these protocols at the address `underlay`. `device` is the name of an interface of
    /// ours that no other overlay in this network namespace has.
    pub(super) fn open(
        device: &str,
        underlay: Ipv4Addr,
        protocols: &'static [TunnelProtocol],
    ) -> Result<Self, Error> {
        let placeholders = protocols.iter().map(|protocol| RawSocket::placeholder(underlay, *protocol));
        Ok(Self {
            protocols,
            _placeholders: placeholders.collect::<Result<_, _>>()?,
            device: device.to_owned(),
            tunnel4: Mutex::new(Tunnel4::NotLoaded),
        })
    }

    /// Has the next look set the rule anew, for other peers.
    pub(super) fn renew(&self) {
        if let Tunnel4::Silenced { is_current, .. } = &mut *self.lock() {
            *is_current = false;
        }
    }

    /// Looks whether `tunnel4` has been loaded, and sets the rule where it is needed.
    pub(super) fn look(&self, tunnel: &Tunnel, underlay: Ipv4Addr) {
        let mut tunnel4 = self.lock();
        match &*tunnel4 {
            Tunnel4::NotLoaded if !Tunnel4DropRule::is_needed() => return,
            Tunnel4::Answering | Tunnel4::Silenced { is_current: true, .. } => return,
            Tunnel4::NotLoaded | Tunnel4::Silenced { .. } => (),
        }
        // The rule would drop what the stack has to pass on.
        let is_ours = |index| !tunnel.is_left_to_stack(index);
        let peers = tunnel.peers().filter(|(index, _)| is_ours(*index));
        let peers: Vec<Ipv4Addr> = peers.map(|(_, peer)| peer.underlay).collect();
        let table = format!("adit-{}-{}", self.device, NEXT_TABLE.fetch_add(1, Ordering::Relaxed));
        match (Tunnel4DropRule::start(&table, underlay, &peers, self.protocols), &mut *tunnel4) {
            (Ok(rule), _) => *tunnel4 = Tunnel4::Silenced { _rule: rule, is_current: true },
            (Err(error), Tunnel4::Silenced { is_current, .. }) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers new peers with Port Unreachable");
                *is_current = true;
            }
            (Err(error), _) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers peers with Port Unreachable");
                *tunnel4 = Tunnel4::Answering;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tunnel4> {
        self.tunnel4.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
