//! The guest's kernel and busybox: Debian packages that are downloaded and unpacked once, and never
//! installed on this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{debian, run};

/// A kernel that the guest can run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Version {
    /// Debian 12's, the oldest that Adit supports. It has no TCX.
    #[default]
    Linux6_1,
    /// The newer one that Debian 12 offers, with TCX.
    Linux6_12,
}

impl Version {
    /// Parses the value of `--kernel`.
    ///
    /// # Errors
    /// Fails if there is no such kernel.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let found = [Self::Linux6_1, Self::Linux6_12].into_iter().find(|version| version.as_str() == text);
        found.ok_or_else(|| format!("the guest has no kernel {text}: expected 6.1 or 6.12"))
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Linux6_1 => "6.1",
            Self::Linux6_12 => "6.12",
        }
    }

    /// A package that depends on the newest package of this kernel. Debian's kernel for clouds has
    /// no 9p, by which the guest reads this machine's files.
    fn meta_package(self) -> &'static str {
        match self {
            Self::Linux6_1 => "linux-image-amd64",
            Self::Linux6_12 => "linux-image-6.12-amd64",
        }
    }

    /// Name of the directory that it is unpacked in.
    fn directory(self) -> String {
        format!("kernel-{}", self.as_str())
    }
}

/// Its program needs no library, so it runs before the guest has a root.
const BUSYBOX: &str = "busybox-static";

/// An unpacked kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its version as `uname -r` prints it.
    pub(crate) release: String,
    /// The file that QEMU boots.
    pub(crate) image: PathBuf,
    /// `lib/modules`, which has one directory, named after the release.
    pub(crate) modules: PathBuf,
    /// The statically linked `busybox`.
    pub(crate) busybox: PathBuf,
}

impl Kernel {
    /// The kernel of that version in `directory`. Downloads it if it is not there yet.
    ///
    /// # Errors
    /// Fails if the packages cannot be downloaded or unpacked.
    pub(crate) fn in_directory(directory: &Path, version: Version) -> Result<Self, String> {
        let unpacked = directory.join(version.directory());
        if !unpacked.is_dir() {
            // It gets its name when it is complete, so that an interrupted download is repeated.
            let partial = directory.join("kernel.partial");
            clear(&partial)?;
            let package = kernel_package(version.meta_package())?;
            println!("downloading {package} into {}", unpacked.display());
            for package in [package.as_str(), BUSYBOX] {
                fetch(package, &partial)?;
            }
            let kernel = Self::unpacked(&partial)?;
            let depmod = ["-b".as_ref(), partial.as_os_str(), kernel.release.as_ref()];
            run::check(Command::new("/sbin/depmod").args(depmod))?;
            fs::rename(&partial, &unpacked).map_err(|error| {
                format!("cannot rename {} to {}: {error}", partial.display(), unpacked.display())
            })?;
        }
        Self::unpacked(&unpacked)
    }

    fn unpacked(root: &Path) -> Result<Self, String> {
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)
            .ok()
            .and_then(|mut found| found.next()?.ok()?.file_name().into_string().ok())
            .ok_or_else(|| {
                format!("{} contains no kernel modules: remove {0} and try again", root.display())
            })?;
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        Ok(Self { release, image, modules, busybox: root.join("bin/busybox") })
    }
}

/// The package that `meta_package` depends on.
fn kernel_package(meta_package: &str) -> Result<String, String> {
    let query = || {
        let listed = run::output(Command::new("apt-cache").args(["depends", "--important", meta_package]))?;
        let package = listed.lines().find_map(|line| line.trim().strip_prefix("Depends: "))?;
        Some(package.to_owned())
    };
    let found = query().or_else(|| {
        // A fresh container has no package lists yet.
        if debian::is_root() {
            let _lock = debian::lock_apt();
            let _ = run::output(Command::new("apt-get").args(["-qq", "update"]));
        }
        query()
    });
    found.ok_or_else(|| {
        format!(
            "apt knows no package {meta_package}, which provides the guest's kernel: \
             on Debian, run `apt-get update` as root"
        )
    })
}

/// Downloads a package and unpacks it into `root`, which need not exist.
fn fetch(package: &str, root: &Path) -> Result<(), String> {
    let downloads = root.join("download");
    fs::create_dir_all(&downloads)
        .map_err(|error| format!("cannot make {}: {error}", downloads.display()))?;
    let download = || {
        // apt's own user may not be able to write here.
        let arguments = ["-qq", "-o", "APT::Sandbox::User=root", "download", package];
        run::output(Command::new("apt-get").args(arguments).current_dir(&downloads))
    };
    if download().is_none() {
        // Debian may have replaced the version that the lists name.
        if debian::is_root() {
            let _lock = debian::lock_apt();
            let _ = run::output(Command::new("apt-get").args(["-qq", "update"]));
        }
        download().ok_or_else(|| {
            format!(
                "cannot download the package {package}: check the network and run `apt-get update`; \
                 `apt-get download {package}` shows the cause"
            )
        })?;
    }
    let file = fs::read_dir(&downloads)
        .ok()
        .and_then(|mut found| Some(found.next()?.ok()?.path()))
        .ok_or_else(|| format!("apt-get downloaded no file for {package}"))?;
    run::check(Command::new("dpkg").arg("-x").arg(&file).arg(root))?;
    fs::remove_dir_all(&downloads).map_err(|error| format!("cannot remove {}: {error}", downloads.display()))
}

/// Removes a directory and its contents, if it exists.
pub(crate) fn clear(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_by_its_number_and_has_a_directory_of_its_own() {
        assert_eq!(Version::parse("6.1"), Ok(Version::Linux6_1));
        assert_eq!(Version::parse("6.12"), Ok(Version::Linux6_12));
        assert!(Version::parse("5.10").unwrap_err().contains("expected 6.1 or 6.12"));
        assert_ne!(Version::Linux6_1.directory(), Version::Linux6_12.directory());
    }
}
