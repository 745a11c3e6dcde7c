//! The fast path: two programs inside the kernel that carry what is usual, in front of the userspace plane
//! on the very same devices, which takes what they decline.
//!
//! ```text
//!   device, egress ──► adit_encap ──► underlay          adit-ebpf has the programs,
//!        └─ declined ──► the device's queue ──► userspace plane
//!   underlay, ingress ──► adit_decap ──► device, ingress
//!        └─ declined ──► packet socket ──► userspace plane
//! ```
//!
//! A start never changes maps that programs are using: it loads new programs with maps of their own, fills
//! them, and then puts each program in the place of its predecessor, in one step. So every packet meets one
//! whole configuration, whatever the process dies of and whenever. Peers alone come, go and change under
//! programs that run: by steps of which none concerns a peer that stays as it is ([`DataPlane::amend`]).

mod attach;
mod counts;
mod error;
mod fast_path;
mod loaded;
mod pins;
#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_linux::tun::Tun;
use adit_tunnel::{Instant, TableDelta, Totals, Tunnel};

use crate::plane::{DataPlane, PlaneKind};
use crate::userspace::UserspacePlane;
use counts::Counts;

pub use attach::Hook;
pub use error::EbpfError;
pub(crate) use fast_path::{FastPath, NextHop};
pub use pins::{exist as pins_exist, remove as remove_pins};

/// Where the overlay of that name keeps its programs; mounts the BPF file system where nobody has yet.
///
/// # Errors
/// There is none, and it cannot be mounted.
pub fn pins_of(overlay: &str) -> Result<PathBuf, EbpfError> {
    Ok(adit_linux::bpf::bpffs::root()?.join("adit").join(overlay))
}

/// How the programs are put to use.
#[derive(Debug, Clone)]
pub struct EbpfOptions {
    /// Where they are pinned, to outlive the process; `None`: they go with it.
    pub pins: Option<PathBuf>,
    /// How they are attached.
    pub hook: Hook,
}

impl Default for EbpfOptions {
    /// For this process only, in the way that suits this kernel.
    fn default() -> Self {
        Self { pins: None, hook: Hook::of_this_kernel() }
    }
}

/// A running eBPF data plane.
pub struct EbpfPlane {
    userspace: UserspacePlane,
    counts: Arc<Counts>,
    hook: Hook,
    pins: Option<PathBuf>,
}

impl EbpfPlane {
    /// Starts forwarding as [`UserspacePlane::start`] does, with the programs in front. `device` is the
    /// index of `tun`'s interface.
    ///
    /// # Errors
    /// The programs cannot be loaded or attached, or what hinders the userspace plane. What was pinned by
    /// then is gone, unless an earlier process had pinned it.
    pub fn start(
        tunnel: Arc<Tunnel>,
        tun: Tun,
        device: u32,
        underlay: Ipv4Addr,
        options: &EbpfOptions,
    ) -> Result<Self, EbpfError> {
        let fast_path = FastPath::load(&tunnel, device, tun.name(), options)?;
        let counts = fast_path.counts();
        let userspace = UserspacePlane::start_behind(tunnel, tun, underlay, Some(fast_path))?;
        Ok(Self { userspace, counts, hook: options.hook, pins: options.pins.clone() })
    }

    /// How the programs are attached.
    #[must_use]
    pub fn hook(&self) -> Hook {
        self.hook
    }
}

/// Whether this process may load the programs into this kernel, without attaching them: the verifier's
/// word included.
///
/// # Errors
/// Why not.
pub fn probe(tunnel: &Tunnel) -> Result<(), EbpfError> {
    loaded::LoadedObject::load(tunnel, adit_policy::bpf::maps::Settings::default(), 0, None::<&Path>)
        .map(drop)
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
        self.counts.add_to(&mut totals);
        totals
    }

    fn own_totals(&self) -> Totals {
        // Without pins the programs' counts end with them.
        if self.pins.is_none() {
            return self.totals();
        }
        let mut own = self.userspace.totals();
        self.counts.add_late_to(&mut own);
        own
    }

    fn check(&self) -> Result<(), String> {
        self.userspace.check()?;
        self.pins.as_deref().map_or(Ok(()), pins::check)
    }

    fn now(&self) -> Instant {
        self.userspace.now()
    }

    fn failure(&self) -> Option<&'static str> {
        self.userspace.failure()
    }

    fn shutdown(&mut self) {
        self.userspace.shutdown();
    }
}
