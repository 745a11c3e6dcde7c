//! Attach points of programs, and the pins that name them.

use std::path::{Path, PathBuf};

use adit_policy::bpf::maps::program;
use aya::programs::TcAttachType;

/// The hook of both programs.
pub(super) const HOOK: TcAttachType = TcAttachType::Ingress;

/// A program of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Program {
    /// Encapsulates what the host sends into the tunnel: attached to the hidden end.
    Encap,
    /// Decapsulates what arrives by an interface of the underlay.
    Decap,
}

impl Program {
    /// Both programs.
    pub(super) const ALL: [Self; 2] = [Self::Encap, Self::Decap];

    /// Its name in the object and in the kernel.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Encap => program::ENCAP,
            Self::Decap => program::DECAP,
        }
    }

    /// What the name of its pin begins with.
    fn prefix(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
        }
    }
}

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct AttachPoint {
    pub(super) program: Program,
    /// Index of the interface.
    pub(super) device: u32,
}

impl AttachPoint {
    /// The path of its pin. `clsact` is the handle of the filter where there is no TCX.
    pub(super) fn pin(self, directory: &Path, clsact: Option<u32>) -> PathBuf {
        let Self { program, device } = self;
        let filter = clsact.map(|handle| format!("-clsact-{handle}")).unwrap_or_default();
        directory.join(format!("{}-{device}{filter}", program.prefix()))
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
        let prefix = words.next()?;
        let program = Program::ALL.into_iter().find(|program| program.prefix() == prefix)?;
        let device = words.next()?.parse().ok()?;
        let clsact = match (words.next(), words.next()) {
            (None, _) => None,
            (Some("clsact"), Some(handle)) => Some(handle.parse().ok()?),
            _ => return None,
        };
        Some(Self { point: AttachPoint { program, device }, clsact, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_pin_says_where_its_program_is_attached() {
        for program in Program::ALL {
            for clsact in [None, Some(7)] {
                let point = AttachPoint { program, device: 31 };
                let path = point.pin(Path::new("/nowhere"), clsact);
                assert_eq!(Pinned::parse(path.clone()), Some(Pinned { path, point, clsact }));
            }
        }
        for other in ["maps", "maps-new", "encap-", "decap-x", "decap-3-clsact", "decap-3-other-4"] {
            assert_eq!(Pinned::parse(PathBuf::from(other)), None, "{other}");
        }
    }
}
