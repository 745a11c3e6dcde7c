//! Pins: the directory of an overlay's programs and maps in the BPF file system. They outlive the
//! process.
//!
//! ```text
//!   NAME/net-4026531840/encap-7            the program on interface 7 of that network namespace
//!                      /decap-3
//!                      /decap-3-clsact-7   the same without TCX: a filter with handle 7
//!                      /maps/PEERS …       the maps of those programs
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::attach;
use super::attach_point::Pinned;
use super::error::EbpfError;

/// The pins of one overlay in the calling thread's network namespace.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    directory: PathBuf,
}

/// Maps of the attached programs.
const MAPS: &str = "maps";
/// Maps of programs that are being loaded.
const NEW_MAPS: &str = "maps-new";

impl Pins {
    /// The pins below the directory of an overlay.
    pub(super) fn of(overlay: &Path) -> Result<Self, EbpfError> {
        Ok(Self { directory: overlay.join(own_directory()?) })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory. Removes what an overlay of that name has in another network namespace:
    /// it is the same overlay.
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

    /// Detaches all programs but those pinned at `paths`.
    pub(super) fn remove_others(&self, paths: &[PathBuf]) -> Result<(), EbpfError> {
        for pinned in list(&self.directory)?.into_iter().filter_map(Pinned::parse) {
            if !paths.contains(&pinned.path) {
                attach::detach_filter(&pinned);
                fs::remove_file(&pinned.path).map_err(failed("remove", &pinned.path))?;
            }
        }
        Ok(())
    }

    /// Makes an empty directory for the maps of programs that are being loaded.
    pub(super) fn new_maps(&self) -> Result<PathBuf, EbpfError> {
        let new = self.directory.join(NEW_MAPS);
        remove_tree(&new)?;
        fs::create_dir_all(&new).map_err(failed("make the directory", &new))?;
        Ok(new)
    }

    /// The directory of the attached programs' maps.
    pub(super) fn maps(&self) -> PathBuf {
        self.directory.join(MAPS)
    }

    /// Puts the directory of [`Pins::new_maps`] in the place of [`Pins::maps`]: its programs are
    /// attached now.
    pub(super) fn settle_maps(&self) -> Result<(), EbpfError> {
        remove_tree(&self.maps())?;
        let new = self.directory.join(NEW_MAPS);
        fs::rename(&new, self.maps()).map_err(failed("rename", &new))
    }
}

/// Removes what a start has pinned, unless the start is completed. Keeps what an earlier process
/// had pinned.
pub(super) struct PinGuard(Option<Pins>);

impl PinGuard {
    pub(super) fn new(pins: Option<&Pins>) -> Self {
        Self(pins.cloned())
    }

    /// The start is complete: keeps the pins.
    pub(super) fn settle(&mut self) {
        self.0 = None;
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        let Some(pins) = &self.0 else { return };
        let removed = match pins.directory.parent() {
            Some(overlay) if !pins.maps().is_dir() => remove(overlay),
            _ => remove_tree(&pins.directory.join(NEW_MAPS)),
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

/// Detaches every program of an overlay and removes its pins. Without TCX the caller must be in the
/// overlay's network namespace, because filters outlive their pins.
///
/// # Errors
/// Fails if a pin cannot be removed.
pub fn remove(overlay: &Path) -> Result<(), EbpfError> {
    if let Ok(own) = own_directory() {
        for pinned in list(&overlay.join(own))?.into_iter().filter_map(Pinned::parse) {
            attach::detach_filter(&pinned);
        }
    }
    remove_tree(overlay)
}

/// Whether the maps of an overlay's programs are pinned. The caller must be in the overlay's
/// network namespace.
pub(super) fn check(overlay: &Path) -> Result<(), String> {
    let directory = overlay.join(own_directory().map_err(|error| error.to_string())?);
    match directory.join(MAPS).is_dir() {
        true => Ok(()),
        false => Err("the pins of the programs' maps are gone".to_owned()),
    }
}

fn own_directory() -> Result<String, EbpfError> {
    const OWN: &str = "/proc/thread-self/ns/net";
    let namespace = fs::metadata(OWN).map_err(failed("look at", Path::new(OWN)))?;
    Ok(format!("net-{}", namespace.ino()))
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
