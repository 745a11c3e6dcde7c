//! `cargo xtask bench`: installs what Adit is measured against, builds what is measured, measures.

use std::process::Command;

use crate::{debian, run};

/// Debian's packages. What cannot be installed is told in the report, not left out.
const PACKAGES: &[&str] = &["iperf3", "tinc", "fastd", "openvpn", "iproute2"];
const VPNCLOUD: &str = "2.3.0";

/// Runs the benchmark; `arguments` are those of `adit-bench`. Unless they ask for less than a full
/// run, the minute of full load belongs to it.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let is = |name: &str| arguments.iter().any(|argument| argument.split('=').next() == Some(name));
    if is("--insert") || is("--help") {
        // Nothing is measured.
        let mut words = vec!["run", "--release", "--quiet", "--locked", "--package", "adit-bench", "--"];
        words.extend(arguments.iter().map(String::as_str));
        return run::cargo(&words, &[]);
    }
    if !debian::is_root() {
        return Err(
            "the benchmark makes network namespaces with other tunnels in them: run it as root".to_owned()
        );
    }
    let missing = debian::install(PACKAGES);
    if !missing.is_empty() {
        println!("could not be installed, and so will not be measured: {}", missing.join(" "));
    }
    let root = run::root();
    let target = run::target_directory()?;
    let tools = target.join("bench-tools");
    if !tools.join("bin/vpncloud").is_file() {
        println!("installing vpncloud {VPNCLOUD} into {}", tools.display());
        let tools = tools.to_string_lossy().into_owned();
        let install = ["install", "--quiet", "--locked", "--root", &tools, "--version", VPNCLOUD, "vpncloud"];
        if let Err(error) = run::cargo(&install, &[]) {
            println!("vpncloud will not be measured: {error}");
        }
    }
    run::cargo(&["build", "--release", "--locked", "--package", "adit", "--package", "adit-bench"], &[])?;

    let mut bench = Command::new(target.join("release/adit-bench"));
    bench.arg("--tools").arg(&tools).args(arguments).current_dir(&root);
    if !["--quick", "--soak", "--only", "--guest"].into_iter().any(is) {
        bench.arg("--soak");
    }
    run::check(&mut bench)
}
