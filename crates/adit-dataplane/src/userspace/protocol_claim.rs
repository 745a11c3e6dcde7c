//! Keeps the kernel from answering our peers' datagrams in our place.
//!
//! A raw socket keeps the IP input from answering Protocol Unreachable for a protocol that the
//! kernel does not know, or Parameter Problem in IPv6. Where a driver is loaded (`tunnel4` by
//! `ipip` or `sit`, `tunnel6` by `ip6_tunnel`) the kernel knows the protocols and answers Port
//! Unreachable, and only a rule of nf_tables helps.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_linux::error::Error;
use adit_linux::family::Family;
use adit_linux::nftables::TunnelDropRule;
use adit_linux::sockets::raw::RawSocket;
use adit_linux::tunnel_protocol::TunnelProtocol;
use adit_tunnel::Tunnel;

/// Part of the name of the next table. The rule that replaces another is set before the other is
/// removed, so two tables exist at that moment.
static NEXT_TABLE: AtomicU32 = AtomicU32::new(0);

/// See the module. Only a plane without an offload needs it: what an offload declines does not
/// reach the host's IP input.
pub(super) struct ProtocolClaim {
    underlay: IpAddr,
    protocols: &'static [TunnelProtocol],
    _placeholders: Vec<RawSocket>,
    device: String,
    driver: Mutex<TunnelDriver>,
}

/// What is known of the kernel's driver for our underlay.
enum TunnelDriver {
    /// Not loaded yet.
    NotLoaded,
    /// Loaded, and kept from answering while the rule exists. A rule that is out of date names
    /// other peers.
    Silenced { _rule: TunnelDropRule, is_current: bool },
    /// Loaded, and it answers: the rule could not be set.
    Answering,
}

impl ProtocolClaim {
    /// Claims these protocols at the address `underlay`. `device` is the name of an interface of
    /// ours that no other overlay in this network namespace has.
    pub(super) fn open(
        device: &str,
        underlay: IpAddr,
        protocols: &'static [TunnelProtocol],
    ) -> Result<Self, Error> {
        let placeholders = protocols.iter().map(|protocol| RawSocket::placeholder(underlay, *protocol));
        Ok(Self {
            underlay,
            protocols,
            _placeholders: placeholders.collect::<Result<_, _>>()?,
            device: device.to_owned(),
            driver: Mutex::new(TunnelDriver::NotLoaded),
        })
    }

    /// Has the next look set the rule anew, for other peers.
    pub(super) fn renew(&self) {
        if let TunnelDriver::Silenced { is_current, .. } = &mut *self.lock() {
            *is_current = false;
        }
    }

    /// Looks whether the driver has been loaded, and sets the rule where it is needed.
    pub(super) fn look(&self, tunnel: &Tunnel) {
        let underlay = self.underlay;
        let mut driver = self.lock();
        match &*driver {
            TunnelDriver::NotLoaded if !TunnelDropRule::is_needed(Family::of(underlay)) => return,
            TunnelDriver::Answering | TunnelDriver::Silenced { is_current: true, .. } => return,
            TunnelDriver::NotLoaded | TunnelDriver::Silenced { .. } => (),
        }
        // The rule would drop what the stack has to pass on.
        let is_ours = |index| !tunnel.is_left_to_stack(index);
        let peers = tunnel.peers().filter(|(index, _)| is_ours(*index));
        let peers = peers.filter_map(|(_, peer)| peer.underlay.of_family_of(underlay));
        let peers: Vec<IpAddr> = peers.collect();
        let table = format!("adit-{}-{}", self.device, NEXT_TABLE.fetch_add(1, Ordering::Relaxed));
        match (TunnelDropRule::start(&table, underlay, &peers, self.protocols), &mut *driver) {
            (Ok(rule), _) => *driver = TunnelDriver::Silenced { _rule: rule, is_current: true },
            (Err(error), TunnelDriver::Silenced { is_current, .. }) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers new peers with Port Unreachable");
                *is_current = true;
            }
            (Err(error), _) => {
                tracing::warn!(%error, "the kernel's tunnel driver answers peers with Port Unreachable");
                *driver = TunnelDriver::Answering;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, TunnelDriver> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
