//! The plane: the userspace plane behind the programs, and the counts of both.

use std::sync::{Arc, Mutex, PoisonError};

use adit_tunnel::{Instant, TableDelta, Totals, Tunnel};

use super::attach::Hook;
use super::attachments::Attachments;
use super::counts::Counts;
use super::error::EbpfError;
use super::fast_path::FastPath;
use super::options::{EbpfOptions, Persistence};
use super::pins;
use super::share::{Carried, Share};
use crate::host_rules::HostRules;
use crate::plane::{CarriedBy, DataPlane, PlaneKind};
use crate::tunnel_interface::TunnelInterface;
use crate::userspace::UserspacePlane;

/// A running eBPF data plane.
pub struct EbpfPlane {
    userspace: UserspacePlane,
    counts: Arc<Counts>,
    attachments: Arc<Attachments>,
    share: Mutex<Share>,
    hook: Hook,
    persistence: Persistence,
}

impl EbpfPlane {
    /// Starts forwarding as [`UserspacePlane::start`] does, with the programs in front.
    ///
    /// # Errors
    /// Fails if the programs cannot be loaded or attached, or if the userspace plane cannot start.
    /// Its pins are then removed, except those of an earlier process.
    pub fn start(
        tunnel: Arc<Tunnel>,
        interface: &TunnelInterface,
        mark: u32,
        options: &EbpfOptions,
    ) -> Result<Self, EbpfError> {
        let fast_path = FastPath::load(&tunnel, interface, mark, options)?;
        let (counts, attachments) = (fast_path.counts(), fast_path.attachments());
        let userspace = UserspacePlane::start_behind(tunnel, interface, mark, Some(fast_path))?;
        Ok(Self {
            userspace,
            counts,
            attachments,
            share: Mutex::default(),
            hook: options.hook,
            persistence: options.persistence.clone(),
        })
    }

    /// How the programs are attached.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }
}

impl DataPlane for EbpfPlane {
    fn kind(&self) -> PlaneKind {
        PlaneKind::Ebpf
    }

    fn tunnel(&self) -> Arc<Tunnel> {
        self.userspace.tunnel()
    }

    fn update_peers(&mut self, tunnel: Arc<Tunnel>, steps: &TableDelta) -> Result<(), String> {
        self.userspace.update_peers(tunnel, steps)
    }

    fn totals(&self) -> Totals {
        let mut totals = self.userspace.totals();
        let userspace = Carried::of(&totals);
        self.counts.add_to(&mut totals);
        let mut share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        share.observe(userspace, Carried::of(&totals));
        totals
    }

    fn carried_by(&self) -> CarriedBy {
        let share = self.share.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = |is_bypassed| if is_bypassed { PlaneKind::Userspace } else { PlaneKind::Ebpf };
        let reason = match (share.is_rx_bypassed(), share.is_tx_bypassed()) {
            (true, _) => Some(self.attachments.why_nothing_arrives()),
            (false, true) => Some("the route to the peer does not leave by Ethernet".to_owned()),
            (false, false) => None,
        };
        CarriedBy { tx: kind(share.is_tx_bypassed()), rx: kind(share.is_rx_bypassed()), reason }
    }

    fn own_totals(&self) -> Totals {
        // Without pins the programs' counts end with them.
        if self.persistence.pins().is_none() {
            return self.totals();
        }
        let mut own = self.userspace.totals();
        self.counts.add_late_to(&mut own);
        own
    }

    fn host_rules(&self) -> Arc<HostRules> {
        self.userspace.host_rules()
    }

    fn check(&self) -> Result<(), String> {
        self.userspace.check()?;
        self.attachments.check()?;
        self.persistence.pins().map_or(Ok(()), pins::check)
    }

    fn now(&self) -> Instant {
        self.userspace.now()
    }

    fn shutdown(&mut self) {
        self.userspace.shutdown();
    }
}
