//! Attach points of programs, and the pins that name them.

use std::path::{Path, PathBuf};

use adit_policy::bpf::maps::program;
use aya::programs::TcAttachType;

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttachPoint {
    /// Egress to encapsulate, ingress to decapsulate.
    pub(super) kind: TcAttachType,
    /// Index of the interface.
    pub(super) device: u32,
}

impl AttachPoint {
    /// The egress of the tunnel interface.
    pub(super) fn egress(device: u32) -> Self {
        Self { kind: TcAttachType::Egress, device }
    }

    /// The ingress of an underlay interface.
    pub(super) fn ingress(device: u32) -> Self {
        Self { kind: TcAttachType::Ingress, device }
    }

    /// The program that belongs there.
    pub(super) fn program(self) -> &'static str {
        match self.kind {
            TcAttachType::Egress => program::ENCAP,
            _ => program::DECAP,
        }
    }

    /// The path of its pin. `clsact` is the handle of the filter where there is no TCX.
    pub(super) fn pin(self, directory: &Path, clsact: Option<u32>) -> PathBuf {
        let Self { kind, device } = self;
        let kind = match kind {
            TcAttachType::Egress => "encap",
            _ => "decap",
        };
        let filter = clsact.map(|handle| format!("-clsact-{handle}")).unwrap_or_default();
        directory.join(format!("{kind}-{device}{filter}"))
    }
}

/// A program that an earlier process left attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) path: PathBuf,
    pub(super) point: AttachPoint,
    /// The handle of the filter; `None` for a TCX link.
    pub(super) clsact: Option<u32>,
}

impl Pinned {
    /// Reads the name of a pin, as [`AttachPoint::pin`] writes it.
    pub(super) fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let mut words = name.split('-');
        let kind = match words.next()? {
            "encap" => TcAttachType::Egress,
            "decap" => TcAttachType::Ingress,
            _ => return None,
        };
        let device = words.next()?.parse().ok()?;
        let clsact = match (words.next(), words.next()) {
            (None, _) => None,
            (Some("clsact"), Some(handle)) => Some(handle.parse().ok()?),
            _ => return None,
        };
        Some(Self { point: AttachPoint { kind, device }, clsact, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_pin_says_where_its_program_is_attached() {
        for kind in [TcAttachType::Egress, TcAttachType::Ingress] {
            for clsact in [None, Some(7)] {
                let point = AttachPoint { kind, device: 31 };
                let path = point.pin(Path::new("/nowhere"), clsact);
                assert_eq!(Pinned::parse(path.clone()), Some(Pinned { path, point, clsact }));
            }
        }
        for other in ["maps", "maps-new", "encap-", "decap-x", "decap-3-clsact", "decap-3-other-4"] {
            assert_eq!(Pinned::parse(PathBuf::from(other)), None, "{other}");
        }
    }
}
