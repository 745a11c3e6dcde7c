//! Debian packages that tests, benchmarks and builds need besides Rust, and their installation.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::run;

/// The packages of the tests. The interoperation tests decode and build packets with tcpdump and
/// scapy. The benchmark's test runs iperf3. nftables makes the kernel track connections. systemd
/// and strace check the unit. The others provide `ip`, `setpriv` and `script`, which a small
/// container may lack.
pub(crate) const FOR_TESTS: &[&str] = &[
    "tcpdump",
    "python3-scapy",
    "iperf3",
    "iproute2",
    "nftables",
    "util-linux",
    "bsdutils",
    "systemd",
    "strace",
];

/// The packages of the tests that run in the guest only: its kernel has WireGuard and ESP.
pub(crate) const FOR_GUEST_TESTS: &[&str] = &["wireguard-tools", "charon-systemd", "strongswan-swanctl"];

/// Only one step at a time may ask apt: its package lists have a lock that it does not wait for.
static APT: Mutex<()> = Mutex::new(());

/// Keeps other steps from asking apt as long as the returned value exists.
pub(crate) fn lock_apt() -> MutexGuard<'static, ()> {
    APT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs missing packages, if this is Debian and we are root. Returns those that are still
/// missing.
pub(crate) fn install(packages: &[&str]) -> Vec<String> {
    let missing = || -> Vec<String> {
        packages.iter().filter(|package| !is_installed(package)).map(|&package| package.to_owned()).collect()
    };
    let wanted = missing();
    if wanted.is_empty() || !is_root() || run::output(Command::new("apt-get").arg("--version")).is_none() {
        return wanted;
    }
    let _lock = lock_apt();
    println!("installing {}", wanted.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        // A failure shows in the list of packages that are still missing.
        let _ = run::output(&mut command);
    };
    apt(&["update"]);
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(wanted.iter().map(String::as_str));
    apt(&arguments);
    missing()
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0")
}

fn is_installed(package: &str) -> bool {
    run::output(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}
