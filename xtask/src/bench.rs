//! The command `cargo xtask bench`: it installs the other tunnels, builds Adit and `adit-bench`,
//! and runs the benchmark.

use std::process::Command;

use crate::{debian, run};

/// The Debian packages of what is measured. The report names those that could not be installed.
const PACKAGES: &[&str] = &["iperf3", "tinc", "fastd", "openvpn", "iproute2"];
/// The version of vpncloud, which Debian does not package.
const VPNCLOUD: &str = "2.3.0";

/// Runs `adit-bench` with `arguments`. A full run includes the minute of full load (`--soak`).
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let has = |name: &str| arguments.iter().any(|argument| argument.split('=').next() == Some(name));
    if has("--insert") || has("--help") {
        // These measure nothing, so they need neither root nor other tunnels.
        let mut words = vec!["run", "--release", "--quiet", "--locked", "--package", "adit-bench", "--"];
        words.extend(arguments.iter().map(String::as_str));
        return run::cargo(&words, &[]);
    }
    if !debian::is_root() {
        return Err("the benchmark creates network namespaces and tunnels: run it as root".to_owned());
    }
    let missing = debian::install(PACKAGES);
    if !missing.is_empty() {
        println!("not measured, because the packages could not be installed: {}", missing.join(" "));
    }
    let root = run::root();
    let target = run::target_directory()?;
    let tools = target.join("bench-tools");
    if !tools.join("bin/vpncloud").is_file() {
        println!("installing vpncloud {VPNCLOUD} into {}", tools.display());
        let tools = tools.to_string_lossy().into_owned();
        let install = ["install", "--quiet", "--locked", "--root", &tools, "--version", VPNCLOUD, "vpncloud"];
        if let Err(error) = run::cargo(&install, &[]) {
            println!("not measured: vpncloud, which could not be installed: {error}");
        }
    }
    run::cargo(&["build", "--release", "--locked", "--package", "adit", "--package", "adit-bench"], &[])?;

    let mut bench = Command::new(target.join("release/adit-bench"));
    bench.arg("--tools").arg(&tools).args(arguments).current_dir(&root);
    if !["--quick", "--soak", "--only", "--guest"].into_iter().any(has) {
        bench.arg("--soak");
    }
    run::check(&mut bench)
}
