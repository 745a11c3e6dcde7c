//! Checks of needs that tests of any crate may have. A need that only one crate can check, such as
//! whether the kernel accepts its eBPF programs, is a function in that crate.
//!
//! The error of each completes "needs ..." and names what is missing.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Capabilities to create and configure network namespaces.
///
/// # Errors
/// Fails if the process lacks `CAP_NET_ADMIN`, `CAP_NET_RAW` or `CAP_SYS_ADMIN`.
pub fn root() -> Result<(), String> {
    const NEEDED: [u32; 3] = [12, 13, 21];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()).unwrap_or(0);
    let is_met = NEEDED.iter().all(|&number| held & 1 << number != 0);
    if is_met { Ok(()) } else { Err("root (CAP_NET_ADMIN)".to_owned()) }
}

/// nftables' program, whose listing tests compare with the rules that Adit writes.
///
/// # Errors
/// Fails if it is not installed.
pub fn nft() -> Result<(), String> {
    file("/usr/sbin/nft", "nft (Debian: `apt install nftables`)")
}

/// tcpdump, which decodes packets independently of Adit.
///
/// # Errors
/// Fails if it is not installed.
pub fn tcpdump() -> Result<(), String> {
    program("tcpdump", "--version", "tcpdump (Debian: `apt install tcpdump`)")
}

/// scapy, which builds and decodes packets independently of Adit.
///
/// # Errors
/// Fails if it is not installed for `/usr/bin/python3`.
pub fn scapy() -> Result<(), String> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", "import scapy.all"]).output().is_ok_and(|output| output.status.success())
    });
    if found { Ok(()) } else { Err("scapy (Debian: `apt install python3-scapy`)".to_owned()) }
}

/// strace, which lists the system calls of a program.
///
/// # Errors
/// Fails if it is not installed.
pub fn strace() -> Result<(), String> {
    program("strace", "-V", "strace (Debian: `apt install strace`)")
}

/// script(1), which runs a program in a terminal.
///
/// # Errors
/// Fails if it is not installed.
pub fn script() -> Result<(), String> {
    program("script", "--version", "script (Debian: `apt install bsdutils`)")
}

/// iperf3, which measures throughput.
///
/// # Errors
/// Fails if it is not installed.
pub fn iperf3() -> Result<(), String> {
    program("iperf3", "--version", "iperf3 (Debian: `apt install iperf3`)")
}

/// unshare and setpriv, which start a program with fewer rights.
///
/// # Errors
/// Fails if one of them is not installed.
pub fn util_linux() -> Result<(), String> {
    const LACK: &str = "unshare and setpriv (Debian: `apt install util-linux`)";
    program("unshare", "--version", LACK)?;
    program("setpriv", "--version", LACK)
}

/// systemd-analyze, which checks a unit without a running systemd.
///
/// # Errors
/// Fails if it is not installed.
pub fn systemd_analyze() -> Result<(), String> {
    program("systemd-analyze", "--version", "systemd-analyze (Debian: `apt install systemd`)")
}

/// systemd-nspawn, which boots a container from a directory.
///
/// # Errors
/// Fails if it is not installed.
pub fn nspawn() -> Result<(), String> {
    file("/usr/bin/systemd-nspawn", "systemd-nspawn (Debian: `apt install systemd-container`)")
}

/// systemd-udevd and systemd-networkd, which a booted container starts.
///
/// # Errors
/// Fails if one of them is not installed.
pub fn udev() -> Result<(), String> {
    file("/lib/systemd/systemd-udevd", "systemd-udevd (Debian: `apt install udev`)")?;
    file("/lib/systemd/systemd-networkd", "systemd-networkd (Debian: `apt install systemd`)")
}

/// The Debian packages that `cargo xtask deb --test` builds and names in the environment.
///
/// # Errors
/// Fails if `ADIT_PACKAGE` is not set.
pub fn packages() -> Result<(), String> {
    match std::env::var_os("ADIT_PACKAGE") {
        Some(_) => Ok(()),
        None => Err("the Debian packages: `cargo xtask deb --test` builds them and runs this".to_owned()),
    }
}

fn file(path: &str, lack: &str) -> Result<(), String> {
    if Path::new(path).is_file() { Ok(()) } else { Err(lack.to_owned()) }
}

fn program(name: &str, argument: &str, lack: &str) -> Result<(), String> {
    let found = Command::new(name).arg(argument).output().is_ok_and(|output| output.status.success());
    if found { Ok(()) } else { Err(lack.to_owned()) }
}
