//! What outlives the process: a directory of pins an overlay.
//!
//! ```text
//!   NAME/net-4026531840/encap-7            the program on interface 7 of that network namespace
//!                      /decap-3
//!                      /decap-3-clsact-7   the same where there is no TCX: a filter with handle 7
//!                      /maps/PEERS …       the maps of those programs
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::TcAttachType;

use super::attach::{self, AttachPoint};
use super::error::EbpfError;

/// The pins of one overlay in the calling thread's network namespace.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    directory: PathBuf,
}

/// A program that an earlier process left attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pinned {
    pub(super) path: PathBuf,
    pub(super) place: AttachPoint,
    /// The handle of the filter, where it is one.
    pub(super) clsact: Option<u32>,
}

const MAPS: &str = "maps";
const FRESH: &str = "maps-new";

impl Pins {
    /// Those of an overlay.
    pub(super) fn of(overlay: &Path) -> Result<Self, EbpfError> {
        Ok(Self { directory: overlay.join(own_directory()?) })
    }

    /// Makes the directory. What an overlay of that name had in another network namespace goes: it is one overlay.
    pub(super) fn make(&self) -> Result<(), EbpfError> {
        let directory = &self.directory;
        fs::create_dir_all(directory).map_err(failed("make the directory", directory))?;
        for entry in list(directory.parent().unwrap_or(directory))? {
            if entry != *directory {
                remove_tree(&entry)?;
            }
        }
        Ok(())
    }

    pub(super) fn path(&self, place: AttachPoint, clsact: Option<u32>) -> PathBuf {
        let AttachPoint { kind, device } = place;
        let kind = match kind {
            TcAttachType::Egress => "encap",
            _ => "decap",
        };
        let how = clsact.map(|handle| format!("-clsact-{handle}")).unwrap_or_default();
        self.directory.join(format!("{kind}-{device}{how}"))
    }

    /// Detaches the programs that are pinned elsewhere than at `paths`.
    pub(super) fn remove_others(&self, paths: &[PathBuf]) -> Result<(), EbpfError> {
        for pinned in list(&self.directory)?.into_iter().filter_map(parse) {
            if !paths.contains(&pinned.path) {
                attach::detach_filter(&pinned);
                fs::remove_file(&pinned.path).map_err(failed("remove", &pinned.path))?;
            }
        }
        Ok(())
    }

    /// Where the maps of programs go that are being loaded: empty.
    pub(super) fn fresh_maps(&self) -> Result<PathBuf, EbpfError> {
        let fresh = self.directory.join(FRESH);
        remove_tree(&fresh)?;
        fs::create_dir_all(&fresh).map_err(failed("make the directory", &fresh))?;
        Ok(fresh)
    }

    /// The maps of the programs that are attached.
    pub(super) fn maps(&self) -> PathBuf {
        self.directory.join(MAPS)
    }

    /// The programs of [`Pins::fresh_maps`] are attached now.
    pub(super) fn settle_maps(&self) -> Result<(), EbpfError> {
        remove_tree(&self.maps())?;
        let fresh = self.directory.join(FRESH);
        fs::rename(&fresh, self.maps()).map_err(failed("rename", &fresh))
    }
}

/// What a start has pinned that has not come to its end yet; gone with this, unless it has. What an earlier process had
/// pinned stays.
pub(super) struct PinGuard(Option<Pins>);

impl PinGuard {
    pub(super) fn of(pins: Option<&Pins>) -> Self {
        Self(pins.cloned())
    }

    /// The start has come to its end.
    pub(super) fn settle(&mut self) {
        self.0 = None;
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let Some(pins) = &self.0 else { return };
        let removed = match pins.directory.parent() {
            Some(overlay) if !pins.maps().is_dir() => remove(overlay),
            _ => remove_tree(&pins.directory.join(FRESH)),
        };
        if let Err(error) = removed {
            tracing::error!(%error, "cannot remove what a failed start had pinned");
        }
    }
}

/// Whether an overlay has any pins.
#[must_use]
pub fn exist(overlay: &Path) -> bool {
    overlay.is_dir()
}

/// Detaches every program of an overlay and removes its pins. In the network namespace that it lives in,
/// where there is no TCX: filters do not go with their pins.
///
/// # Errors
/// A pin cannot be removed.
pub fn remove(overlay: &Path) -> Result<(), EbpfError> {
    if let Ok(own) = own_directory() {
        for pinned in list(&overlay.join(own))?.into_iter().filter_map(parse) {
            attach::detach_filter(&pinned);
        }
    }
    remove_tree(overlay)
}

/// Whether the programs of an overlay are pinned and attached. In the network namespace that
/// it lives in.
pub(super) fn check(overlay: &Path) -> Result<(), String> {
    let told = |error: EbpfError| error.to_string();
    let directory = overlay.join(own_directory().map_err(told)?);
    let pinned: Vec<Pinned> = list(&directory).map_err(told)?.into_iter().filter_map(parse).collect();
    for (kind, name) in [(TcAttachType::Egress, "adit_encap"), (TcAttachType::Ingress, "adit_decap")] {
        if !pinned.iter().any(|pinned| pinned.place.kind == kind) {
            return Err(format!("the pin of {name} is gone, and with it the program"));
        }
    }
    if !directory.join(MAPS).is_dir() {
        return Err("the pins of the programs' maps are gone".to_owned());
    }
    pinned.iter().try_for_each(attach::check)
}

fn own_directory() -> Result<String, EbpfError> {
    const OWN: &str = "/proc/thread-self/ns/net";
    let namespace = fs::metadata(OWN).map_err(failed("look at", Path::new(OWN)))?;
    Ok(format!("net-{}", namespace.ino()))
}

fn parse(path: PathBuf) -> Option<Pinned> {
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
    Some(Pinned { place: AttachPoint { kind, device }, clsact, path })
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, EbpfError> {
    match fs::read_dir(directory) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", directory))).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("list", directory)(error)),
    }
}

fn remove_tree(path: &Path) -> Result<(), EbpfError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EbpfError {
    let path = path.to_owned();
    move |source| EbpfError::File { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let pins = Pins { directory: PathBuf::from("/nowhere") };
        for kind in [TcAttachType::Egress, TcAttachType::Ingress] {
            for clsact in [None, Some(7)] {
                let place = AttachPoint { kind, device: 31 };
                let path = pins.path(place, clsact);
                assert_eq!(parse(path.clone()), Some(Pinned { path, place, clsact }));
            }
        }
        for other in ["maps", "maps-new", "encap-", "decap-x", "decap-3-clsact", "decap-3-other-4"] {
            assert_eq!(parse(PathBuf::from(other)), None, "{other}");
        }
    }
}
