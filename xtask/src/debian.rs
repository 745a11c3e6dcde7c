//! Debian's packages: what the tests and the benchmarks want beside Rust.

use std::process::Command;

use crate::run;

/// What the tests need: the interoperation tests decode and build packets with tcpdump and scapy,
/// the benchmark's test runs iperf3, nftables has the kernel track connections, systemd and strace
/// judge the unit, and the others are Debian's own that a small container may lack (`ip`,
/// `setpriv`, `script`).
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

/// Installs packages where we may; gives back those that are missing after all.
pub(crate) fn install(packages: &[&str]) -> Vec<String> {
    let missing = || -> Vec<String> {
        packages.iter().filter(|package| !is_installed(package)).map(|&package| package.to_owned()).collect()
    };
    let wanted = missing();
    if wanted.is_empty() || !is_root() || run::output(Command::new("apt-get").arg("--version")).is_none() {
        return wanted;
    }
    println!("installing {}", wanted.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command
            .args(["-qq", "-o", "DPkg::Lock::Timeout=300"])
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive");
        // What is still missing afterwards is told by name.
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
