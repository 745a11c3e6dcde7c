//! The eBPF data plane: two programs inside the kernel carry ordinary packets, and the userspace
//! plane on the same interfaces takes what they decline.
//!
//! ```text
//!   tunnel interface ──► hidden end, ingress: adit_encap ──► underlay
//!        └─ declined ──► packet socket ──► userspace plane
//!   underlay, ingress: adit_decap ──► hidden end, egress ──► tunnel interface
//!        └─ declined ──► packet socket ──► userspace plane
//! ```
//!
//! A start never changes maps that programs are using. It loads new programs with maps of their
//! own, fills the maps, and then replaces each program in one step. So every packet meets one whole
//! configuration, even if the process dies. Only peers come, go and change under running programs,
//! by steps that do not touch the other peers
//! ([`DataPlane::update_peers`](crate::DataPlane::update_peers)).
//!
//! The programs are in `crates/adit-ebpf`.

mod attach;
mod attach_point;
mod attachments;
mod counts;
mod error;
mod fast_path;
mod loaded;
mod options;
mod path_slots;
mod pins;
mod plane;
mod share;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use adit_policy::bpf::maps::Settings;
use adit_tunnel::Tunnel;

pub use attach::{Hook, remove_filters};
pub use error::EbpfError;
pub use options::{EbpfOptions, Persistence};
pub use pins::{exist as pins_exist, remove as remove_pins};
pub use plane::EbpfPlane;

/// The directory of an overlay's pins. Mounts the BPF file system if nobody has yet. `None`: none
/// outlives this process.
///
/// # Errors
/// Fails if there is no BPF file system and it cannot be mounted, or if the directory of all pins
/// cannot be made.
pub fn pins_of(overlay: &str) -> Result<Option<PathBuf>, EbpfError> {
    Ok(adit_linux::bpf::bpffs::directory()?.map(|directory| directory.join(overlay)))
}

/// Loads the programs without attaching them, to see whether this process may and whether the
/// kernel's verifier accepts them.
///
/// # Errors
/// Fails if the programs cannot be loaded; the error has the kernel's reason.
pub fn probe(tunnel: &Tunnel) -> Result<(), EbpfError> {
    let is_preemptible = adit_linux::bpf::programs_are_preemptible();
    loaded::LoadedObject::load(tunnel, Settings::default(), None::<&Path>, is_preemptible).map(drop)
}
