//! Debian's kernel and what else is in the guest but not on this machine: fetched once, never
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{debian, run};

/// Depends on the kernel of the release.
const META_PACKAGE: &str = "linux-image-amd64";
/// Its one program needs no library, which makes it the guest's first.
const BUSYBOX: &str = "busybox-static";

/// A kernel that is there, unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// What boots.
    pub(crate) image: PathBuf,
    /// `lib/modules` with one directory, the release's.
    pub(crate) modules: PathBuf,
    /// `busybox`, linked statically.
    pub(crate) busybox: PathBuf,
}

impl Kernel {
    /// The kernel in `home`, fetched if it is not there yet.
    ///
    /// # Errors
    /// It cannot be fetched, or not unpacked.
    pub(crate) fn in_directory(home: &Path) -> Result<Self, String> {
        let unpacked = home.join("kernel");
        if !unpacked.is_dir() {
            // Under another name until it is whole.
            let partial = home.join("kernel.partial");
            clear(&partial)?;
            let package = kernel_package()?;
            println!("fetching {package} into {}", unpacked.display());
            for package in [package.as_str(), BUSYBOX] {
                fetch(package, &partial)?;
            }
            let kernel = Self::unpacked(&partial)?;
            let depmod = ["-b".as_ref(), partial.as_os_str(), kernel.release.as_ref()];
            run::check(Command::new("/sbin/depmod").args(depmod))?;
            fs::rename(&partial, &unpacked)
                .map_err(|error| format!("cannot name {}: {error}", unpacked.display()))?;
        }
        Self::unpacked(&unpacked)
    }

    fn unpacked(root: &Path) -> Result<Self, String> {
        let modules = root.join("lib/modules");
        let release = fs::read_dir(&modules)
            .ok()
            .and_then(|mut found| found.next()?.ok()?.file_name().into_string().ok())
            .ok_or_else(|| format!("no kernel's modules in {}: remove {0} and try again", root.display()))?;
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        Ok(Self { release, image, modules, busybox: root.join("bin/busybox") })
    }
}

/// The package that has today's kernel of this Debian.
fn kernel_package() -> Result<String, String> {
    let ask = || {
        let said = run::output(Command::new("apt-cache").args(["depends", "--important", META_PACKAGE]))?;
        let package = said.lines().find_map(|line| line.trim().strip_prefix("Depends: "))?;
        Some(package.to_owned())
    };
    let found = ask().or_else(|| {
        // A fresh container has no lists yet.
        if debian::is_root() {
            let _ = run::output(Command::new("apt-get").args(["-qq", "update"]));
        }
        ask()
    });
    found.ok_or_else(|| {
        format!(
            "apt knows no package {META_PACKAGE}, and the guest's kernel is Debian's: \
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
        // What the lists name may have been replaced since.
        if debian::is_root() {
            let _ = run::output(Command::new("apt-get").args(["-qq", "update"]));
        }
        download().ok_or_else(|| {
            format!(
                "cannot fetch the package {package}; `apt-get download {package}` says why: \
                 no network, or no `apt-get update` yet"
            )
        })?;
    }
    let file = fs::read_dir(&downloads)
        .ok()
        .and_then(|mut found| Some(found.next()?.ok()?.path()))
        .ok_or_else(|| format!("apt-get has downloaded nothing for {package}"))?;
    run::check(Command::new("dpkg").arg("-x").arg(&file).arg(root))?;
    fs::remove_dir_all(&downloads).map_err(|error| format!("cannot remove {}: {error}", downloads.display()))
}

/// Makes sure that nothing is there.
pub(crate) fn clear(directory: &Path) -> Result<(), String> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot empty {}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}
