//! Needs of tests that any crate's tests may have. What only a crate can check, such as whether the
//! kernel takes its programs, is a function in that crate.
//!
//! Each returns an error that completes "needs ...".

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The right to make network namespaces and to configure what is in them.
///
/// # Errors
/// The process lacks `CAP_NET_ADMIN`, `CAP_NET_RAW` or `CAP_SYS_ADMIN`.
pub fn root() -> Result<(), String> {
    const NEEDED: [u32; 3] = [12, 13, 21];
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|held| u64::from_str_radix(held.trim(), 16).ok()).unwrap_or(0);
    let is_met = NEEDED.iter().all(|&number| held & 1 << number != 0);
    if is_met { Ok(()) } else { Err("root (CAP_NET_ADMIN)".to_owned()) }
}

/// The packet filter's program, which tests hold against Adit's own rules.
///
/// # Errors
/// It is not installed.
pub fn nft() -> Result<(), String> {
    file("/usr/sbin/nft", "nft (Debian: `apt install nftables`)")
}

/// # Errors
/// It is not installed.
pub fn tcpdump() -> Result<(), String> {
    program("tcpdump", "--version", "tcpdump (Debian: `apt install tcpdump`)")
}

/// # Errors
/// It is not installed for `/usr/bin/python3`.
pub fn scapy() -> Result<(), String> {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-c", "import scapy.all"]).output().is_ok_and(|output| output.status.success())
    });
    if found { Ok(()) } else { Err("scapy (Debian: `apt install python3-scapy`)".to_owned()) }
}

/// # Errors
/// It is not installed.
pub fn strace() -> Result<(), String> {
    program("strace", "-V", "strace (Debian: `apt install strace`)")
}

/// The program that is a terminal to another program.
///
/// # Errors
/// It is not installed.
pub fn script() -> Result<(), String> {
    program("script", "--version", "script (Debian: `apt install bsdutils`)")
}

/// # Errors
/// It is not installed.
pub fn iperf3() -> Result<(), String> {
    program("iperf3", "--version", "iperf3 (Debian: `apt install iperf3`)")
}

/// What starts a program with fewer rights: unshare and setpriv.
///
/// # Errors
/// One of them is not installed.
pub fn util_linux() -> Result<(), String> {
    const LACK: &str = "unshare and setpriv (Debian: `apt install util-linux`)";
    program("unshare", "--version", LACK)?;
    program("setpriv", "--version", LACK)
}

/// What judges a unit without a running systemd.
///
/// # Errors
/// It is not installed.
pub fn systemd_analyze() -> Result<(), String> {
    program("systemd-analyze", "--version", "systemd-analyze (Debian: `apt install systemd`)")
}

/// What boots a machine of its own from a directory.
///
/// # Errors
/// It is not installed.
pub fn nspawn() -> Result<(), String> {
    file("/usr/bin/systemd-nspawn", "systemd-nspawn (Debian: `apt install systemd-container`)")
}

/// The Debian packages that `cargo xtask deb --test` builds and names in the environment.
///
/// # Errors
/// The environment names none.
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
